"""docs/providers.md is true: its configurations load, and its provider is the example package, which v2td finds."""

from __future__ import annotations

import re
import stat
import sys
from pathlib import Path

import pytest

from tests.providers.example import PACKAGE, install
from tests.providers.given import Source
from tests.providers.test_router import SEED
from v2td.config import PluginSettings, ProvidersSettings, load
from v2td.errors import ProviderFailedError
from v2td.providers import Provider, registry

DOCUMENT = Path(__file__).parents[2] / "docs" / "providers.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


def test_the_text_is_the_package() -> None:
    (code,) = (text for kind, text in BLOCKS if kind == "python")
    assert code == (PACKAGE / "v2td_program.py").read_text()
    assert ("toml", (PACKAGE / "pyproject.toml").read_text()) in BLOCKS
    assert sum(bool(line.strip()) for line in code.splitlines()) in range(35, 46), "it promises 40 lines"


def test_its_first_example_is_the_seeds() -> None:
    assert BLOCKS[0] == ("toml", SEED.strip() + "\n")


def test_its_configurations_load(tmp_path: Path) -> None:
    settings = [text for kind, text in BLOCKS if kind == "toml" and "build-system" not in text]
    assert len(settings) >= 3
    (tmp_path / "openai").write_text("key")  # what systemd would lay there
    for text in settings:
        file = tmp_path / "config.toml"
        file.write_text(text)
        file.chmod(0o600)
        assert load(file, {}, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).settings.providers.all


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("installed"))


def make(tmp_path: Path, body: str, **options: str) -> Provider:
    program = tmp_path / "transcribe"
    program.write_text(f"#!{sys.executable}\nimport os, sys, time\n{body}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    given = {"program": str(program), **options}
    table = PluginSettings.model_validate({"name": "mine", "entry_point": "program", "options": given})
    ((_, provider),) = registry.make(ProvidersSettings(plugins=(table,)))
    return provider


async def test_it_runs_a_program(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(installed)
    monkeypatch.setenv("SECRET", "hunter2")
    body = "print('0.5\\t1.5\\t' + sys.argv[1])\nprint('2\\t3\\t' + os.environ.get('SECRET', 'nothing'))"
    provider = make(tmp_path, body, model="tiny")
    async with provider:
        heard = await provider.transcribe(Source().recording())
        assert [(each.start, each.end, each.text) for each in heard.segments] == [
            (0.5, 1.5, "/dev/null"),
            (2, 3, "nothing"),
        ]
        assert heard.model == provider.model == "tiny"
        assert await provider.health() is None
        (tmp_path / "transcribe").unlink()
        assert "is not there" in str(await provider.health())


@pytest.mark.parametrize(
    ("body", "told"),
    [("sys.exit(3)", "the program ended with 3"), ("time.sleep(60)", "the program took longer than 0.5 s")],
)
async def test_it_fails(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, told: str) -> None:
    monkeypatch.syspath_prepend(installed)
    provider = make(tmp_path, body, seconds="0.5")
    with pytest.raises(ProviderFailedError, match=told):
        await provider.transcribe(Source().recording())
