"""Jobs of several windows, languages and channels through a running engine."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import jiwer
import pytest

from tests.engine.clips import ENGLISH, VIETNAMESE, hear_sounds, pcm_of
from tests.engine.conftest import freeze, running_engine, slots_of, text_of, until
from v2td.bundled import Recording
from v2td.config import EngineSettings
from v2td.engine import Engine, Recognition, find_model
from v2td.errors import ConfigError
from v2td.jobs import Options

pytestmark = pytest.mark.slow  # starts processes that load models


async def test_a_first_window_in_another_language_does_not_decide(tmp_path: Path) -> None:
    sounds = [VIETNAMESE[0], *ENGLISH[1:6]]
    done: list[int] = []
    async with running_engine() as engine:
        heard = await hear_sounds(
            engine,
            tmp_path / "pcm",
            [[pcm_of(each) for each in sounds]],
            Options(),
            lambda window: done.append(window.index),
        )
        assert heard.language == "en"
        assert len(done) == len(set(done))
        assert set(done) >= {0, 3, 4, 5}, "their sound is not needed again, once the language is elected"
        assert [result.language for _, result in heard.windows] == ["en"] * 6
        assert text_of(heard)[1:] == [each.text for each in sounds[1:]]
        assert slots_of(engine)[0].windows == 7, "the first was heard again"
        many = await hear_sounds(
            engine, tmp_path / "pcm", [[pcm_of(each) for each in sounds]], Options(multilingual=True)
        )
        assert [result.language for _, result in many.windows] == ["vi"] + ["en"] * 5
        assert text_of(many) == [each.text for each in sounds]


async def test_channels_elect_their_own_language(tmp_path: Path) -> None:
    sounds = [[pcm_of(each) for each in clips[:4]] for clips in (VIETNAMESE, ENGLISH)]
    async with running_engine(2) as engine:
        heard = await hear_sounds(engine, tmp_path / "pcm", sounds, Options(channels="split"))
    assert heard.channel_languages == ((0, "vi"), (1, "en"))
    assert [each.index for each, _ in heard.windows] == list(range(8))
    for channel, clips in enumerate((VIETNAMESE, ENGLISH)):
        texts = [text for (each, _), text in zip(heard.windows, text_of(heard), strict=True) if each.channel == channel]
        assert texts == [each.text for each in clips[:4]]
    spoken = [sum(map(len, each)) for each in sounds]
    assert heard.language == ("vi", "en")[spoken.index(max(spoken))]


async def test_a_chain_is_heard_in_its_order_window_by_window(tmp_path: Path) -> None:
    async with running_engine(2) as engine:
        heard = await hear_sounds(
            engine,
            tmp_path / "pcm",
            [[pcm_of(each) for each in ENGLISH[:4]]],
            Options(language="en", condition_on_previous_text=True),
        )
    assert text_of(heard) == [each.text for each in ENGLISH[:4]]
    ends = [timing.start + timing.seconds for timing in heard.timings]
    assert all(end <= after.start for end, after in zip(ends, heard.timings[1:], strict=False))
    assert [timing.batch for timing in heard.timings] == [1] * 4


async def test_messages_of_known_language_share_windows_and_so_more_of_them_a_batch(tmp_path: Path) -> None:
    clips = [each for each in (*ENGLISH[:3], *VIETNAMESE[:3]) for _ in range(5)]
    async with running_engine(window_mode="packed", batch_windows=4) as engine, asyncio.TaskGroup() as group:
        (slot,) = slots_of(engine)
        frozen = freeze(slot)
        first = group.create_task(message(engine, tmp_path / "first", ENGLISH[0]))
        await until(lambda: slot.state == "busy")
        tasks = [group.create_task(message(engine, tmp_path / f"{number}", clip)) for number, clip in enumerate(clips)]
        await until(lambda: engine.status()["queued_windows"] == len(clips))
        os.kill(frozen, signal.SIGCONT)
    assert text_of(first.result()) == [ENGLISH[0].text]
    for task in tasks:
        assert task.result().timings[0].batch > 4, "of one language, and more clips than windows"
    heard = [text_of(task.result())[0] for task in tasks]
    assert jiwer.wer([clip.text for clip in clips], heard) < 0.1


async def test_short_windows_are_refused_unless_the_model_says_that_it_is_adapted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="short_windows: true"):
        async with running_engine(window_mode="short"):
            pytest.fail("the demo's model is not adapted")
    adapted = tmp_path / "adapted"
    shutil.copytree(find_model(EngineSettings(model="demo")), adapted)
    (adapted / "README.md").write_text("---\nshort_windows: true\n---\n")
    async with running_engine(window_mode="short", model=str(adapted)) as engine:
        assert len((await message(engine, tmp_path / "pcm", ENGLISH[0])).windows) == 1


async def message(engine: Engine, path: Path, clip: Recording) -> Recognition:
    return await hear_sounds(engine, path, [[pcm_of(clip)]], Options(language=clip.language))
