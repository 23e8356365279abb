from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from faster_whisper import tokenizer
from hypothesis import given
from hypothesis import strategies as st

from tests.messages.examples import COORDINATES, URL, read_failure, read_job
from v2td.config.settings import MessageSettings, Settings
from v2td.errors import ErrorClass
from v2td.jobs import Failure, Job, Options, SourceRecord
from v2td.messages import LANGUAGES, Known, jobs_of
from v2td.messages.request import Request

BAD_MESSAGE, BAD_FIELD = ErrorClass.BAD_MESSAGE, ErrorClass.BAD_FIELD


def test_languages_are_those_of_faster_whisper() -> None:
    assert LANGUAGES == tokenizer._LANGUAGE_CODES


def test_a_message_with_every_key() -> None:
    job = read_job(
        {
            "id": "call-4711",
            "audio_url": "s3://recordings/a b+c?.wav",
            "language": "vi",
            "languages": ["en", "vi"],
            "task": "translate",
            "prompt": "Xin chào",
            "hotwords": "Nguyễn",
            "beam_size": 16,
            "word_timestamps": True,
            "condition_on_previous_text": True,
            "multilingual": False,
            "channels": "split",
            "priority": 0,
            "provider": "local",
            "model": "demo",
            "tenant": "acme",
            "expires_at": "2030-01-31T12:00:00.5+07:00",
            "webhook_url": None,
            "output": None,
            "metadata": {"a": [1, 2.5, None, {"b": "ü"}]},
        }
    )
    assert job.audio_url == "s3://recordings/a b+c?.wav"
    assert job.options == Options(
        "vi",
        ("en", "vi"),
        "translate",
        "Xin chào",
        "Nguyễn",
        16,
        word_timestamps=True,
        condition_on_previous_text=True,
        channels="split",
    )
    assert (job.job_id, job.priority, job.tenant) == ("call-4711", 0, "acme")
    assert job.expires_at == datetime(2030, 1, 31, 5, 0, 0, 500_000, tzinfo=UTC)
    assert job.metadata == {"a": [1, 2.5, None, {"b": "ü"}]}


def test_the_shortest_message_has_the_defaults() -> None:
    job = read_job({"audio_url": URL})
    assert (job.options, job.priority, job.job_id, job.expires_at, job.metadata) == (Options(), 5, None, None, {})


def test_the_language_may_be_told_apart_in_every_window() -> None:
    options = read_job({"audio_url": URL, "multilingual": True, "languages": ["en", "vi"]}).options
    assert options == Options(languages=("en", "vi"), multilingual=True)


