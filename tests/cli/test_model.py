import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run, start
from tests.cli.hub import Hub, served
from v2td.bundled import model_folder, recordings

pytestmark = pytest.mark.slow  # starts processes that load models or services

RECORDING = recordings()[0]


@pytest.fixture
def hub() -> Iterator[Hub]:
    """The bundled model, as if it were Whisper's `tiny` on the hub."""
    files = {path.name: path.read_bytes() for path in model_folder().iterdir()} | {"README.md": b"not wanted"}
    with served(Hub("Systran/faster-whisper-tiny", files)) as hub:
        yield hub


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def settings(hub: Hub, models: Path, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hub"), "V2TD_ENGINE__MODELS_DIR": str(models)}


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*")) if folder.exists() else []


async def test_a_pulled_model_transcribes(v2td: Run, settings: dict[str, str], models: Path, hub: Hub) -> None:
    answer = await v2td("model", "pull", "tiny", **settings)
    assert (answer.code, answer.stderr) == (0, "")
    assert answer.stdout == f"tiny is in {models / 'tiny'}\n"
    assert visible(models) == ["tiny"]
    assert {path.name for path in (models / "tiny").iterdir()} == set(hub.files) - {"README.md"} | {"SHA256SUMS"}
    listed = await v2td("model", "list", **settings)
    assert listed.stdout.startswith("tiny\t")
    (entry, demo) = json.loads((await v2td("model", "list", "--json", **settings)).stdout)["models"]
    assert (entry["name"], entry["path"], demo["name"]) == ("tiny", str(models / "tiny"), "demo")
    assert entry["bytes"] > 0
    assert (await v2td("model", "path", "tiny", **settings)).stdout == f"{models / 'tiny'}\n"
    answer = await v2td("transcribe", "--model", "tiny", RECORDING.path, **settings)
    assert answer.stdout.split() == RECORDING.text.split()


async def test_a_pulled_model_that_has_changed_is_not_loaded(v2td: Run, settings: dict[str, str], models: Path) -> None:
    assert (await v2td("model", "pull", "tiny", **settings)).code == 0
    weights = models / "tiny" / "model.bin"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    for command in (("run",), ("transcribe", RECORDING.path)):
        answer = await v2td(*command, "--set", "engine.model=tiny", **settings)
        assert answer.code == 1
        assert f"{weights} is not the file that was listed: its SHA-256 differs" in answer.stderr
    answer = await v2td("check", "--offline", "--set", "engine.model=tiny", **settings)
    assert answer.code == 1
    assert "SHA-256 differs" in answer.stdout


async def test_offline_nothing_is_pulled(v2td: Run, settings: dict[str, str], models: Path, hub: Hub) -> None:
    answer = await v2td("model", "pull", "tiny", "--set", "engine.offline=true", **settings)
    assert (answer.code, answer.stderr) == (
        1,
        "error: pull tiny: engine.offline is set (copy the model's folder, and name its path)\n",
    )
    assert (hub.paths, visible(models)) == ([], [])


async def test_a_model_that_is_there_is_not_pulled_again(v2td: Run, settings: dict[str, str], hub: Hub) -> None:
    assert (await v2td("model", "pull", "tiny", **settings)).code == 0
    hub.paths.clear()
    assert (await v2td("model", "pull", "tiny", **settings)).code == 0
    assert hub.paths == []


async def test_a_repository(v2td: Run, settings: dict[str, str], models: Path) -> None:
    answer = await v2td("model", "pull", "Systran/faster-whisper-tiny", **settings)
    assert answer.stdout == f"faster-whisper-tiny is in {models / 'faster-whisper-tiny'}\n"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("tinny", "expected one of: tiny.en, tiny"),
        ("nobody/nothing", "did not give it"),
        ("../../etc", "pull ../../etc: "),
    ],
)
async def test_a_model_that_the_hub_does_not_have(
    v2td: Run, settings: dict[str, str], models: Path, name: str, told: str
) -> None:
    answer = await v2td("model", "pull", name, **settings)
    assert (answer.code, answer.stdout) == (1, "")
    assert answer.stderr.startswith("error: pull ")
    assert told in answer.stderr
    assert "Traceback" not in answer.stderr
    assert visible(models) == []


async def test_no_hub(v2td: Run, settings: dict[str, str], models: Path) -> None:
    answer = await v2td("model", "pull", "tiny", **settings | {"HF_ENDPOINT": "http://127.0.0.1:1"})
    assert answer.code == 1
    assert "http://127.0.0.1:1 did not give it" in answer.stderr
    assert "Connection refused" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert visible(models) == []


async def test_a_download_that_breaks_off_leaves_nothing(
    v2td: Run, settings: dict[str, str], models: Path, hub: Hub
) -> None:
    hub.broken = frozenset({"model.bin"})
    answer = await v2td("model", "pull", "tiny", **settings)
    assert answer.code == 1
    assert visible(models) == []
    assert [path.name for path in models.iterdir()] == [".pulling-tiny.lock"]


async def test_an_interrupted_pull_leaves_nothing(settings: dict[str, str], models: Path, hub: Hub) -> None:
    hub.stuck = frozenset({"model.bin"})
    process = await start("model", "pull", "tiny", **settings)
    try:
        assert await asyncio.to_thread(hub.holding.wait, 30)
        process.send_signal(signal.SIGINT)
        _, stderr = await asyncio.wait_for(process.communicate(), 10)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, stderr) == (130, b"")
    assert [path.name for path in models.iterdir()] == [".pulling-tiny.lock"]
