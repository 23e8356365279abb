"""Layers: the first seed's variables, and the text of flags and variables."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2td.config import InvalidConfigError, LoadedConfig, load


def from_environment(**environ: str) -> LoadedConfig:
    return load(Path("/dev/null"), {}, environ)


# The first seed's variables


def test_the_seeds_example_environment() -> None:
    settings = from_environment(
        STT_MAX_WORKERS="4",
        DB_POOL_SIZE="10",
        DB_MAX_OVERFLOW="20",
        STT_BATCH_SIZE="10",
        WHISPER_MODEL_SIZE="base",
        WHISPER_DEVICE="cpu",
        WHISPER_COMPUTE_TYPE="int8",
    ).settings
    assert settings.engine.slots == 4
    assert (settings.database.pool_min, settings.database.pool_max) == (10, 30)
    assert settings.kafka.commit_batch == 10
    assert (settings.engine.model, settings.engine.device, settings.engine.compute_type) == ("base", "cpu", "int8")


@pytest.mark.parametrize("compute_type", ["int8", "int16", "float16", "float32"])
def test_the_seeds_compute_types(compute_type: str) -> None:
    assert from_environment(WHISPER_COMPUTE_TYPE=compute_type).settings.engine.compute_type == compute_type


@pytest.mark.parametrize(
    ("environ", "pool"),
    [
        ({"DB_POOL_SIZE": "15", "DB_MAX_OVERFLOW": "30"}, (15, 45)),
        ({"DB_POOL_SIZE": "20"}, (20, 20)),  # alone, as the seed's troubleshooting sets it: pool_max is raised
        ({"DB_POOL_SIZE": "5"}, (5, 10)),
        ({"DB_MAX_OVERFLOW": "3"}, (2, 5)),
        ({"DB_MAX_OVERFLOW": "3", "V2TD_DATABASE__POOL_MIN": "4"}, (4, 7)),
        ({"DB_POOL_SIZE": "5", "DB_MAX_OVERFLOW": "3", "V2TD_DATABASE__POOL_MIN": "4"}, (4, 8)),
        ({"DB_POOL_SIZE": "5", "DB_MAX_OVERFLOW": "3", "V2TD_DATABASE__POOL_MAX": "6"}, (5, 6)),
        ({"DB_POOL_SIZE": "", "DB_MAX_OVERFLOW": ""}, (2, 10)),
    ],
)
def test_pool_variables(environ: dict[str, str], pool: tuple[int, int]) -> None:
    database = from_environment(**environ).settings.database
    assert (database.pool_min, database.pool_max) == pool


def test_overflow_alone_adds_to_the_files_pool_min(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[database]\npool_min = 7\n")
    config = load(path, {}, {"DB_MAX_OVERFLOW": "5"})
    assert config.settings.database.pool_max == 12
    assert str(config.sources["database.pool_max"]) == "seed variable DB_MAX_OVERFLOW"


@given(size=st.integers(2, 1000), overflow=st.integers(0, 1000))
def test_pool_size_and_overflow_make_their_sum(size: int, overflow: int) -> None:
    database = from_environment(DB_POOL_SIZE=str(size), DB_MAX_OVERFLOW=str(overflow)).settings.database
    assert (database.pool_min, database.pool_max) == (size, size + overflow)


@pytest.mark.parametrize("overflow", ["-1", "many", "1.5", "²"])
def test_overflow_must_be_a_whole_number(overflow: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        from_environment(DB_MAX_OVERFLOW=overflow)
    assert str(caught.value) == f"DB_MAX_OVERFLOW = '{overflow}': expected whole number ≥ 0"


# Text of flags and variables


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("YES", True), ("false", False), ("0", False), ("no", False)]
)
def test_booleans(text: str, value: bool) -> None:
    assert from_environment(V2TD_ADMIN__ENABLED=text).settings.admin.enabled is value


@pytest.mark.parametrize("text", ["a,b", "a, b,", '["a", "b"]', ' [\n"a",\n"b" ]'])
def test_lists(text: str) -> None:
    assert from_environment(V2TD_KAFKA__TOPICS=text).settings.kafka.topics == ("a", "b")


def test_lists_of_numbers_networks_and_paths() -> None:
    config = load(
        Path("/dev/null"),
        {"engine.cpus": "0,2,4", "fetch.allowed_ports": "", "fetch.file_roots": "/srv/a,/srv/b"},
        {"V2TD_FETCH__ALLOWED_NETWORKS": "10.20.0.0/16,fd00::/8"},
    ).settings
    assert config.engine.cpus == (0, 2, 4)
    assert config.fetch.allowed_ports == ()
    assert config.fetch.file_roots == (Path("/srv/a"), Path("/srv/b"))
    assert [str(network) for network in config.fetch.allowed_networks] == ["10.20.0.0/16", "fd00::/8"]


def test_an_empty_text_unsets_an_optional(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[engine]\ndefault_language = "vi"\n')
    config = load(path, {}, {"V2TD_ENGINE__DEFAULT_LANGUAGE": ""})
    assert config.settings.engine.default_language is None
    assert config.sources["engine.default_language"].kind == "environment variable"


@given(value=st.floats(min_value=1e-6, max_value=900))
def test_numbers_survive_as_text(value: float) -> None:
    assert from_environment(V2TD_FETCH__READ_SECONDS=repr(value)).settings.fetch.read_seconds == value
