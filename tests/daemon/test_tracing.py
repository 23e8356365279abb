"""Traces of a whole daemon, as the OpenTelemetry collector's own receiver gets them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiokafka import AIOKafkaProducer
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.daemon.conftest import Daemon, World
from tests.daemon.test_once_more import dlq
from tests.daemon.test_redo import redo
from tests.services import build, otlp
from tests.services.otlp import Receiver, Span
from v2td import bundled

ONE, OTHER = [each for each in bundled.recordings() if each.seconds < 30][:2]
PRODUCER, PRODUCERS_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
UNSAMPLED = "5bf92f3577b34da6a3ce929d0e0e4736"
CONSUMER_KIND = 5
PATIENCE_SECONDS = 60


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Receiver]:
    folder = tmp_path / "otlp"
    folder.mkdir()
    async with otlp.running(build.built("otlp"), folder) as running:
        yield running


async def submit(world: World, message: dict[str, Any], **headers: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=world.services.kafka_bootstrap)
    await producer.start()
    try:
        value = json.dumps(message).encode()
        await producer.send_and_wait(world.topic, value, headers=[(k, v.encode()) for k, v in headers.items()])
    finally:
        await producer.stop()


async def trees(receiver: Receiver, count: int) -> dict[str, list[dict[str, Any]]]:
    """The traces' `job` spans by job id, in order, each with its children by name; waits for `count` with commits."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while sum(each.name == "commit" for each in receiver.spans) < count:
            await asyncio.sleep(0.1)
    spans = sorted(receiver.spans, key=lambda each: each.start)
    assert len({each.span_id for each in spans}) == len(spans)
    found: dict[str, list[dict[str, Any]]] = {}
    for root in spans:
        if root.name == "job":
            children: dict[str, list[Span]] = {}
            for each in spans:
                if each.parent_id == root.span_id:
                    children.setdefault(each.name, []).append(each)
            found.setdefault(root.attributes["v2td.job_id"], []).append({"root": root, "children": children})
    return found


async def openmetrics(daemon: Daemon) -> str:
    async with aiohttp.ClientSession() as session:
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        async with session.get(f"http://127.0.0.1:{daemon.port}/metrics", headers=accept) as answer:
            assert answer.content_type == "application/openmetrics-text"
            return await answer.text()


async def counted(daemon: Daemon, result: str) -> float:
    found = re.search(rf'v2td_spans_total{{result="{result}"}} ([\d.e+]+)', await daemon.metrics())
    return float(found[1]) if found else 0.0


