"""Loading: which layer wins, and what is said about mistakes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.config import InvalidConfigError, LoadedConfig, Settings, Source, load, loading
from v2td.config.definitions import DEFINITIONS
from v2td.errors import ConfigError, ServiceError

WriteConfig = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> WriteConfig:
    """Write a config.toml that only we can read."""

    def write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


def problems(
    path: Path | None = None, flags: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> list[str]:
    """What is wrong with a configuration, a line each."""
    with pytest.raises(InvalidConfigError) as caught:
        load(path or Path("/dev/null"), flags or {}, environ or {})
    return str(caught.value).split("\n")


def from_environment(**environ: str) -> LoadedConfig:
    return load(Path("/dev/null"), {}, environ)


# Precedence


def test_nothing_configured_is_the_defaults() -> None:
    config = from_environment()
    assert config.settings == Settings()
    assert config.sources.keys() == DEFINITIONS.keys()
    assert set(config.sources.values()) == {Source("default")}


LAYERS = ["file", "seed variable", "environment variable", "flag"]


@given(present=st.sets(st.sampled_from(LAYERS)))
def test_the_highest_layer_present_wins(present: set[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text("[engine]\nslots = 1\n" if "file" in present else "")
    environ = {"STT_MAX_WORKERS": "2"} if "seed variable" in present else {}
    environ |= {"V2TD_ENGINE__SLOTS": "3"} if "environment variable" in present else {}
    config = load(path, {"engine.slots": "4"} if "flag" in present else {}, environ)
    winner = max((LAYERS.index(layer) for layer in present), default=-1)
    assert config.settings.engine.slots == winner + 1
    assert config.sources["engine.slots"].kind == (LAYERS[winner] if present else "default")


def test_sources_name_the_flag_variable_and_file(write: WriteConfig) -> None:
    path = write('[log]\nlevel = "debug"\n')
    environ = {"V2TD_ENGINE__SLOTS": "2", "WHISPER_DEVICE": "cpu"}
    config = load(path, {"engine.beam_size": "1"}, environ)
    assert str(config.sources["engine.beam_size"]) == "flag engine.beam_size"
    assert str(config.sources["engine.slots"]) == "environment variable V2TD_ENGINE__SLOTS"
    assert str(config.sources["engine.device"]) == "seed variable WHISPER_DEVICE"
    assert str(config.sources["log.level"]) == f"file {path}"
    assert str(config.sources["log.format"]) == "default"
    assert config.path == path


def test_usual_places_of_the_file(write: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "SYSTEM_PATH", tmp_path / "system.toml")
    assert load(None, {}, {}).path is None
    (tmp_path / "system.toml").write_text("[engine]\nslots = 1\n")
    assert load(None, {}, {}).settings.engine.slots == 1
    named = write("[engine]\nslots = 2\n")
    assert load(None, {}, {"V2TD_CONFIG": str(named)}).settings.engine.slots == 2
    other = tmp_path / "other.toml"
    other.write_text("[engine]\nslots = 3\n")
    assert load(other, {}, {"V2TD_CONFIG": str(named)}).settings.engine.slots == 3


@pytest.mark.parametrize("environ", [{}, {"V2TD_CONFIG": "/nowhere/config.toml"}])
def test_a_named_file_that_is_not_there_is_an_error(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"/nowhere/config.toml: No such file"):
        load(None if environ else Path("/nowhere/config.toml"), {}, environ)


def test_loaded_config_is_frozen() -> None:
    config = from_environment()
    with pytest.raises(AttributeError):
        config.path = Path("/")  # type: ignore[misc]  # that it is frozen is what is tested
    with pytest.raises(TypeError):
        config.sources["engine.slots"] = Source("default")  # type: ignore[index]  # as above


@given(key=st.sampled_from(sorted(DEFINITIONS)), text=st.text(st.characters(exclude_characters="\0")))
def test_any_text_is_a_value_or_one_named_problem(key: str, text: str) -> None:
    try:
        config = load(Path("/dev/null"), {key: text}, {"V2TD_TEST_ANYTHING": "1"})
    except InvalidConfigError as error:
        assert all(problem.hint for problem in error.problems)  # noqa: PT017 (either outcome is right)
    else:
        assert config.sources[key] == Source("flag", key)


# Mistakes


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[engine]\nslost = 4", "engine.slost = ********** (file {path}): no such setting; did you mean engine.slots?"),
        ("[enginee]\nslots = 4", "[enginee] = ********** (file {path}): no such section; did you mean engine?"),
        ("[xyzzy]\na = 1", "[xyzzy] = ********** (file {path}): no such section; remove it"),
        (
            "slots = 4",
            "slots = ********** (file {path}): no such setting outside a [section]; did you mean engine.slots?",
        ),
        ("engine = 4", "engine = ********** (file {path}): expected a table: write [engine]"),
        ('[engine]\nslots = "4"', "engine.slots = '4' (file {path}): expected whole number ≥ 0, ≤ 1_024"),
        ("[engine]\nslots = 4.0", "engine.slots = 4.0 (file {path}): expected whole number ≥ 0, ≤ 1_024"),
        ("[engine]\nslots = -1", "engine.slots = -1 (file {path}): expected whole number ≥ 0, ≤ 1_024"),
        ("[engine]\nmodel = 2024-01-01", "engine.model = 2024-01-01 (file {path}): expected text"),
        ('[engine]\nmodel = ""', "engine.model = '' (file {path}): expected text"),
        ('[engine]\ndevice = "gpu"', "engine.device = 'gpu' (file {path}): expected one of cpu, cuda"),
        ("[log]\nlevel = true", "log.level = True (file {path}): expected one of debug, info, warning, error"),
        (
            "[kafka]\ntopics = []",
            "kafka.topics = [] (file {path}): expected list, each text such as v2td-jobs; at least one",
        ),
        ("[speech]\npad_seconds = nan", "speech.pad_seconds = nan (file {path}): expected number ≥ 0, ≤ 2"),
        ('[fetch]\nfile_roots = ["a"]', "fetch.file_roots = ['a'] (file {path}): expected list, each absolute path"),
        (
            '[fetch]\nallowed_networks = ["10.0.0.1/8"]',
            "fetch.allowed_networks = ['10.0.0.1/8'] (file {path}): expected list, each network such as 10.20.0.0/16",
        ),
    ],
)
def test_a_mistake_in_the_file(text: str, line: str, write: WriteConfig) -> None:
    path = write(text)
    assert problems(path) == [line.format(path=path)]


def test_a_mistake_in_a_variable_and_a_flag() -> None:
    lines = problems(flags={"engin.slots": "2", "engine.beam_size": "ten"}, environ={"V2TD_ENGINE_SLOTS": "2"})
    variable = "V2TD_ENGINE_SLOTS = ********** (environment variable V2TD_ENGINE_SLOTS)"
    assert lines == [
        f"{variable}: no such setting; did you mean V2TD_ENGINE__SLOTS?",
        "engin.slots = ********** (flag engin.slots): no such setting; did you mean engine.slots?",
        "engine.beam_size = 'ten' (flag engine.beam_size): expected whole number ≥ 0, ≤ 16",
    ]


def test_a_variable_that_is_not_utf8_is_refused() -> None:
    broken = os.fsdecode(b"\xff")
    assert problems(environ={"V2TD_ENGINE__MODEL": broken}) == [
        "engine.model = '\\udcff' (environment variable V2TD_ENGINE__MODEL): expected text"
    ]


def test_other_variables_with_our_prefix() -> None:
    assert from_environment(V2TD_TEST_SERVICES="x", PATH="/bin").settings == Settings()
    assert len(problems(environ={"V2TD_TESTING": "x"})) == 1


def test_all_problems_are_told_at_once(write: WriteConfig) -> None:
    path = write('[engine]\nslots = "many"\nbeem_size = 3\n[database]\npool_max = 1\n[kafka]\ntopics = 3\n[lgo]\n')
    lines = problems(path, {"log.level": "loud"}, {"V2TD_X": "1", "STT_BATCH_SIZE": "0"})
    fields = sorted(line.partition(" = ")[0] for line in lines)
    assert fields == sorted(
        ["engine.slots", "engine.beem_size", "database.pool_max", "kafka.topics", "[lgo]", "log.level", "V2TD_X",
         "kafka.commit_batch"]
    )  # fmt: skip


def test_problems_are_one_config_error() -> None:
    with pytest.raises(ServiceError) as caught:
        load(Path("/dev/null"), {"log.level": "loud", "engine.device": "abacus"}, {})
    assert isinstance(caught.value, InvalidConfigError)
    assert [problem.field for problem in caught.value.problems] == ["engine.device", "log.level"]
    assert caught.value.field == "engine.device"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[engine]\nslots = = 4\n", "line 2, column 9"),
        ("[engine]\nslots = 1\nslots = 2\n", "line 3, column 10"),
        ('[engine]\nmodel = "base', "line 2, column 14"),
        ("[engine]\ncpus = [1,\n", "line 3, column 1"),
    ],
)
def test_toml_errors_say_line_and_column(text: str, where: str, write: WriteConfig) -> None:
    (line,) = problems(write(text))
    assert "not TOML" in line
    assert where in line


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"[engine]\nmodel = '\xff'\n")
    assert problems(path) == [f"configuration file = {path}: not UTF-8 at byte 18"]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert problems(tmp_path)[0].startswith(f"configuration file = {tmp_path}: Is a directory")


def test_a_value_that_is_overridden_need_not_be_right(write: WriteConfig) -> None:
    path = write('[engine]\nslots = "many"\n')
    assert load(path, {"engine.slots": "2"}, {}).settings.engine.slots == 2
