"""The services of the tests really answer, and `down` ends nothing but its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.conftest import MakeTopic
from tests.services import minio, prerequisites, processes, stack, state
from tests.services.build import Recipe, cache_folder
from tests.services.errors import ServiceError
from tests.services.processes import Process
from tests.services.state import Services, State


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    process = processes.spawn("sleeper", ["sleep", "60"], log=tmp_path / "sleeper.log", cwd=tmp_path)
    yield process
    processes.kill(process)


async def test_kafka_gives_back_what_it_was_given(services: Services, topic: MakeTopic) -> None:
    name = await topic(partitions=2)
    async with AIOKafkaProducer(bootstrap_servers=services.kafka_bootstrap, compression_type="zstd") as producer:
        await producer.send_and_wait(name, b"value", key=b"key", partition=1)
    async with AIOKafkaConsumer(
        name, bootstrap_servers=services.kafka_bootstrap, group_id=f"{name}-group", auto_offset_reset="earliest"
    ) as consumer:
        record = await asyncio.wait_for(consumer.getone(), 20)
    assert (record.partition, record.key, record.value) == (1, b"key", b"value")


async def test_postgres_keeps_rows_in_a_database_of_the_test(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("CREATE TABLE kept (n int)")
        await connection.copy_records_to_table("kept", records=[(n,) for n in range(3)])
        assert await connection.fetchval("SELECT sum(n) FROM kept") == 3
        assert await connection.fetchval("SHOW server_encoding") == "UTF8"
        assert int(await connection.fetchval("SHOW max_connections")) == 200
    finally:
        await connection.close()


async def test_minio_keeps_objects(services: Services, bucket: str) -> None:
    async with minio.client(services.s3_endpoint, services.s3_access_key, services.s3_secret_key) as s3:
        await s3.put_object(Bucket=bucket, Key="xin chào.wav", Body=b"abc")
        answer = await s3.get_object(Bucket=bucket, Key="xin chào.wav", Range="bytes=1-")
        async with answer["Body"] as body:
            assert await body.read() == b"bc"


async def test_a_new_object_is_announced_in_kafka(services: Services, notifying_bucket: str) -> None:
    async with AIOKafkaConsumer(
        services.notification_topic, bootstrap_servers=services.kafka_bootstrap, auto_offset_reset="earliest"
    ) as consumer:
        async with minio.client(services.s3_endpoint, services.s3_access_key, services.s3_secret_key) as s3:
            await s3.put_object(Bucket=notifying_bucket, Key="hello wörld.wav", Body=b"abc")
        event = await asyncio.wait_for(_event_of(consumer, notifying_bucket), 20)
    assert event["EventName"] == "s3:ObjectCreated:Put"
    assert event["Records"][0]["s3"]["object"]["key"] == "hello+w%C3%B6rld.wav"


async def _event_of(consumer: AIOKafkaConsumer, bucket: str) -> dict[str, Any]:
    """The first event about ``bucket``: another session may use the same services at this moment."""
    async for record in consumer:
        event = json.loads(record.value)
        if event["Key"].startswith(f"{bucket}/"):
            return dict(event)
    raise AssertionError("the consumer ended")


def test_down_stops_its_own_processes_and_no_other(tmp_path: Path, sleeper: Process) -> None:
    ours = processes.spawn("ours", ["sleep", "60"], log=tmp_path / "ours.log", cwd=tmp_path)
    data, file = tmp_path / "data", tmp_path / "state.json"
    data.mkdir()
    # The sleeper has the pid that a process of ours once had, as far as the state file knows.
    reused = replace(sleeper, started=sleeper.started - 1)
    state.write(file, State(owner=None, data_folder=str(data), processes=[ours, reused]))
    assert stack.down(file) == ["ours"]
    assert not processes.alive(ours)
    assert processes.alive(sleeper)
    assert not data.exists()
    assert not file.exists()
    assert stack.down(file) == []


def test_a_process_that_ignores_the_polite_signal_is_killed(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)"
    log = tmp_path / "stubborn.log"
    process = processes.spawn("stubborn", [sys.executable, "-c", f"{stubborn}; time.sleep(60)"], log=log, cwd=tmp_path)
    asyncio.run(processes.until_answers(process, _says(log, "deaf"), log=log, timeout_seconds=20))
    assert processes.stop(process, grace_seconds=0.2)
    assert not processes.alive(process)


def test_a_server_that_ends_while_starting_is_reported_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = processes.spawn("broken", ["sh", "-c", "echo the reason; exec false"], log=log, cwd=tmp_path)
    with pytest.raises(ServiceError, match=r"(?s)broken ended while starting.*the reason"):
        asyncio.run(processes.until_answers(process, _says(log, "never"), log=log, timeout_seconds=20))


def test_free_ports_are_different_and_below_the_ephemeral_ones() -> None:
    ports = processes.free_ports(20)
    assert len(set(ports)) == 20
    assert max(ports) < 32_768


def test_the_state_file_is_read_back_as_written_and_only_by_us(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    where = Services("127.0.0.1:1", "postgresql://", "http://", "key", "secret", "region", "topic", "arn")
    written = State(processes.this_process(), "/nowhere", [processes.this_process()], where)
    state.write(file, written)
    assert state.read(file) == written
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_missing_program_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    missing = [replace(prerequisites.JAVA, present=lambda: False), replace(prerequisites.MAVEN, present=lambda: False)]
    with pytest.raises(ServiceError) as raised:
        prerequisites.ensure(missing)
    assert "Java 17 or newer" in str(raised.value)
    assert "apt-get install --no-install-recommends default-jdk-headless maven" in str(raised.value)


def test_a_build_of_other_versions_does_not_count(tmp_path: Path) -> None:
    recipe = Recipe("thing", {"thing": "1", "part": "2"}, (prerequisites.MAVEN,), lambda folder: None)
    assert not recipe.done(tmp_path)
    recipe.folder(tmp_path).mkdir()
    (recipe.folder(tmp_path) / "stamp.json").write_text('{"thing": "1", "part": "2"}')
    assert recipe.done(tmp_path)
    assert not replace(recipe, versions={"thing": "1", "part": "3"}).done(tmp_path)


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "v2td"


def test_without_services_a_test_fails_and_names_the_cure(tmp_path: Path) -> None:
    environment = {**os.environ, state.FILE_VARIABLE: str(tmp_path / "none.json")}
    test = "tests/test_services.py::test_postgres_keeps_rows_in_a_database_of_the_test"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        cwd=state.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "start them with: make services-up" in done.stdout


@pytest.mark.services
@pytest.mark.slow
def test_run_takes_everything_down_when_it_is_told_to_end(tmp_path: Path) -> None:
    copy, log = tmp_path / "state.json", tmp_path / "run.log"
    script = f'cp "${state.FILE_VARIABLE}" {copy}.new && mv {copy}.new {copy}; exec sleep 60'
    command = [sys.executable, "-m", "tests.services", "run", "--", "sh", "-c", script]
    with log.open("wb") as output, subprocess.Popen(command, cwd=state.ROOT, stdout=output, stderr=output) as run:
        while not copy.exists():
            assert run.poll() is None, log.read_text()
            time.sleep(0.1)
        running = state.read(copy)
        assert running is not None
        assert [processes.alive(process) for process in running.processes] == [True, True, True]
        run.terminate()
        assert run.wait(30) == 128 + signal.SIGTERM
    assert not any(processes.alive(process) for process in running.processes)
    assert not Path(running.data_folder).exists()
    assert not (state.FOLDER / f"run-{run.pid}.json").exists()


def _says(log: Path, word: str) -> processes.Probe:
    async def probe() -> None:
        assert word in log.read_text()  # a line of a local file

    return probe
