"""The generated files: current, complete, and config.toml is the defaults."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.config import Settings, load
from v2td.config.definitions import DEFINITIONS, SEED_VARIABLES
from v2td.config.generated import ROOT, main, outdated
from v2td.config.reference import FILES, config_toml, configuration_md, toml_value


def test_committed_files_are_current() -> None:
    assert outdated(FILES) == [], "run: python -m v2td.config.reference --write"


def test_an_outdated_file_is_named_and_rewritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "config.toml").write_text(config_toml() + "# edited by hand\n")
    assert outdated(FILES, tmp_path) == list(FILES)
    assert main(FILES, "v2td.config.reference", [], tmp_path) == 1
    assert "config.toml is outdated: python -m v2td.config.reference --write" in capsys.readouterr().out
    assert main(FILES, "v2td.config.reference", ["--write"], tmp_path) == 0
    assert outdated(FILES, tmp_path) == []
    assert main(FILES, "v2td.config.reference", [], tmp_path) == 0


def test_config_toml_is_the_defaults() -> None:
    config = load(ROOT / "config.toml", {}, {})
    assert config.settings == Settings()
    unset = {key for key, definition in DEFINITIONS.items() if definition.default is None or definition.columns}
    assert {key for key, source in config.sources.items() if source.kind == "default"} == unset


def test_every_setting_is_in_config_toml() -> None:
    section, found = "", set()
    for line in config_toml().splitlines():
        if table := re.match(r"\[(\w+)\]", line):
            section = table[1]
        elif tables := re.match(r"# \[\[([\w.]+)\]\]", line):
            section = tables[1]
            found.add(section)
        elif setting := re.match(r"(?:#  ? ?)?(\w+) = ", line):
            found.add(f"{section}.{setting[1]}")
    columns = {column.key for definition in DEFINITIONS.values() for column in definition.columns}
    assert found == set(DEFINITIONS) | columns


def test_the_tables_of_config_toml_are_toml() -> None:
    """Uncommented, the example of a private source names every key of one."""
    example = config_toml().partition("# [[fetch.hosts]]")[2].partition("\n[")[0]
    uncommented = "[[fetch.hosts]]\n" + re.sub("^# ?", "", example, flags=re.MULTILINE)
    (host,) = tomllib.loads(uncommented)["fetch"]["hosts"]
    assert [f"fetch.hosts.{name}" for name in host] == [column.key for column in DEFINITIONS["fetch.hosts"].columns]


def test_every_setting_is_documented() -> None:
    text = configuration_md()
    for column in DEFINITIONS["fetch.hosts"].columns:
        assert f"| `{column.name}` | {column.expected}" in text
    for definition in DEFINITIONS.values():
        (row,) = [line for line in text.splitlines() if f"`{definition.variable}`" in line]
        assert definition.description in row
        assert SEED_VARIABLES.get(definition.key, "") in row
        assert ("(secret)" in row) == definition.secret


@given(st.booleans() | st.integers(-(10**12), 10**12) | st.text())
def test_values_are_toml(value: bool | int | str) -> None:
    assert tomllib.loads(f"value = {toml_value([value])}") == {"value": [value]}
