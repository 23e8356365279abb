"""Providers out of settings: each kind is imported only when it is configured, and what is missing is named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.providers import given
from v2td.config import ProvidersSettings
from v2td.config.problems import MASK
from v2td.errors import ConfigError
from v2td.providers import Provider, registry

HERE = "tests.providers.test_registry"


class Careless:
    """Not all that a provider is."""

    name = "mine"
    model = None


def echo(name: str, options: Mapping[str, str]) -> given.Scripted:
    return given.Scripted(name, model=options.get("model"))


def stranger(_name: str, _options: Mapping[str, str]) -> given.Scripted:
    return given.Scripted("somebody")


def careless(_name: str, _options: Mapping[str, str]) -> Careless:
    return Careless()


def endless(name: str, _options: Mapping[str, str]) -> given.Scripted:
    return given.Scripted(name, concurrency=-1)


def vague(name: str, _options: Mapping[str, str]) -> given.Scripted:
    return given.Scripted(name, capabilities={"transcribe"})  # type: ignore[arg-type]  # as careless code does


def failing(_name: str, options: Mapping[str, str]) -> Provider:
    raise ValueError(f"the key {options['key']} is too short")


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("echo", "stranger", "careless", "endless", "vague", "failing", "absent")
    points = {each: f"{HERE}:{each}" for each in names}
    given.install(tmp_path, **points, broken="v2td_no_such_module:make")
    monkeypatch.syspath_prepend(tmp_path)


def plugin(entry_point: str, **options: str) -> ProvidersSettings:
    table = {"name": "mine", "entry_point": entry_point, "options": options}
    return ProvidersSettings.model_validate({"plugins": [table]})


def made(settings: ProvidersSettings) -> list[Provider]:
    return [provider for _, provider in registry.make(settings)]


def test_a_plugin_is_given_its_name_and_options() -> None:
    (provider,) = made(plugin("echo", model="tiny"))
    assert (provider.name, provider.model) == ("mine", "tiny")


@pytest.mark.parametrize(
    ("entry_point", "told"),
    [
        ("ecko", "install the package that brings this entry point of v2td.providers; installed: absent, "),
        ("ecko", "; did you mean echo?"),
        ("stranger", "makes a provider that is called 'somebody', not 'mine' as it is told"),
        ("careless", "makes no provider: it has no fingerprint, capabilities, concurrency, "),
        ("endless", "makes a provider that cannot be used: its concurrency is no number of jobs"),
        ("vague", "makes a provider that cannot be used: its capabilities are no Capabilities"),
        ("broken", "does not start: ModuleNotFoundError: No module named 'v2td_no_such_module'"),
        ("absent", "does not start: AttributeError: "),
        ("failing", f"does not start: ValueError: the key {MASK} is too short"),
    ],
)
def test_a_plugin_that_cannot_be_had(entry_point: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(plugin(entry_point, key="hunter2"))
    assert caught.value.field == "providers.plugins[0].entry_point"
    assert caught.value.value == entry_point
    assert told in caught.value.hint
    assert "hunter2" not in str(caught.value)


def test_whisper_cpp_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [each for each in sys.path if "site-packages" not in each])
    monkeypatch.delitem(sys.modules, "pywhispercpp", raising=False)
    table = {"name": "cpp", "model": "/models/ggml-base.bin"}
    with pytest.raises(ConfigError, match=r"providers\.whisper_cpp\[0\]\.model .*pip install v2td\[whispercpp\]"):
        made(ProvidersSettings.model_validate({"whisper_cpp": [table]}))


def test_each_kind() -> None:
    tables: dict[str, Any] = {
        "whisper_cpp": [
            {"name": "cpp", "model": "/models/ggml-base.bin"},
            {"name": "server", "server_url": "http://127.0.0.1:1", "model_name": "base"},
        ],
        "openai": [{"name": "api", "base_url": "https://api.example.com/v1", "model": "whisper-1"}],
        "plugins": [{"name": "mine", "entry_point": "echo"}],
    }
    settings = ProvidersSettings.model_validate(tables)
    found = list(registry.make(settings))
    assert [table for table, _ in found] == list(settings.all)
    assert [(each.name, each.model) for _, each in found] == [
        ("cpp", "ggml-base"),
        ("server", "base"),
        ("api", "whisper-1"),
        ("mine", None),
    ]
    assert len({each.fingerprint for _, each in found}) == 4


def test_what_is_not_configured_is_not_imported() -> None:
    code = "import sys, v2td.providers, v2td.config as c; list(v2td.providers.registry.make(c.ProvidersSettings()))"
    kinds = "print([each for each in sys.modules if 'whisper_cpp' in each or 'providers.openai' in each])"
    answer = subprocess.run([sys.executable, "-c", f"{code}; {kinds}"], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