@pytest.mark.services
async def test_what_jobs_went_through(world: World, receiver: Receiver, flaky: dict[str, int]) -> None:
    """Whole trees: the producer's trace goes on, tries and cached texts link, all else names the same trace."""
    settings = {
        "tracing__enabled": True,
        "tracing__endpoint": receiver.grpc,
        "tracing__timeout_seconds": 1,
        "cache__results": True,
        "kafka__results_topic": f"{world.topic}-results",
        "kafka__retry_topic": f"{world.topic}-later",
        "kafka__retry_delay_seconds": 1,
        "pipeline__attempts": 1,
    }
    flaky[OTHER.name] = 1
    joined = {"traceparent": f"00-{PRODUCER}-{PRODUCERS_SPAN}-01", "tracestate": "shop=cart"}
    unsampled = {"traceparent": f"00-{UNSAMPLED}-{PRODUCERS_SPAN}-00"}
    async with world.daemon(**settings) as daemon:
        url = f"{world.web}/{ONE.name}?secret=query"
        await submit(world, {"id": "heard", "audio_url": url, "tenant": "shop"}, **joined)
        await submit(world, {"id": "later", "audio_url": f"{world.web}/flaky/{OTHER.name}"})
        await submit(world, {"id": "quiet", "audio_url": f"{world.web}/nothing.wav"}, **unsampled)
        await submit(world, {"id": "missing", "audio_url": f"{world.web}/nothing.wav"})
        await world.until_finished(4, PATIENCE_SECONDS)
        await submit(world, {"id": "copy", "audio_url": f"{world.web}/{ONE.name}"})
        (failed,) = await world.rows("SELECT id, headers::text FROM failures WHERE job_id = 'missing'")
        assert (await dlq(world, "replay", str(failed["id"])))[0] == 0
        (heard_row,) = await world.rows("SELECT id FROM transcriptions WHERE job_id = 'heard'")
        again = await redo(world, "--job", str(heard_row["id"]), "--yes", **settings)
        assert again.code == 0, again.stderr
        found = await trees(receiver, 7)
        metrics = await openmetrics(daemon)
        await check_loss(world, receiver, daemon)
        assert await daemon.terminate() == 0
    assert set(found) == {"heard", "later", "missing", "copy"}  # and not what its producer does not trace
    (heard, redone), (copy,) = found["heard"], found["copy"]
    check_heard(heard)
    assert redone["root"].links == ((PRODUCER, heard["root"].span_id, "retry"),)
    assert redone["root"].attributes["v2td.revision"] == 1
    rows = {each["job_id"]: each for each in await world.rows("SELECT * FROM transcriptions ORDER BY revision")}
    check_links(found, copy)
    for job_id, row in rows.items():
        if job_id in found:
            root = found[job_id][-1]["root"]
            assert json.loads(row["timings"])["trace"] == f"{root.trace_id}-{root.span_id}"
            assert root.attributes["v2td.job"] == str(row["id"])
    check_failure(found["missing"], failed)
    results = {json.loads(each.value)["job_id"]: dict(each.headers) for each in await results_of(world)}
    for job_id in ("heard", "copy"):
        root = found[job_id][-1]["root"]
        assert results[job_id]["traceparent"].decode() == f"00-{root.trace_id}-{root.span_id}-01"
    assert results["quiet"]["traceparent"].decode().startswith(f"00-{UNSAMPLED}-")
    check_logs(daemon, rows, found)
    check_exemplars(metrics, {each["root"].trace_id for tries in found.values() for each in tries})


async def results_of(world: World) -> list[Any]:
    return await world.records(f"{world.topic}-results")


async def check_loss(world: World, receiver: Receiver, daemon: Daemon) -> None:
    """A collector that is away costs spans, which are counted, and no job; one that is back gets the next ones."""
    assert await counted(daemon, "lost") == 0
    receiver.kill()
    await submit(world, {"id": "unseen", "audio_url": f"{world.web}/nothing.wav"})
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await counted(daemon, "lost") == 0:
            await asyncio.sleep(0.1)
        while '"spans lost"' not in daemon.log.read_text():
            await asyncio.sleep(0.1)
    (row,) = await world.rows("SELECT error_class FROM failures WHERE job_id = 'unseen'")
    assert row["error_class"] == "not_found"
    await receiver.start()
    number = 0
    async with asyncio.timeout(PATIENCE_SECONDS):  # gRPC comes back in its own time
        while not any(str(each.attributes.get("v2td.job_id")).startswith("back") for each in receiver.spans):
            await submit(world, {"id": f"back-{number}", "audio_url": f"{world.web}/nothing.wav"})
            number += 1
            await asyncio.sleep(0.5)
    assert await counted(daemon, "sent") > 0


def check_heard(tree: dict[str, Any]) -> None:
    root, children = tree["root"], tree["children"]
    assert (root.trace_id, root.parent_id, root.state) == (PRODUCER, PRODUCERS_SPAN, "shop=cart")
    assert root.kind == CONSUMER_KIND
    assert root.status.get("code", 0) == 0
    assert root.links == ()
    says = root.attributes
    assert says["messaging.system"] == "kafka"
    assert says["messaging.kafka.offset"] >= 0
    assert (says["v2td.outcome"], says["v2td.tenant"], says["v2td.attempts"]) == ("transcribed", "shop", 1)
    assert root.resource["service.name"] == "v2td"
    assert set(children) == {"fetch", "queue", "prepare", "transcribe", "write", "commit"}
    (transcribe,), (commit,) = children["transcribe"], children["commit"]
    assert transcribe.attributes["file"].endswith(f"/{ONE.name}")  # nothing of its query
    assert transcribe.attributes["size"] == ONE.path.stat().st_size
    for name, (each,) in children.items():
        assert each.trace_id == root.trace_id
        if name != "commit":
            assert root.start <= each.start <= each.end <= root.end
    assert root.end - 1_000_000 <= commit.start <= commit.end  # it goes on where the job has ended