def test_null_is_the_same_as_leaving_a_key_out() -> None:
    everything_null = dict.fromkeys(Request.model_fields) | {"audio_url": URL}
    assert read_job(everything_null).options == Options()
    assert read_job(everything_null).priority == 5


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({}, "audio_url: Field required", id="M11 no URL"),
        pytest.param({"audio_url": None}, "audio_url: Field required", id="M11 null"),
        pytest.param({"audio_url": ""}, "audio_url: String should have at least 1 character", id="M11 empty"),
        pytest.param({"audio_url": 5}, "audio_url: Input should be a valid string", id="M10 url"),
        pytest.param({"audio_url": URL, "id": 5}, "id: Input should be a valid string", id="M10 id"),
        pytest.param(
            {"audio_url": URL, "priority": "5"}, "priority: Input should be a valid int", id="M10 str for int"
        ),
        pytest.param(
            {"audio_url": URL, "priority": True}, "priority: Input should be a valid int", id="M10 bool for int"
        ),
        pytest.param({"audio_url": URL, "beam_size": 5.0}, "beam_size: Input should be a valid int", id="M10 float"),
        pytest.param(
            {"audio_url": URL, "word_timestamps": 1}, "word_timestamps: Input should be", id="M10 int for bool"
        ),
        pytest.param({"audio_url": URL, "task": 1}, "task: Input should be 'transcribe'", id="M10 task"),
        pytest.param(
            {"audio_url": URL, "language": ["en"]}, "language: Input should be a valid str", id="M10 language"
        ),
        pytest.param(
            {"audio_url": URL, "languages": "en"}, "languages: Input should be a valid list", id="M10 no list"
        ),
        pytest.param({"audio_url": URL, "languages": [1]}, "languages[0]: Input should be", id="M10 in a list"),
        pytest.param({"audio_url": URL, "expires_at": 1.5}, "expires_at: Input should be a string", id="M10 time"),
        pytest.param({"audio_url": URL, "metadata": []}, "metadata: Input should be a valid dict", id="M10 metadata"),
        pytest.param(
            {"audio_url": URL, "output": {"bucket": "b", "key": "k"}}, "output.formats: Field", id="M10 output"
        ),
        pytest.param({"audio_url": URL, "beamsize": 5}, "unknown key 'beamsize'; did you mean 'beam_size'?", id="typo"),
        pytest.param({"audio_url": URL, "zzzz": 5, "q": 1}, "unknown key 'zzzz' and 1 more", id="unknown"),
        pytest.param({"url": URL}, "unknown key 'url'; did you mean 'audio_url'?", id="url"),
        pytest.param([URL], "not a JSON object", id="M6 array"),
        pytest.param(URL, "not a JSON object", id="M6 string"),
    ],
)
def test_a_message_of_the_wrong_shape_is_a_bad_message(fields: Any, reason: str) -> None:
    failure = read_failure(fields)
    assert (failure.error_class, failure.reason[: len(reason)]) == (BAD_MESSAGE, reason)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"prompt": "a\0b"}, "prompt: text with a NUL character", id="M14 NUL"),
        pytest.param({"audio_url": "s3://b/\0"}, "audio_url: text with a NUL character", id="M14 NUL in the URL"),
        pytest.param(
            {"metadata": {"a": [0, {"b": "\0"}]}}, "metadata: text with a NUL character at '.a[1].b'", id="M14"
        ),
        pytest.param({"metadata": {"a\0": 0}}, "metadata: text with a NUL character", id="M14 NUL in a key"),
        pytest.param({"tenant": "\ud800"}, "tenant: text with a lone surrogate", id="M15 lone surrogate"),
        pytest.param({"metadata": {"\udc00": 0}}, "metadata: text with a lone surrogate", id="M15 in a key"),
        pytest.param({"id": "x" * 10_000}, "id: String should have at most 256 characters", id="M16 10 kB id"),
        pytest.param({"id": ""}, "id: String should have at least 1 character", id="empty id"),
        pytest.param(
            {"audio_url": "http://" + "x" * 8186}, "audio_url: String should have at most 8192", id="long URL"
        ),
        pytest.param({"prompt": "x" * 4097}, "prompt: String should have at most 4096", id="long prompt"),
        pytest.param({"hotwords": "x" * 4097}, "hotwords: String should have at most 4096", id="long hotwords"),
        pytest.param({"beam_size": 0}, "beam_size: Input should be greater than or equal to 1", id="beam 0"),
        pytest.param({"beam_size": 17}, "beam_size: Input should be less than or equal to 16", id="beam 17"),
        pytest.param({"priority": -1}, "priority: Input should be greater", id="priority -1"),
        pytest.param({"priority": 10**900}, "priority: Input should be less", id="huge priority"),
        pytest.param({"task": "sing"}, "task: Input should be 'transcribe' or 'translate'", id="task"),
        pytest.param({"language": "xx"}, "language: unknown language 'xx'; Whisper's codes look like", id="language"),
        pytest.param({"language": "vi-VN"}, "language: unknown language 'vi-VN'; did you mean 'vi'?", id="locale"),
        pytest.param({"languages": ["en", "EN"]}, "languages[1]: unknown language 'EN'; did you mean 'en'?", id="list"),
        pytest.param({"language": "en", "languages": ["vi"]}, "language is not one of languages", id="contradiction"),
        pytest.param({"language": "en", "multilingual": True}, "language says what multilingual is to", id="detected"),
        pytest.param({"channels": "left"}, "channels: Input should be 'mix' or 'split'", id="channels"),
        pytest.param({"metadata": {"n": 10**400}}, "metadata: a number that a double cannot hold at '.n'", id="int"),
        pytest.param({"provider": "openai"}, "provider: 'openai' is none of local", id="provider"),
        pytest.param({"model": "large-v3"}, "model: 'large-v3' is none of those that are there (demo)", id="model"),
    ],
)
def test_a_value_that_nothing_can_take_is_a_bad_field(fields: dict[str, Any], reason: str) -> None:
    failure = read_failure({"audio_url": URL} | fields)
    assert (failure.error_class, failure.reason[: len(reason)]) == (BAD_FIELD, reason)


