"""The provider against a server that decodes what it is sent, hears the tones in it, and fails as it is told."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
import uvloop

from tests.providers import faulty_api
from tests.providers.faulty_api import API, KEY, Fault
from tests.providers.tones import Samples, Seen, Tone, hear, recording, sound, windows, write
from v2td.config import OpenAISettings
from v2td.errors import ErrorClass, JobError, ProviderFailedError, ProviderRefusedError, ServiceError
from v2td.jobs import SAMPLE_RATE, Heard, Options
from v2td.providers import openai_client, upload
from v2td.providers.openai import OpenAIProvider
from v2td.providers.openai_client import MAX_ANSWER_BYTES, MAX_PAUSE_SECONDS, Rate

TONES = [Tone(0.5, 1.2, 440), Tone(2.0, 2.6, 700), Tone(3.4, 4.4, 1100), Tone(6.0, 6.5, 500), Tone(7.1, 7.9, 900)]
SECONDS = 9.0
CHUNKED = {"chunk_seconds": 3}


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The daemon runs on uvloop, and sockets are where loops differ."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def api() -> AsyncIterator[API]:
    async with faulty_api.serve() as served:
        yield served


@pytest.fixture
def tones() -> Samples:
    return sound(TONES, SECONDS)


def settings(api: API, **changes: object) -> OpenAISettings:
    return OpenAISettings.model_validate({"name": "api", "base_url": api.url, "api_key": KEY, **changes})


async def transcribe(
    api: API, samples: Samples, folder: Path, *, of_each: int = 3, settings_: object = None, **details: Any
) -> Heard:
    changes: dict[str, object] = dict(settings_ or {})  # type: ignore[call-overload]  # a dict or None
    cut = details.pop("cut", None) or windows(TONES, of_each)
    async with OpenAIProvider(settings(api, **changes)) as provider:
        return await provider.transcribe(recording(samples, cut, folder, **details))


def check(heard: Heard, tones: list[Tone]) -> None:
    """Each tone was heard once, where it is."""
    assert [each.text.strip() for each in heard.segments] == [tone.text for tone in tones]
    for segment, tone in zip(heard.segments, tones, strict=True):
        assert segment.start == pytest.approx(tone.start, abs=0.03)
        assert segment.end == pytest.approx(tone.end, abs=0.03)


@pytest.mark.parametrize("codec", ["opus", "flac"])
async def test_text_and_times_are_those_of_the_recording(api: API, tones: Samples, tmp_path: Path, codec: str) -> None:
    seen = Seen()
    heard = await transcribe(api, tones, tmp_path, settings_={"codec": codec}, seen=seen)
    check(heard, TONES)
    (asked,) = api.asked
    assert asked.path == "/v1/audio/transcriptions"
    assert (asked.filename, asked.content_type) == {
        "opus": ("audio.ogg", "audio/ogg"),
        "flac": ("audio.flac", "audio/flac"),
    }[codec]
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert asked.fields == {
        "model": ["whisper-1"],
        "response_format": ["verbose_json"],
        "temperature": ["0"],
        "timestamp_granularities[]": ["segment"],
    }
    assert (heard.language, heard.language_probability, heard.model) == ("vi", None, "whisper-1")
    assert [window.index for window in heard.windows] == sorted(seen.done) == [0, 1]
    assert seen.texts == {0: "f440 f700 f1100", 1: "f500 f900"}
    assert seen.progress >= 2
    assert heard.segments[0].avg_logprob == -0.25
    assert heard.segments[0].words is None
    (request,) = heard.timings["requests"]
    assert request["bytes"] == len(asked.content)
    assert request["audio_seconds"] == pytest.approx(7.9 + 0.2 - 0.3, abs=0.01)


async def test_options_are_told(api: API, tones: Samples, tmp_path: Path) -> None:
    options = Options(language="vi", prompt="Hà Nội.", hotwords="Huế", word_timestamps=True)
    heard = await transcribe(
        api, tones, tmp_path, options=options, settings_={"temperature": 0.2, "model": "large", "cost_per_minute": 0.6}
    )
    (asked,) = api.asked
    assert asked.fields == {
        "model": ["large"],
        "response_format": ["verbose_json"],
        "temperature": ["0.2"],
        "timestamp_granularities[]": ["segment", "word"],
        "language": ["vi"],
        "prompt": ["Huế Hà Nội."],
    }
    assert heard.model == "large"
    for segment, tone in zip(heard.segments, TONES, strict=True):
        assert segment.words is not None
        (word,) = segment.words
        assert (word.text, word.start, word.end) == (tone.text, segment.start, segment.end)
        assert 0.7 < word.probability < 0.8  # as sure as its segment
    assert heard.cost == pytest.approx(0.6 * 7.8 / 60, rel=0.01)


async def test_translations_have_an_endpoint_of_their_own(api: API, tones: Samples, tmp_path: Path) -> None:
    heard = await transcribe(api, tones, tmp_path, options=Options(task="translate", prompt="x"))
    (asked,) = api.asked
    assert asked.path == "/v1/audio/translations"
    assert asked.fields == {
        "model": ["whisper-1"],
        "response_format": ["verbose_json"],
        "temperature": ["0"],
        "prompt": ["x"],
    }
    check(heard, TONES)
    assert heard.language is None  # what it says is the text's
    with pytest.raises(ProviderRefusedError, match="words"):
        await transcribe(api, tones, tmp_path, options=Options(task="translate", word_timestamps=True))
    assert len(api.asked) == 1


@pytest.mark.parametrize("of_each", [1, 2, 5])
@pytest.mark.parametrize("codec", ["opus", "flac"])
async def test_long_recordings_go_in_chunks(api: API, tones: Samples, tmp_path: Path, codec: str, of_each: int) -> None:
    seen = Seen()
    changes = {**CHUNKED, "codec": codec}
    heard = await transcribe(api, tones, tmp_path, settings_=changes, of_each=of_each, seen=seen)
    check(heard, TONES)
    assert len(api.asked) > 2
    lengths = [hear(asked.content)[1] for asked in api.asked]
    assert max(lengths) <= 3.05
    assert sorted(seen.done) == [window.index for window in heard.windows]
    assert " ".join(seen.texts[index] for index in sorted(seen.texts)) == " ".join(tone.text for tone in TONES)
    # The first one tells the language, and the others are heard in it.
    assert [asked.field("language") for asked in api.asked] == [None] + ["vi"] * (len(api.asked) - 1)


async def test_uploads_stay_below_the_limit(api: API, tones: Samples, tmp_path: Path) -> None:
    heard = await transcribe(api, tones, tmp_path, settings_={"max_bytes": 100_000, "codec": "flac"})
    check(heard, TONES)
    assert len(api.asked) > 2
    assert max(len(asked.content) for asked in api.asked) <= 100_000


async def test_what_packs_larger_than_ever_is_refused(
    api: API, tones: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(upload.MOST_BYTES, "flac", 10)  # which no sound keeps to
    with pytest.raises(ProviderRefusedError, match="max_bytes"):
        await transcribe(api, tones, tmp_path, settings_={"max_bytes": 1000, "codec": "flac"})
    assert api.asked == []


async def test_a_choice_of_one_language_is_a_language(api: API, tones: Samples, tmp_path: Path) -> None:
    await transcribe(api, tones, tmp_path, options=Options(languages=("vi",)))
    await transcribe(api, tones, tmp_path, options=Options(languages=("vi", "en")))
    assert [asked.field("language") for asked in api.asked] == ["vi", None]


async def test_what_was_heard_before_is_told_when_it_counts(api: API, tones: Samples, tmp_path: Path) -> None:
    api.seconds = 0.1
    options = Options(prompt="Names:", condition_on_previous_text=True, language="vi")
    await transcribe(api, tones, tmp_path, options=options, settings_=CHUNKED)
    assert [asked.field("prompt") for asked in api.asked] == [
        "Names:",
        "Names: f440 f700",
        "Names: f1100",
        "Names: f500 f900",
    ][: len(api.asked)]
    assert len(api.asked) > 2
    assert api.most == 1


async def test_chunks_are_sent_side_by_side(api: API, tmp_path: Path) -> None:
    many = [Tone(2 * number + 0.2, 2 * number + 1, 400 + 50 * number) for number in range(12)]
    api.seconds = 0.2
    heard = await transcribe(
        api,
        sound(many, 25),
        tmp_path,
        cut=windows(many),
        settings_={"chunk_seconds": 2},
        options=Options(language="vi"),
    )
    check(heard, many)
    assert 1 < api.most <= 4


async def test_channels_are_heard_one_by_one(api: API, tmp_path: Path) -> None:
    left, right = (replace(TONES[number], channel=number % 2) for number in (0, 1))
    other = Tone(0.7, 1.1, 1500, channel=1)  # both speak at once
    stereo = sound([left, other, right], 4, channels=2)
    heard = await transcribe(
        api, stereo, tmp_path, cut=windows([left, other, right], split=True), options=Options(channels="split")
    )
    assert [(each.text.strip(), each.channel) for each in heard.segments] == [("f440", 0), ("f1500", 1), ("f700", 1)]
    assert heard.timings["channel_languages"] == {"0": "vi", "1": "vi"}
    mixed = await transcribe(api, sound([left, right], 4, channels=2), tmp_path, cut=windows([left, right]))
    assert [(each.text.strip(), each.channel) for each in mixed.segments] == [("f440", None), ("f700", None)]


async def test_silence_costs_nothing(api: API, tmp_path: Path) -> None:
    async with OpenAIProvider(settings(api, cost_per_minute=1)) as provider:
        heard = await provider.transcribe(recording(sound([], 3), [], tmp_path, options=Options(language="en")))
    assert (heard.segments, heard.windows, heard.language, heard.cost) == ((), (), "en", 0)
    assert api.asked == []


class TestOriginal:
    async def test_a_small_file_goes_up_as_it_is(self, api: API, tones: Samples, tmp_path: Path) -> None:
        audio = write(tones, tmp_path / "a secret name", "mp3", "mp3")
        heard = await transcribe(api, tones, tmp_path, audio=audio, settings_={"codec": "original"})
        (asked,) = api.asked
        assert asked.content == audio.path.read_bytes()
        assert (asked.filename, asked.content_type) == ("audio.mp3", "audio/mpeg")
        assert [each.text.strip() for each in heard.segments] == [tone.text for tone in TONES]
        assert heard.timings["requests"][0]["audio_seconds"] == SECONDS

    async def test_a_file_that_packs_smaller_is_packed(self, api: API, tones: Samples, tmp_path: Path) -> None:
        audio = write(tones, tmp_path / "recording.wav")
        await transcribe(api, tones, tmp_path, audio=audio)
        (asked,) = api.asked
        assert asked.filename == "audio.ogg"
        assert len(asked.content) < audio.size_bytes / 5

    async def test_a_file_that_is_small_already_is_not_packed(self, api: API, tones: Samples, tmp_path: Path) -> None:
        audio = write(tones, tmp_path / "recording", "ogg", "libopus", 12_000)
        assert audio.size_bytes < SECONDS * 2750
        await transcribe(api, tones, tmp_path, audio=audio)
        assert api.asked[0].content == audio.path.read_bytes()

    @pytest.mark.parametrize("changes", [CHUNKED, {"max_bytes": 60_000}], ids=["too long", "too large"])
    async def test_what_the_api_would_not_take_is_packed(
        self, api: API, tones: Samples, tmp_path: Path, changes: dict[str, object]
    ) -> None:
        audio = write(tones, tmp_path / "recording.wav")
        heard = await transcribe(api, tones, tmp_path, audio=audio, settings_={"codec": "original", **changes})
        check(heard, TONES)
        assert {asked.filename for asked in api.asked} == {"audio.flac"}

    async def test_a_kind_that_no_api_takes_is_packed(self, api: API, tones: Samples, tmp_path: Path) -> None:
        audio = write(tones, tmp_path / "recording.wav", "aiff", "pcm_s16be")
        await transcribe(api, tones, tmp_path, audio=audio, settings_={"codec": "original"})
        assert [asked.filename for asked in api.asked] == ["audio.flac"]

    async def test_a_file_that_is_mostly_silence_is_packed(self, api: API, tmp_path: Path) -> None:
        first = TONES[:1]
        changes = {**CHUNKED, "codec": "original"}
        samples = sound(first, SECONDS)
        check(await transcribe(api, samples, tmp_path, cut=windows(first), settings_=changes), first)
        assert [asked.filename for asked in api.asked] == ["audio.flac"]

    async def test_a_file_that_is_larger_than_its_sound_is_packed(
        self, api: API, tones: Samples, tmp_path: Path
    ) -> None:
        audio = write(tones, tmp_path / "recording.wav", "wav", "pcm_f32le")
        changes = {"codec": "original", "max_bytes": audio.size_bytes - 1}
        check(await transcribe(api, tones, tmp_path, audio=audio, settings_=changes), TONES)
        assert [asked.filename for asked in api.asked] == ["audio.flac"]

    async def test_a_file_of_which_a_part_was_sent_is_not_sent(self, api: API, tmp_path: Path) -> None:
        apart = [Tone(0.5, 1, 440), Tone(35, 36, 700)]  # a pause that ends a chunk
        changes = {"codec": "original"}
        check(await transcribe(api, sound(apart, 37), tmp_path, cut=windows(apart), settings_=changes), apart)
        assert [asked.filename for asked in api.asked] == ["audio.flac"] * 2

    async def test_one_channel_is_not_the_file(self, api: API, tmp_path: Path) -> None:
        right = [replace(TONES[0], channel=1)]
        stereo = sound([*right, TONES[1]], 4, channels=2)
        options, changes = Options(channels="split"), {"codec": "original"}
        cut = windows(right, split=True)
        check(await transcribe(api, stereo, tmp_path, cut=cut, options=options, settings_=changes), right)

    async def test_a_file_that_goes_away_is_packed(self, api: API, tones: Samples, tmp_path: Path) -> None:
        job = recording(tones, windows(TONES), tmp_path)
        job = replace(job, on_progress=lambda: job.audio.path.unlink(missing_ok=True))
        async with OpenAIProvider(settings(api, codec="original")) as provider:
            check(await provider.transcribe(job), TONES)
        assert [asked.filename for asked in api.asked] == ["audio.flac"]

    @pytest.mark.parametrize("status", [400, 415, 422])
    async def test_a_refused_file_is_packed(self, api: API, tones: Samples, tmp_path: Path, status: int) -> None:
        api.faults = [faulty_api.refuse(status, "Invalid file format.")]
        heard = await transcribe(api, tones, tmp_path, settings_={"codec": "original"})
        assert [asked.filename for asked in api.asked] == ["audio.wav", "audio.flac"]
        check(heard, TONES)

    async def test_a_file_that_is_gone_is_packed(self, api: API, tones: Samples, tmp_path: Path) -> None:
        audio = write(tones, tmp_path / "recording.wav")
        audio.path.unlink()
        check(await transcribe(api, tones, tmp_path, audio=audio, settings_={"codec": "original"}), TONES)


FAILS: dict[str, tuple[Fault, str]] = {
    "429": (faulty_api.refuse(429, "Rate limit reached", Retry_After="7"), "429: Rate limit reached"),
    "500": (faulty_api.refuse(500, "Oops"), "500: Oops"),
    "503": (faulty_api.say("<html>busy</html>", 503, "text/html"), "answered 503$"),
    "408": (faulty_api.refuse(408), "408"),
    "409": (faulty_api.refuse(409), "409"),
    "404": (faulty_api.refuse(404, "The model x does not exist"), "base_url and model"),
    "quota": (faulty_api.refuse(429, "You exceeded", "insufficient_quota"), "no quota left"),
    "half a body": (faulty_api.half, "ended early"),
    "not JSON": (faulty_api.say("<html>hello</html>", 200, "text/html"), "not what was asked for"),
    "wrong JSON": (faulty_api.say(json.dumps({"text": ["a"]})), "text"),
    "no text": (faulty_api.say("{}"), "text"),
    "wrong times": (
        faulty_api.say('{"text": "a", "segments": [{"text": "a", "start": "soon", "end": 1}]}'),
        "segments.0.start",
    ),
    "not a number": (faulty_api.say('{"text": "a", "segments": [{"text": "a", "start": NaN, "end": 1}]}'), "start"),
    "nothing": (faulty_api.say(b""), "not what was asked for"),
    "no UTF-8": (faulty_api.say(b'{"text": "\xff"}'), "not what was asked for"),
    "packed": (faulty_api.say(b"\x1f\x8b\x08\x00\x00"), "not what was asked for"),
    "gone": (faulty_api.disconnect, "lost"),
    "endless": (faulty_api.endless, str(MAX_ANSWER_BYTES)),
    "elsewhere": (faulty_api.refuse(307, Location="http://127.0.0.1:1/v1"), "answered 307"),
}


@pytest.mark.parametrize("name", FAILS)
async def test_a_fault_of_the_api_is_its_failure(api: API, tones: Samples, tmp_path: Path, name: str) -> None:
    fault, reason = FAILS[name]
    api.faults = [fault]
    with pytest.raises(ProviderFailedError, match=reason) as failed:
        await transcribe(api, tones, tmp_path)
    assert len(api.asked) == 1  # another provider is nearer than another attempt
    assert failed.value.error_class == ErrorClass.PROVIDER_ERROR
    assert failed.value.retry_after == (7 if name == "429" else None)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_what_the_api_will_never_take_is_refused(api: API, tones: Samples, tmp_path: Path, status: int) -> None:
    api.faults = [faulty_api.refuse(status, f"Bad\x00 language \n{KEY}")]
    with pytest.raises(ProviderRefusedError, match=f"answered {status}: Bad language …$"):
        await transcribe(api, tones, tmp_path)


async def test_an_answer_may_come_before_the_file_is_read(api: API, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(-32768, 32767, (200 * SAMPLE_RATE, 1)).astype(np.int16)
    (window,) = windows([Tone(0, 199, 440)])
    api.early = 413
    with pytest.raises(ProviderRefusedError, match="413: Too large"):  # 6 MB of it
        await transcribe(api, noise, tmp_path, cut=[window], settings_={"codec": "flac"})


async def test_certificates_are_checked(tones: Samples, tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    stranger.cert_pem.write_to_path(tmp_path / "other.pem")
    async with faulty_api.serve(context) as api:
        check(await transcribe(api, tones, tmp_path, settings_={"ca_file": tmp_path / "ca.pem"}), TONES)
        with pytest.raises(ProviderFailedError, match="certificate is refused"):
            await transcribe(api, tones, tmp_path, settings_={"ca_file": tmp_path / "other.pem"})
        with pytest.raises(ServiceError, match="ca_file of the provider api"):
            await transcribe(api, tones, tmp_path, settings_={"ca_file": tmp_path / "missing.pem"})


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_never_told(api: API, tones: Samples, tmp_path: Path, status: int) -> None:
    api.faults = [faulty_api.refuse(status, f"Incorrect API key provided: {KEY[:6]}…{KEY[-4:]}")]
    with pytest.raises(ProviderFailedError, match="api_key") as failed:
        await transcribe(api, tones, tmp_path)
    assert KEY[-4:] not in str(failed.value)
    assert KEY[:6] not in str(failed.value)


async def test_a_silent_api_is_not_waited_for(api: API, tones: Samples, tmp_path: Path) -> None:
    api.faults = [faulty_api.hang]
    with pytest.raises(ProviderFailedError, match="total_seconds"):
        await transcribe(api, tones, tmp_path, settings_={"total_seconds": 0.3})


async def test_an_api_that_is_down(tones: Samples, tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        nobody = API(url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        with pytest.raises(ProviderFailedError, match="no connection"):
            await transcribe(nobody, tones, tmp_path)
        async with OpenAIProvider(settings(nobody)) as provider:
            assert "no connection" in (await provider.health() or "")


async def test_an_api_that_takes_no_connection(tones: Samples, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # as many as wait at most, and a little more
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        nobody = API(url=f"http://127.0.0.1:{full.getsockname()[1]}/v1")
        with pytest.raises(ProviderFailedError, match="connect_seconds"):
            await transcribe(nobody, tones, tmp_path, settings_={"connect_seconds": 0.2})


async def test_chunks_that_were_paid_for_are_not_thrown_away(api: API, tones: Samples, tmp_path: Path) -> None:
    api.faults = [None, faulty_api.refuse(503, Retry_After="0"), faulty_api.disconnect]
    heard = await transcribe(api, tones, tmp_path, settings_=CHUNKED)
    check(heard, TONES)
    assert max(request["attempts"] for request in heard.timings["requests"]) > 1


async def test_a_chunk_that_keeps_failing_ends_it(api: API, tones: Samples, tmp_path: Path) -> None:
    api.faults = [None, *[faulty_api.refuse(500)] * 12]
    with pytest.raises(ProviderFailedError, match="500"):
        await transcribe(api, tones, tmp_path, settings_=CHUNKED)


async def test_nobody_waits_for_long_within_a_job(api: API, tones: Samples, tmp_path: Path) -> None:
    api.faults = [None, *[faulty_api.refuse(429, Retry_After="300")] * 9]
    with pytest.raises(ProviderFailedError) as failed:
        await transcribe(api, tones, tmp_path, settings_=CHUNKED)
    assert failed.value.retry_after is not None
    assert 250 < failed.value.retry_after <= 300


async def test_a_pause_without_an_end_has_one(api: API, tones: Samples, tmp_path: Path) -> None:
    api.faults = [faulty_api.refuse(429, Retry_After="999999999")]
    async with OpenAIProvider(settings(api)) as provider:
        for _ in range(2):
            with pytest.raises(ProviderFailedError) as failed:
                await provider.transcribe(recording(tones, windows(TONES), tmp_path))
    assert failed.value.retry_after is not None
    assert failed.value.retry_after <= MAX_PAUSE_SECONDS


async def test_who_is_asked_to_wait_does_not_ask_again(api: API, tones: Samples, tmp_path: Path) -> None:
    api.faults = [faulty_api.refuse(429, Retry_After="30")]
    async with OpenAIProvider(settings(api)) as provider:
        for _ in range(2):
            with pytest.raises(ProviderFailedError) as failed:
                await provider.transcribe(recording(tones, windows(TONES), tmp_path))
            assert failed.value.retry_after is not None
            assert 25 < failed.value.retry_after <= 30
    assert len(api.asked) == 1


async def test_a_busy_api_is_asked_again_when_it_says_so(api: API, tones: Samples, tmp_path: Path) -> None:
    api.faults = [faulty_api.refuse(429, Retry_After="1"), faulty_api.refuse(429, Retry_After="0")]
    check(await transcribe(api, tones, tmp_path), TONES)
    assert len(api.asked) == 3
    assert api.asked[1].at - api.asked[0].at > 0.9


async def test_an_api_that_stays_busy_has_failed(
    api: API, tones: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_client, "BUSY_SECONDS", 1.5)
    api.faults = [faulty_api.refuse(429, Retry_After="1")] * 99
    with pytest.raises(ProviderFailedError) as failed:
        await transcribe(api, tones, tmp_path)
    assert failed.value.retry_after is not None
    assert len(api.asked) == 2


@pytest.mark.parametrize("last", [False, True])
async def test_a_longer_pause_is_waited_for_where_nobody_stands_in(
    api: API, tones: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, last: bool
) -> None:
    monkeypatch.setattr(openai_client, "PATIENCE_SECONDS", 0.5)
    api.faults = [faulty_api.refuse(429, Retry_After="1")]
    job = replace(recording(tones, windows(TONES), tmp_path), last=last)
    async with OpenAIProvider(settings(api)) as provider:
        if last:
            check(await provider.transcribe(job), TONES)
        else:
            with pytest.raises(ProviderFailedError):
                await provider.transcribe(job)
    assert len(api.asked) == 1 + last


async def test_errors_of_the_recording_pass_as_they_are(api: API, tones: Samples, tmp_path: Path) -> None:
    fault = JobError(ErrorClass.TRUNCATED, "half of it is missing")
    with pytest.raises(JobError) as failed:
        await transcribe(api, tones, tmp_path, fault=fault, settings_=CHUNKED)
    assert failed.value is fault
    with pytest.raises(ServiceError, match="the disk"):
        await transcribe(api, tones, tmp_path, fault=ServiceError("write", "the disk"))


async def test_a_cancelled_job_leaves_nothing_behind(api: API, tones: Samples, tmp_path: Path) -> None:
    api.faults = [faulty_api.hang]
    async with OpenAIProvider(settings(api)) as provider:
        task = asyncio.create_task(provider.transcribe(recording(tones, windows(TONES), tmp_path)))
        while not api.now:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while api.now:  # the server sees that its client has left
            await asyncio.sleep(0.01)
        check(await provider.transcribe(recording(tones, windows(TONES), tmp_path)), TONES)


async def test_nobody_packs_for_a_job_that_has_left(api: API, tmp_path: Path) -> None:
    hours = 2
    pcm = tmp_path / "recording.pcm"
    job = recording(sound([], 0.1), windows([Tone(0, hours * 3600, 440)]), tmp_path)
    os.truncate(pcm, hours * 3600 * SAMPLE_RATE * 2)
    job.audio.path.unlink()  # so that it cannot be sent
    changes = {"chunk_seconds": hours * 3600, "max_bytes": 10**9}
    async with OpenAIProvider(settings(api, **changes)) as provider:
        task = asyncio.create_task(provider.transcribe(job))
        while not packing():
            assert not task.done()
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):  # all of it takes a minute
            while packing():
                await asyncio.sleep(0.01)


def packing() -> bool:
    """Whether a thread packs now."""
    return any(
        frame.f_code.co_name in {"pack", "_samples"}
        for top in sys._current_frames().values()
        for frame, _line in traceback.walk_stack(top)
    )


async def test_requests_keep_to_their_rate(
    api: API, tones: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_client, "RATE_SECONDS", 1.0)
    async with OpenAIProvider(settings(api, requests_per_minute=2)) as provider:
        for _ in range(5):
            await provider.transcribe(recording(tones, windows(TONES), tmp_path))
    times = [asked.at for asked in api.asked]
    # What is counted is when they leave, and they take a moment to arrive.
    assert times[2] - times[0] > 0.9
    assert times[4] - times[2] > 0.9


async def test_who_waits_for_a_turn_is_told_to_wait_too(
    api: API, tones: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_client, "RATE_SECONDS", 0.5)
    api.faults = [faulty_api.refuse(429, Retry_After="30")]
    async with OpenAIProvider(settings(api, requests_per_minute=1)) as provider:
        jobs = (provider.transcribe(recording(tones, windows(TONES), tmp_path)) for _ in range(3))
        failed = await asyncio.gather(*jobs, return_exceptions=True)
    assert [isinstance(each, ProviderFailedError) for each in failed] == [True] * 3
    assert len(api.asked) == 1


async def test_connections_are_kept_and_bounded(api: API, tones: Samples, tmp_path: Path) -> None:
    api.seconds = 0.1
    async with OpenAIProvider(settings(api, connections_per_host=2)) as provider, asyncio.TaskGroup() as group:
        for number in range(6):
            (tmp_path / str(number)).mkdir()
            group.create_task(provider.transcribe(recording(tones, windows(TONES), tmp_path / str(number))))
    assert api.most == 2
    assert len({asked.port for asked in api.asked}) == 2


async def test_an_idle_connection_that_the_api_closed_is_no_failure(api: API, tones: Samples, tmp_path: Path) -> None:
    api.faults = [None, faulty_api.disconnect]
    async with OpenAIProvider(settings(api)) as provider:
        for _ in range(2):
            check(await provider.transcribe(recording(tones, windows(TONES), tmp_path)), TONES)
    assert len(api.asked) == 3


async def test_the_urgent_are_let_in_first(api: API, tones: Samples, tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def wait(_request: object, _asked: object) -> None:
        await gate.wait()

    api.faults = [wait]
    async with OpenAIProvider(settings(api, connections_per_host=1)) as provider, asyncio.TaskGroup() as group:
        for number, priority in enumerate((5, 9, 5, 0)):
            folder = tmp_path / str(number)
            folder.mkdir()
            job = recording(tones, windows(TONES), folder, priority=priority, options=Options(prompt=str(priority)))
            group.create_task(provider.transcribe(job))
            while not api.asked or len(provider._client._places._waiting) < number:
                await asyncio.sleep(0.01)
        gate.set()
    assert [asked.field("prompt") for asked in api.asked] == ["5", "0", "5", "9"]


async def test_health(api: API) -> None:
    async with OpenAIProvider(settings(api)) as provider:
        assert await provider.health() is None
        api.health = 404  # it has no list of models
        assert await provider.health() is None
        api.health = 502
        assert await provider.health() == "the API answered 502"
    async with OpenAIProvider(settings(api, api_key="another")) as provider:
        assert "api_key" in (await provider.health() or "")


async def test_models_without_segments(api: API, tones: Samples, tmp_path: Path) -> None:
    heard = await transcribe(api, tones, tmp_path, settings_={"model": "gpt-4o-transcribe"})
    (asked,) = api.asked
    assert asked.field("response_format") == "json"
    assert "timestamp_granularities[]" not in asked.fields
    (segment,) = heard.segments
    assert segment.text == " ".join(tone.text for tone in TONES)
    assert (segment.start, segment.end) == (TONES[0].start, TONES[-1].end)
    assert heard.language is None


async def test_a_key_that_is_none_is_told_at_the_start(api: API) -> None:
    with pytest.raises(ServiceError, match="line break") as failed:
        await OpenAIProvider(settings(api, api_key=f"{KEY}\n")).__aenter__()
    assert KEY not in str(failed.value)


async def test_what_changes_the_text_is_in_the_fingerprint(api: API) -> None:
    first = OpenAIProvider(settings(api))
    assert KEY not in first.fingerprint
    assert first.fingerprint == OpenAIProvider(settings(api, api_key="other", name="b", weight=3)).fingerprint
    for change in ({"model": "x"}, {"temperature": 0.5}, {"codec": "flac"}, {"chunk_seconds": 5}):
        assert OpenAIProvider(settings(api, **change)).fingerprint != first.fingerprint


async def test_what_it_can_do(api: API) -> None:
    assert OpenAIProvider(settings(api)).capabilities.tasks == {"transcribe", "translate"}
    assert "word_timestamps" in OpenAIProvider(settings(api)).capabilities.options
    plain = OpenAIProvider(settings(api, model="gpt-4o-mini-transcribe")).capabilities
    assert plain.tasks == {"transcribe"}
    assert "word_timestamps" not in plain.options
    assert OpenAIProvider(settings(api)).concurrency is None
    assert OpenAIProvider(settings(api, concurrency=3)).concurrency == 3


def test_the_rate_holds_in_any_minute() -> None:
    rate = Rate(3)
    turns = [rate.turn(now) for now in (0, 1, 10, 10, 10, 61, 200)]
    assert turns == [0, 1, 10, 60, 61, 70, 200]
    assert [Rate(0).turn(5) for _ in range(9)] == [5] * 9
