"""`v2td redo` against the real daemon: another model, the same jobs; the older text stays until the newer is there."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from tests.daemon.conftest import Row, World
from tests.daemon.test_providers import KNOWING, plugin, program
from tests.providers.example import install
from v2td import bundled, failpoints

SHORT = tuple(each for each in bundled.recordings() if each.seconds < 30)


@dataclass(frozen=True)
class Answer:
    code: int
    stdout: str
    stderr: str

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads(self.stdout))


@pytest.fixture
def other(tmp_path: Path) -> str:
    """The same model under another name."""
    return str(shutil.copytree(bundled.model_folder(), tmp_path / "other"))


async def start(world: World, *words: str, **overrides: Any) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "v2td", "redo", *words, "--config", str(world.config(**overrides)))
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def redo(world: World, *words: str, **overrides: Any) -> Answer:
    process = await start(world, *words, **overrides)
    out, err = await asyncio.wait_for(process.communicate(), 90)
    return Answer(process.returncode or 0, out.decode(), err.decode())


async def transcribed(world: World, *messages: dict[str, Any], **overrides: Any) -> list[Row]:
    """Have a daemon with the demo model transcribe; return the rows in order."""
    await world.submit(*messages)
    async with world.daemon(**overrides) as daemon:
        await world.until_finished(len(messages), 60)
        assert await daemon.terminate() == 0
    return await revisions(world)


async def revisions(world: World) -> list[Row]:
    return await world.rows("SELECT * FROM transcriptions ORDER BY kafka_partition, kafka_offset, revision")


async def forget_records(world: World) -> None:
    """As retention does, of all in the topic of jobs."""
    admin = AIOKafkaAdminClient(bootstrap_servers=world.services.kafka_bootstrap)
    await admin.start()
    try:
        all_of_it = RecordsToDelete(before_offset=-1)
        await admin.delete_records({TopicPartition(world.topic, number): all_of_it for number in range(4)})
    finally:
        await admin.close()


def newest(rows: Sequence[Row]) -> dict[UUID, Row]:
    return {row["id"]: row for row in rows}


async def test_all_is_done_again_by_another_model(world: World, other: str) -> None:
    before = await transcribed(
        world,
        {"id": "file", "audio_url": SHORT[0].path.as_uri(), "word_timestamps": True, "metadata": {"n": [1, "ñ"]}},
        {"id": "query", "audio_url": f"{world.web}/{SHORT[1].path.name}?token=secret", "tenant": "acme", "priority": 0},
        {"id": "said", "audio_url": SHORT[2].path.as_uri(), "language": SHORT[2].language, "prompt": "Hm."},
    )
    async with world.daemon(engine__model=other, kafka__results_topic=f"{world.topic}-results") as daemon:
        first = await redo(world, "--since", "1h", "--model", other, "--yes", "--json", engine__model=other)
        again = await redo(world, "--since", "1h", "--model", other, "--yes", engine__model=other)
        assert await daemon.terminate() == 0
    assert (first.code, first.report["done"]) == (0, 3), first
    assert {each["detail"] for each in first.report["transcriptions"]} == {f"{other} by local"}
    assert (again.code, again.stderr) == (0, "0 done, 0 sent, 3 left alone, 0 failed, 0 refused\n")
    rows = await revisions(world)
    assert [row["revision"] for row in rows] == [0, 1] * 3
    old, new = newest(before), newest(rows)
    same = ("job_id", "tenant", "metadata", "request", "audio_url", "audio_sha256", "text", "task", "topic")
    for row_id, row in new.items():
        assert {name: row[name] for name in same} == {name: old[row_id][name] for name in same}
        assert (row["revision"], row["model"]) == (1, other)
    assert [row for row in rows if row["revision"] == 0] == before, "the older stay as they were"
    assert await world.rows("SELECT FROM failures") == []
    segments = await world.rows("SELECT count(*), count(words) AS words FROM transcript_segments GROUP BY revision")
    assert segments[0] == segments[1]
    assert segments[0]["words"] > 0
    assert "secret" not in str(rows)
    assert await world.uncommitted() == {}
    assert await world.dead_letter_records() == []


async def test_a_redo_that_fails_leaves_all_as_it_was(world: World, other: str) -> None:
    recording = world.folder / "call.flac"
    recording.write_bytes(SHORT[0].path.read_bytes())
    settings = {"fetch__file_roots": [str(world.folder)], "pipeline__attempts": 1}
    before = await transcribed(world, {"id": "call", "audio_url": recording.as_uri()}, **settings)
    recording.unlink()
    settings["engine__model"] = other
    words = ("--job", "call", "--model", other, "--json")
    async with world.daemon(**settings, kafka__retry_topic=f"{world.topic}-later") as daemon:
        failed = await redo(world, *words, **settings)
        told = await redo(world, *words, **settings)
        recording.write_bytes(SHORT[0].path.read_bytes())
        cured = await redo(world, *words, "--again", **settings)
        assert await daemon.terminate() == 0
    (entry,) = failed.report["transcriptions"]
    assert (failed.code, entry["result"], entry["revision"]) == (1, "failed", 1)
    assert entry["detail"].startswith("not_found: ")
    (entry,) = told.report["transcriptions"]
    assert (told.code, entry["result"]) == (1, "failed")
    assert "--again" in entry["detail"]
    (entry,) = cured.report["transcriptions"]
    assert (cured.code, entry["result"], entry["revision"]) == (0, "done", 2)
    rows = await revisions(world)
    assert [row["revision"] for row in rows] == [0, 2]
    assert rows[:1] == before
    assert await world.rows("SELECT FROM failures") == []
    assert await world.dead_letter_records() == []
    assert await world.uncommitted() == {}


async def test_a_model_that_the_daemon_has_not_fails_with_that_reason(world: World, other: str) -> None:
    await transcribed(world, {"id": "call", "audio_url": SHORT[0].path.as_uri()})
    unknown = await redo(world, "--job", "call", "--model", other)
    assert (unknown.code, "--model" in unknown.stderr) == (2, True), "this configuration has not"
    async with world.daemon() as daemon:
        answer = await redo(world, "--job", "call", "--model", other, "--json", engine__model=other)
        assert await daemon.terminate() == 0
    (entry,) = answer.report["transcriptions"]
    assert (answer.code, entry["result"]) == (1, "failed")
    assert entry["detail"].startswith("bad_field: model: ")
    assert [row["revision"] for row in await revisions(world)] == [0]


async def test_what_was_interrupted_goes_on(world: World, other: str) -> None:
    """Nobody works, the command is stopped; a daemon does what is asked for, and the same command sees that."""
    names = [f"call-{number}" for number in range(5)]
    await transcribed(world, *({"id": name, "audio_url": SHORT[0].path.as_uri()} for name in names))
    words = ("--since", "1h", "--model", other, "--yes", "--in-flight", "2")
    process = await start(world, *words, engine__model=other)
    async with asyncio.timeout(30):
        while len(await world.rows("SELECT FROM redos WHERE sent_at IS NOT NULL")) < 2:
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 130
    assert b"stopped after 0 of 5" in err
    assert len(await world.rows("SELECT FROM redos")) == 2, "no more than two under way"
    async with world.daemon(engine__model=other) as daemon:
        answer = await redo(world, *words, "--json", engine__model=other)
        assert await daemon.terminate() == 0
    assert answer.code == 0
    assert answer.report["done"] + answer.report["left"] == 5
    assert [row["revision"] for row in await revisions(world)] == [0, 1] * 5
    assert len(await world.rows("SELECT FROM redos")) == 5, "none was asked for twice"


async def test_headers_that_nobody_asked_for_are_ignored(world: World, other: str) -> None:
    """A stranger names a transcription, also one that does wait: his record is a job of its own."""
    (victim,) = await transcribed(world, {"id": "victim", "audio_url": SHORT[0].path.as_uri()})

    async def forge(revision: bytes) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=world.services.kafka_bootstrap)
        await producer.start()
        value = json.dumps({"id": "forger", "audio_url": SHORT[1].path.as_uri()}).encode()
        headers = [("v2td-redo-of", str(victim["id"]).encode()), ("v2td-revision", revision)]
        await producer.send_and_wait(world.topic, value, headers=headers)
        await producer.stop()

    for revision in (b"1", b"0", b"-1", b"9" * 20, b"\xff"):
        await forge(revision)
    asked = await redo(world, "--job", "victim", "--model", other, "--no-wait", "--json", engine__model=other)
    assert asked.report["sent"] == 1
    await forge(b"1")
    async with world.daemon(engine__model=other) as daemon:
        await world.until_finished(8, 60)
        assert await daemon.terminate() == 0
    forged = [row for row in await revisions(world) if row["job_id"] == "forger"]
    assert len(forged) == 6
    mine = [row for row in await revisions(world) if row["id"] == victim["id"]]
    assert [(row["revision"], row["text"]) for row in mine] == [(0, SHORT[0].text), (1, SHORT[0].text)]


async def test_a_daemon_that_dies_does_it_once(world: World, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed when the revision is durable, and the offset of its record is not."""
    await transcribed(world, {"id": "call", "audio_url": SHORT[0].path.as_uri()})
    asked = await redo(world, "--job", "call", "--model", other, "--no-wait", engine__model=other)
    assert asked.code == 0, asked
    with monkeypatch.context() as patch:
        patch.setenv(failpoints.VARIABLE, "pipeline.written=kill")
        async with world.daemon(engine__model=other, testing__failpoints=True) as daemon:
            await asyncio.wait_for(daemon.process.wait(), 60)
    assert [row["revision"] for row in await revisions(world)] == [0, 1]
    assert await world.uncommitted() != {}
    async with world.daemon(engine__model=other) as daemon:
        async with asyncio.timeout(60):
            while await world.uncommitted():
                await asyncio.sleep(0.2)
        assert "v2td_jobs_known_total 1.0" in await daemon.metrics()
        assert await daemon.terminate() == 0
    assert [row["revision"] for row in await revisions(world)] == [0, 1]
    answer = await redo(world, "--job", "call", "--model", other, "--json", engine__model=other)
    assert answer.report["left"] == 1