@pytest.mark.parametrize("literal", ["1e400", "-1e400", "1e-400"])
def test_numbers_outside_double_in_metadata_are_a_bad_field(literal: str) -> None:
    failure = read_failure(f'{{"audio_url": "{URL}", "metadata": {{"n": [{literal}]}}}}'.encode())
    assert failure.error_class is BAD_FIELD
    assert failure.reason == "metadata: a number that a double cannot hold at '.n[0]'"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("'; DROP TABLE transcriptions; --", id="M17 SQL"),
        pytest.param("a\r\nb \x1b[31mred\x1b[0m", id="M18 CRLF and ANSI"),
        pytest.param("\u202eأهلا 👩‍👩‍👧 😀", id="M19 right-to-left and emoji"),
    ],
)
def test_odd_text_is_kept_verbatim(text: str) -> None:
    job = read_job({"audio_url": URL, "id": text, "tenant": text, "prompt": text, "metadata": {text: text}})
    assert (job.job_id, job.tenant, job.options.prompt, job.metadata) == (text, text, text, {text: text})


def test_m20_the_same_id_at_another_offset_is_another_row() -> None:
    record = SourceRecord(None, json.dumps({"audio_url": URL, "id": "a"}).encode(), ())
    jobs = [
        job
        for offset in (41, 42)
        for job in jobs_of(
            record, replace(COORDINATES, offset=offset), settings=MessageSettings(), known=Known(frozenset({"demo"}))
        )
    ]
    assert all(isinstance(job, Job) and job.job_id == "a" for job in jobs)
    assert len({job.coordinates.row_id() for job in jobs}) == 2


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "https://user:password@example.com/",
        "https://example.com/a b",
        "https://example.com/\n",
        "https://bücher.example/",
        "//example.com/",
        "https:///x",
        "https://example.com\\@evil.example/",
        "https://example.com/\ud800",
        "https://example.com/" + "x" * 2048,
        "",
    ],
)
def test_who_is_told_is_a_url_that_can_be_posted_to(url: str) -> None:
    failure = read_failure({"audio_url": URL, "webhook_url": url})
    assert failure.error_class == BAD_FIELD
    assert failure.reason.startswith("webhook_url")
    assert "password" not in failure.reason
    assert failure.webhook_url is None


def test_who_is_told_of_what_the_message_asked_for_and_of_its_refusal() -> None:
    told = "HTTPS://example.com:8443/done?token=secret"
    assert read_job({"audio_url": URL, "webhook_url": told}).webhook_url == told
    assert read_failure({"audio_url": URL, "webhook_url": told, "language": "xx"}).webhook_url == told
    record = SourceRecord(None, json.dumps({"audio_url": URL, "webhook_url": told}).encode(), ())
    (failure,) = jobs_of(record, COORDINATES, settings=MessageSettings(), known=Known(frozenset({"demo"})))
    assert isinstance(failure, Failure)
    assert failure.reason == "webhook_url: nobody is told here, since webhooks.secret is not set"
    assert failure.webhook_url is None


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2030-01-31T12:00:00Z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
        ("2030-01-31t12:00:00.123456789z", datetime(2030, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("2030-01-31 12:00:00-05:30", datetime(2030, 1, 31, 12, tzinfo=timezone(-timedelta(hours=5, minutes=30)))),
    ],
)
def test_expires_at_is_any_rfc_3339_time(text: str, instant: datetime) -> None:
    assert read_job({"audio_url": URL, "expires_at": text}).expires_at == instant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "1893456000",
        "2030-01-31",
        "2030-W05-4",
        "20300131T120000Z",
        "2030-01-31T12:00Z",
        "2030-01-31T12:00:00",
        "2030-02-30T12:00:00Z",
        "2030-01-31T25:00:00Z",
        "2030-01-31T12:00:00+99:00",
        "2030-01-31T12:00:00Z\n",
        "٢٠٣٠-01-31T12:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-01:00",
    ],
)
def test_expires_at_is_nothing_else(text: str) -> None:
    failure = read_failure({"audio_url": URL, "expires_at": text})
    assert failure.error_class is BAD_FIELD
    assert failure.reason.startswith("expires_at: not an RFC 3339 time with an offset")