def check_links(found: dict[str, Any], copy: dict[str, Any]) -> None:
    """The text of another links to where it was made; a job that is done again to its try before."""
    original = found["heard"][0]["root"]
    assert copy["root"].links == ((original.trace_id, original.span_id, "cached"),)
    assert copy["root"].attributes["v2td.cached"] in ("in_flight", "postgres")
    assert "transcribe" not in copy["children"]
    for job_id, outcomes in {"later": ["retried_later", "transcribed"], "missing": ["failed", "failed"]}.items():
        first, second = (each["root"] for each in found[job_id])
        assert [each.attributes["v2td.outcome"] for each in (first, second)] == outcomes
        assert first.links == ()
        assert second.links == ((first.trace_id, first.span_id, "retry"),)
        assert first.attributes["v2td.job"] == second.attributes["v2td.job"]
        assert first.trace_id != second.trace_id


def check_failure(tries: list[dict[str, Any]], row: dict[str, Any]) -> None:
    root = tries[0]["root"]
    assert root.attributes["error.type"] == "not_found"
    assert root.status["code"] == 2
    assert root.status["message"].startswith("not_found: ")
    assert ["v2td-trace", f"{root.trace_id}-{root.span_id}"] in json.loads(row["headers"])


def check_logs(daemon: Daemon, rows: dict[str, Any], found: dict[str, Any]) -> None:
    """Each line of a job has its id and its message's id, and the trace where there is one."""
    lines = [json.loads(line) for line in daemon.log.read_text().splitlines() if line.startswith("{")]
    line = next(each for each in lines if each["event"] == "transcribed" and each.get("job_id") == "heard")
    assert line["job"] == str(rows["heard"]["id"])
    assert line["trace_id"] == PRODUCER
    of_others = [each for each in lines if each.get("job_id") == "quiet"]
    assert of_others
    assert not any("trace_id" in each for each in of_others)
    later = {each["trace_id"] for each in lines if each.get("job_id") == "later" and "trace_id" in each}
    assert later == {each["root"].trace_id for each in found["later"]}


def check_exemplars(text: str, traces: set[str]) -> None:
    named: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]  # it has no types
        for sample in family.samples:
            if sample.exemplar:
                named.setdefault(family.name, set()).add(sample.exemplar.labels["trace_id"])
    assert set(named) == {"v2td_stage_seconds", "v2t_transcription_duration_seconds", "v2td_window_seconds"}
    assert all(each <= traces for each in named.values())


@pytest.mark.services
async def test_over_http_with_a_token(world: World, receiver: Receiver) -> None:
    """OTLP over HTTP, a recording of several windows, and what waits at the end of a daemon."""
    settings = {
        "tracing__enabled": True,
        "tracing__endpoint": receiver.http,
        "tracing__protocol": "http",
        "tracing__authorization": "Bearer of-this-test",
        "tracing__service_name": "shop",
    }
    long = next(each for each in bundled.recordings() if each.seconds > 30)
    async with world.daemon(**settings) as daemon:
        await submit(world, {"id": "long", "audio_url": long.path.as_uri()}, traceparent="00-nonsense-01")
        await world.until_finished(1, PATIENCE_SECONDS)
        assert await daemon.terminate() == 0  # which sends what is left
    ((tree,),) = (await trees(receiver, 1)).values()
    assert {tuple(each["authorization"]) for each in receiver.requests} == {("Bearer of-this-test",)}
    assert tree["root"].resource["service.name"] == "shop"
    assert tree["root"].parent_id == ""
    (transcribe,) = tree["children"]["transcribe"]
    windows = [each for each in receiver.spans if each.parent_id == transcribe.span_id]
    assert {each.name for each in windows} == {"window"}
    assert sorted(each.attributes["v2td.window.index"] for each in windows) == list(range(len(windows)))
    assert len(windows) > 1
    for each in windows:
        assert each.trace_id == transcribe.trace_id
        assert transcribe.start <= each.start <= each.end <= transcribe.end
        assert each.attributes["v2td.window.slot"] >= 0
        assert each.attributes["v2td.window.batch"] >= 1
