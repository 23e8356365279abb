import json
import os
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.conftest import MakeTopic
from tests.services.state import Services

pytestmark = pytest.mark.slow  # starts processes that load models or services

OFFLINE = ("check", "--offline", "--set", "engine.model=demo")


@pytest.fixture
async def settings(services: Services, database: str, topic: MakeTopic) -> dict[str, str]:
    """Variables under which all is well."""
    return {
        "V2TD_KAFKA__BOOTSTRAP_SERVERS": services.kafka_bootstrap,
        "V2TD_KAFKA__TOPICS": await topic(partitions=2, name="jobs"),
        "V2TD_KAFKA__GROUP_ID": await topic(name="group"),
        "V2TD_DATABASE__DSN": database,
        "V2TD_ENGINE__MODEL": "demo",
    }


async def test_all_is_well(
    v2td: Run, settings: dict[str, str], s3_settings: dict[str, str], bucket: str, services: Services
) -> None:
    told_in = {"V2TD_KAFKA__RESULTS_TOPIC": "no-such-topic-yet"}
    answer = await v2td("check", V2TD_S3__UPLOAD_BUCKET=bucket, **settings, **s3_settings, **told_in)
    assert (answer.code, answer.stderr) == (0, "")
    told = answer.stdout
    assert told.count("✓") == 10
    assert "✗" not in told
    names = (
        "spool",
        "decoder jail",
        "kafka",
        "kafka topic",
        "kafka dead letters",
        "kafka results",
        "kafka group",
        "postgres",
        "s3",
        "model",
    )
    for name in names:
        assert f"✓ {name}: " in told
    assert f"{settings['V2TD_KAFKA__TOPICS']} has 2 partitions" in told
    assert "the daemon upgrades it" in told
    assert "The train to Hanoi" in told
    assert "physical cores may be used" in told
    assert "slot on CPU" in told
    assert told.endswith("all is well\n")
    assert services.s3_secret_key not in told
    assert settings["V2TD_DATABASE__DSN"].split(":")[2].split("@")[0] not in told


async def test_something_is_wrong(v2td: Run, settings: dict[str, str]) -> None:
    user, _, server = settings["V2TD_DATABASE__DSN"].rpartition("@")
    wrong = f"{user.rpartition(':')[0]}:hunter2@{server}"
    answer = await v2td("check", **settings | {"V2TD_DATABASE__DSN": wrong})
    assert (answer.code, answer.stderr) == (1, "")
    assert "✗ postgres: " in answer.stdout
    assert "  → check the user and the password" in answer.stdout
    assert answer.stdout.endswith("1 of 8 checks failed\n")
    assert "hunter2" not in answer.stdout


async def test_offline_asks_nobody(v2td: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[kafka]\nbootstrap_servers = ["127.0.0.1:1"]\n[log]\nlevel = "error"\n')
    answer = await v2td(*OFFLINE, "--json", "--config", config, WHISPER_COMPUTE_TYPE="float32")
    assert (answer.code, answer.stderr) == (0, "")
    report = json.loads(answer.stdout)
    assert [check["name"] for check in report["checks"]] == ["spool", "decoder jail", "model"]
    assert report["settings"] == {
        "kafka.bootstrap_servers": {"value": ["127.0.0.1:1"], "source": f"file {config}"},
        "engine.model": {"value": "demo", "source": "flag engine.model"},
        "engine.compute_type": {"value": "float32", "source": "seed variable WHISPER_COMPUTE_TYPE"},
        "log.level": {"value": "error", "source": f"file {config}"},
    }
    assert report["plan"]["slots"][0].keys() == {"cpus", "threads", "node", "device_index", "nice"}
    assert report["plan"]["reasons"]


async def test_all_settings(v2td: Run) -> None:
    answer = await v2td(*OFFLINE, "--all", "--json")
    shown = json.loads(answer.stdout)["settings"]
    assert shown["kafka.group_id"] == {"value": "v2td", "source": "default"}
    assert len(shown) > 50


async def test_wrong_settings(v2td: Run) -> None:
    wrong = ("--set", "engine.slots=-1", "--set", "kafka.topic=x")
    answer = await v2td(*OFFLINE, "--json", *wrong)
    assert (answer.code, answer.stderr) == (1, "")
    report = json.loads(answer.stdout)
    assert (report["ok"], report["settings"], report["plan"]) == (False, None, None)
    assert {check["detail"] for check in report["checks"]} == {
        "engine.slots = -1 (flag engine.slots)",
        "kafka.topic = ********** (flag kafka.topic)",
    }
    answer = await v2td(*OFFLINE, *wrong)
    assert (answer.code, answer.stdout) == (1, "")
    assert answer.stderr.startswith("error: ")


async def test_the_plan_says_what_and_why(v2td: Run) -> None:
    first = min(os.sched_getaffinity(0))
    answer = await v2td(*OFFLINE, "--set", f"engine.cpus={first}", "--set", "engine.slots=2")
    assert answer.code == 0
    told = answer.stdout
    assert f"; CPUs {first} are set\n0 left to the loop and the decoders\na copy of the model takes up to 0." in told
    assert f"\n2 slots of 1 thread (as set)\n  a slot on CPU {first}, threads: 1" in told
