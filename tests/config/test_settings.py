"""Settings that are fine alone but not together are refused, with the one to change named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from v2td.config import InvalidConfigError, KafkaSettings, Settings, WhisperCppSettings, load
from v2td.config.definitions import DEFINITIONS, sections


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"kafka.session_timeout_seconds": "90"}, {"kafka.rebalance_timeout_seconds": "at least"}),
        ({"kafka.max_poll_interval_seconds": "9"}, {"kafka.max_poll_interval_seconds": "at least"}),
        ({"kafka.commit_timeout_seconds": "31"}, {"kafka.commit_timeout_seconds": "at most half"}),
        ({"kafka.fetch_max_wait_seconds": "40"}, {"kafka.fetch_max_wait_seconds": "less than"}),
        ({"kafka.topics": "v2td-dead-letters"}, {"kafka.dead_letter_topic": "none of topics"}),
        ({"kafka.topic_languages": "other=vi"}, {"kafka.topic_languages": "each of topics (v2td-jobs)"}),
        ({"kafka.topic_languages": "v2td-jobs=vi,v2td-jobs=en"}, {"kafka.topic_languages": "one at most"}),
        ({"kafka.topic_languages": "v2td-jobs=xx"}, {"kafka.topic_languages": "Whisper's codes"}),
        ({"kafka.topic_languages": "vi"}, {"kafka.topic_languages": "such as v2td-jobs=vi"}),
        (
            {"kafka.security_protocol": "SASL_SSL"},
            {"kafka.sasl_username": "must be set", "kafka.sasl_password": "must be set"},
        ),
        ({"pipeline.retry_max_seconds": "0.5"}, {"pipeline.retry_max_seconds": "at least"}),
        ({"pipeline.job_seconds": "1799"}, {"pipeline.job_seconds": "at least"}),
        ({"fetch.read_seconds": "901"}, {"fetch.read_seconds": "at most"}),
        ({"s3.access_key": "key"}, {"s3.secret_key": "set together with access_key"}),
        ({"s3.secret_key": "key"}, {"s3.access_key": "set together with secret_key"}),
        ({"database.pool_max": "1"}, {"database.pool_max": "at least 2"}),
        ({"database.pool_min": "11"}, {"database.pool_max": "at least pool_min (11)"}),
        ({"engine.window_seconds_factor": "60"}, {"pipeline.attempt_seconds": "(1860: engine.window_seconds_base"}),
        ({"speech.deadline_seconds": "1801"}, {"speech.deadline_seconds": "at most pipeline.attempt_seconds"}),
        ({"fetch.total_seconds": "1801"}, {"fetch.total_seconds": "at most pipeline.attempt_seconds"}),
        ({"api.openai": "true"}, {"api.openai": "admin.token set"}),
        (
            {"api.openai": "true", "admin.token": "x" * 16, "admin.enabled": "false"},
            {"api.openai": "false while admin.enabled is false"},
        ),
        (
            {"api.openai": "true", "admin.token": "x" * 16, "api.concurrency": "100"},
            {"admin.max_connections": "more than api.concurrency (100)"},
        ),
    ],
)
def test_contradictions(flags: dict[str, str], told: dict[str, str]) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load(Path("/dev/null"), flags, {})
    assert {problem.field: True for problem in caught.value.problems} == dict.fromkeys(told, True)
    for problem in caught.value.problems:
        assert told[problem.field] in problem.hint


def test_a_section_made_by_hand_is_checked_too() -> None:
    with pytest.raises(ValidationError, match=r"rebalance_timeout_seconds must be at least session_timeout_seconds"):
        KafkaSettings(session_timeout_seconds=90)


@pytest.mark.parametrize("told", [{"threads": 6}, {"cpus": (0, 1)}])
def test_a_server_of_whisper_cpps_is_not_told_its_threads(told: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=rf"{next(iter(told))} must be left out with server_url"):
        WhisperCppSettings(name="server", server_url="http://127.0.0.1:8080", **told)
    WhisperCppSettings(name="child", model=Path("/models/ggml-base.bin"), **told)


@pytest.mark.parametrize("text", ["a=vi, b.c=yue", '["a=vi", "b.c=yue"]'])
def test_a_topic_may_have_a_language(text: str) -> None:
    kafka = load(Path("/dev/null"), {"kafka.topics": "a,b.c,d", "kafka.topic_languages": text}, {}).settings.kafka
    assert kafka.languages_by_topic == {"a": "vi", "b.c": "yue"}


WITHOUT_UNIT = {
    "retry_factor",
    "vad_threshold",
    "oldest_share",
    "doubt_logprob",
    "doubt_factor",
    "logprob_min",
    "breaker_ratio",
    "compression_ratio_max",
    "no_speech_min",
    "slow_factor",
    "sample_ratio",
}


def test_every_time_size_and_path_says_what_it_is() -> None:
    for definition in DEFINITIONS.values():
        assert definition.description.endswith((".", "…")), definition.key
        if definition.kind == "number" and "seconds" not in definition.name:
            assert definition.name in WITHOUT_UNIT, f"{definition.key} has no unit"


def test_sections_are_documented() -> None:
    assert list(sections()) == list(Settings.model_fields)
    for model in sections().values():
        assert (model.__doc__ or "").endswith(".")