def test_unknown_keys_may_be_ignored_while_a_newer_producer_rolls_out() -> None:
    message = {"audio_url": URL, "speaker_count": 2, "specversion": "2.0", "Records": "\0"}
    assert read_job(message, unknown_keys="ignore").audio_url == URL
    assert "unknown key 'speaker_count' and 2 more" in read_failure(message).reason


_text = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)
_name = _text.filter(bool)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=8,
)
_offsets = st.integers(-839, 839).map(lambda minutes: timezone(timedelta(minutes=minutes)))
valid_requests = st.fixed_dictionaries(
    {"audio_url": _name},
    optional={
        "id": _name,
        "languages": st.lists(st.sampled_from(LANGUAGES), max_size=3),
        "task": st.sampled_from(["transcribe", "translate"]),
        "prompt": _text,
        "hotwords": _text,
        "beam_size": st.integers(1, 16),
        "word_timestamps": st.booleans(),
        "condition_on_previous_text": st.booleans(),
        "multilingual": st.booleans(),
        "channels": st.sampled_from(["mix", "split"]),
        "priority": st.integers(0, 9),
        "tenant": _name,
        "model": st.just("demo"),
        "expires_at": st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=_offsets),  # noqa: DTZ001 (bounds are naive by its contract)
        "metadata": st.dictionaries(_text, _json, max_size=4),
    },
)


@given(valid_requests, st.booleans())
def test_every_valid_message_is_a_job_that_says_the_same(fields: dict[str, Any], ascii_only: bool) -> None:
    text = json.dumps(fields, ensure_ascii=ascii_only, default=datetime.isoformat)
    job = read_job(text.encode())
    said = {
        "audio_url": job.audio_url,
        "id": job.job_id,
        "languages": list(job.options.languages),
        "task": job.options.task,
        "prompt": job.options.prompt,
        "hotwords": job.options.hotwords,
        "beam_size": job.options.beam_size,
        "word_timestamps": job.options.word_timestamps,
        "condition_on_previous_text": job.options.condition_on_previous_text,
        "multilingual": job.options.multilingual,
        "channels": job.options.channels,
        "priority": job.priority,
        "tenant": job.tenant,
        "model": "demo",
        "expires_at": job.expires_at,
        "metadata": job.metadata,
    }
    assert {key: said[key] for key in fields} == fields


@pytest.mark.parametrize("key", ["\n\x1b[31m\u202eFAKE", "k" * 200_000])
def test_an_unknown_key_inside_output_is_shown_bounded_and_in_one_line(key: str) -> None:
    output = {"bucket": "b", "key": "k", "formats": ["txt"], key: 1}
    reason = read_failure({"audio_url": URL, "output": output}).reason
    assert reason.startswith("output.'")
    assert reason.isprintable()
    assert len(reason) < 150


def test_packages_may_bring_models_of_their_own() -> None:
    """Which is known only when the job is routed."""
    plugins = [{"name": "mine", "entry_point": "mine"}]
    settings = Settings.model_validate({"engine": {"model": "demo"}, "providers": {"plugins": plugins}})
    record = SourceRecord(None, json.dumps({"audio_url": URL, "model": "theirs", "provider": "mine"}).encode(), ())
    (job,) = jobs_of(record, COORDINATES, settings=settings.messages, known=Known.of(settings))
    assert isinstance(job, Job)
    assert (job.model, job.provider) == ("theirs", "mine")
    assert not Known.of(Settings()).others
