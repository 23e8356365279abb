"""The API with the official client, real decoders and the real engine."""

import asyncio
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from tests.admin.serving import TOKEN, Daemon
from tests.admin.speaking import LONG, SHORT, VI, Speaking, api, client_of, speaking
from v2td.bundled import Recording
from v2td.jobs import Options


@pytest.fixture
async def speaker(tmp_path: Path) -> AsyncIterator[Speaking]:
    async with speaking(tmp_path) as opened:
        yield opened


@pytest.fixture
async def client(speaker: Speaking) -> AsyncIterator[openai.AsyncOpenAI]:
    async with api(Daemon(transcriber=speaker)) as url, client_of(url) as opened:
        yield opened


async def test_every_format_says_what_is_said(client: openai.AsyncOpenAI, speaker: Speaking) -> None:
    create = client.audio.transcriptions.create
    answer = await create(model="whisper-1", file=SHORT.path)
    assert answer.text == SHORT.text
    assert answer.usage is not None
    assert answer.usage.type == "duration"
    assert answer.usage.seconds == pytest.approx(SHORT.seconds, abs=0.1)
    assert await create(model="demo", file=SHORT.path, response_format="text") == SHORT.text + "\n"
    srt = await create(model="demo", file=SHORT.path, response_format="srt")
    assert srt.startswith("1\n00:00:00,")
    assert srt.endswith(f"\n{SHORT.text}\n\n")
    vtt = await create(model="demo", file=SHORT.path, response_format="vtt")
    assert vtt.startswith("WEBVTT\n\n00:0")
    assert vtt.endswith(f"\n{SHORT.text}\n\n")
    assert [each.model for each in speaker.asked] == ["demo"] * 4
    assert speaker.files == []


@pytest.mark.parametrize(("recording", "language"), [(SHORT, "english"), (VI, "vietnamese")])
async def test_verbose_json_has_segments_and_words(
    client: openai.AsyncOpenAI, recording: Recording, language: str
) -> None:
    create = client.audio.transcriptions.create
    alone = await create(model="demo", file=recording.path, response_format="verbose_json")
    assert (alone.language, alone.text, alone.words) == (language, recording.text, None)
    assert alone.duration == pytest.approx(recording.seconds, abs=0.1)
    assert alone.segments is not None
    assert " ".join(each.text.strip() for each in alone.segments) == recording.text
    (first, *_), (spoken, *_) = alone.segments, recording.segments
    assert first.start == pytest.approx(spoken.start, abs=0.5)
    assert first.seek == round(first.start * 100)

    words = await create(
        model="demo", file=recording.path, response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert (words.segments, words.text) == (None, recording.text)
    assert words.words is not None
    assert " ".join(each.word for each in words.words) == recording.text
    times = [time for each in words.words for time in (each.start, each.end)]
    assert times == sorted(times)

    both = await create(
        model="demo", file=recording.path, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert both.segments
    assert both.words


async def test_the_text_streams_as_it_is_heard(client: openai.AsyncOpenAI) -> None:
    stream = await client.audio.transcriptions.create(model="demo", file=LONG.path, stream=True)
    events = [event async for event in stream]
    assert [event.type for event in events[-2:]] == ["transcript.text.delta", "transcript.text.done"]
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) > 1
    assert len(deltas) == len(events) - 1
    assert events[-1].type == "transcript.text.done"
    assert "".join(deltas) == events[-1].text
    assert len(events[-1].text) > len(LONG.text) / 2


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # OpenAI's own; ours stays
async def test_a_translation_asks_for_english(client: openai.AsyncOpenAI, speaker: Speaking) -> None:
    answer = await client.audio.translations.create(model="demo", file=VI.path, response_format="verbose_json")
    assert answer.duration == pytest.approx(VI.seconds, abs=0.1)
    assert speaker.asked[0].options == Options(task="translate")


async def test_what_is_asked_for_reaches_the_engine(client: openai.AsyncOpenAI, speaker: Speaking) -> None:
    answer = await client.audio.transcriptions.create(
        model="larger/one",
        file=("call.bin", SHORT.path.read_bytes()),
        language="en",
        prompt="A timetable.",
        temperature=0.5,
        chunking_strategy="auto",
        keywords=["Hanoi", "Hue"],
        response_format="verbose_json",
        timestamp_granularities=["word"],
        extra_body={"beam_size": 2, "channels": "split"},
    )
    assert answer.text
    assert speaker.asked[0].model == "larger/one"
    assert speaker.asked[0].options == Options(
        language="en", prompt="A timetable.", hotwords="Hanoi, Hue", beam_size=2, word_timestamps=True, channels="split"
    )


async def test_an_empty_model_leaves_it_to_the_rules(client: openai.AsyncOpenAI, speaker: Speaking) -> None:
    answer = await client.audio.transcriptions.create(model="", file=SHORT.path)
    assert answer.text == SHORT.text
    assert speaker.asked[0].model is None


async def test_silence_is_no_error(client: openai.AsyncOpenAI, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "silence.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(32_000))
    create = client.audio.transcriptions.create
    answer = await create(model="demo", file=tmp_path / "silence.wav", response_format="verbose_json")
    assert (answer.text, answer.segments, answer.language) == ("", [], "")
    stream = await create(model="demo", file=tmp_path / "silence.wav", stream=True)
    assert [event.type async for event in stream] == ["transcript.text.done"]


@pytest.mark.parametrize("content", [b"", b"no audio at all", bytes(5000)])
async def test_what_is_no_audio_is_said(client: openai.AsyncOpenAI, speaker: Speaking, content: bytes) -> None:
    create = client.audio.transcriptions.create
    with pytest.raises(openai.BadRequestError) as caught:
        await create(model="demo", file=content)
    assert caught.value.code == "not_audio"
    stream = await create(model="demo", file=content, stream=True)
    with pytest.raises(openai.APIError) as streamed:
        await anext(aiter(stream))
    assert streamed.value.code == "not_audio"
    assert speaker.files == []


async def test_the_blocking_client_and_several_at_once(speaker: Speaking) -> None:
    def ask(url: str) -> str:
        with openai.OpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0) as client:
            return client.audio.transcriptions.create(model="demo", file=SHORT.path).text

    async with api(Daemon(transcriber=speaker)) as url:
        answers = await asyncio.gather(*(asyncio.to_thread(ask, url) for _ in range(4)))
    assert answers == [SHORT.text] * 4


async def test_models_are_listed(client: openai.AsyncOpenAI) -> None:
    listed = await client.models.list()
    assert [each.id for each in listed.data] == ["demo", "larger/one"]
    assert (await client.models.retrieve("larger/one")).id == "larger/one"
    assert (await client.models.retrieve("whisper-1")).id == "demo"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("gpt-9")
    assert caught.value.code == "model_not_found"