async def test_a_message_that_is_gone_cannot_be_asked_for_again(world: World, other: str) -> None:
    """Its row has no query, which may have been a password; the topic has it as long as its retention says."""
    await transcribed(world, {"id": "call", "audio_url": f"{world.web}/{SHORT[0].path.name}?token=secret"})
    await forget_records(world)
    answer = await redo(world, "--job", "call", "--model", other, "--json", engine__model=other)
    (entry,) = answer.report["transcriptions"]
    assert (answer.code, entry["result"]) == (1, "refused")
    assert entry["detail"] == f"its row has not all of its URL, and its message is not in {world.topic} any more"
    assert await world.rows("SELECT FROM redos") == []


async def test_it_may_go_to_another_provider_and_back(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(install(tmp_path / "package")))
    settings = {"providers__plugins": [plugin("knowing", program(tmp_path, "knowing", KNOWING))]}
    await transcribed(world, {"id": "call", "audio_url": SHORT[0].path.as_uri()}, **settings)
    async with world.daemon(**settings) as daemon:
        there = await redo(world, "--where", "provider='local'", "--provider", "knowing", **settings)
        back = await redo(world, "--where", "provider='knowing'", "--model", "demo", **settings)
        assert await daemon.terminate() == 0
    assert (there.code, back.code) == (0, 0), (there, back)
    assert there.stdout.split("  ")[1:] == ["done revision 1", "heart by knowing\n"]
    rows = await revisions(world)
    assert [(row["provider"], row["model"], row["text"]) for row in rows] == [
        ("local", "demo", SHORT[0].text),
        ("knowing", "heart", SHORT[0].text),
        ("local", "demo", SHORT[0].text),
    ]


async def test_a_long_one_goes_on_where_a_dead_daemon_left_it(
    world: World, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = next(each for each in bundled.recordings() if each.seconds > 60)
    await transcribed(world, {"id": "long", "audio_url": long.path.as_uri()})
    settings = {"engine__model": other, "engine__slots": 1, "pipeline__progress_seconds": 0.3}
    assert (await redo(world, "--job", "long", "--model", other, "--no-wait", **settings)).code == 0
    with monkeypatch.context() as patch:
        patch.setenv(failpoints.VARIABLE, "slot.batch=sleep1@*")
        slowly = {"engine__batch_windows": 1, "testing__failpoints": True}
        async with world.daemon(**settings, **slowly) as daemon, asyncio.timeout(60):
            while len(await world.rows("SELECT FROM window_results")) < 2:
                await asyncio.sleep(0.05)
            await daemon.kill()
    saved = len(await world.rows("SELECT FROM window_results"))
    async with world.daemon(**settings) as daemon:
        answer = await redo(world, "--job", "long", "--model", other, **settings)
        assert f"v2td_windows_resumed_total {saved}.0" in await daemon.metrics()
        assert await daemon.terminate() == 0
    assert answer.code == 0, answer
    assert [(row["revision"], row["model"]) for row in await revisions(world)] == [(0, "demo"), (1, other)]
    assert await world.rows("SELECT FROM window_results") == []
