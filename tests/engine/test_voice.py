"""What windows of a job have in common: the language that they elect, what was said before, how they are encoded."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from v2td.config import EngineSettings
from v2td.engine import Hearing
from v2td.engine.batch import MAX_PROMPT_TOKENS, WindowRequest, WindowResult
from v2td.engine.hearing import Item
from v2td.engine.packing import LONGEST_CLIP_SECONDS
from v2td.engine.voice import Voice
from v2td.jobs import SAMPLE_RATE, Options, Segment, Span, Window, WindowTiming

EN, VI = (("en", 0.9), ("vi", 0.1)), (("vi", 0.8), ("en", 0.2))
CHAIN = Options(language="en", condition_on_previous_text=True)


def window(index: int = 0, seconds: float = 10.0, channel: int | None = None) -> Window:
    whole = (Span(0, int(seconds * SAMPLE_RATE)),)
    return Window(index, whole, whole, channel)


class Desk:
    """Takes requests as the engine does, and answers each at once with what `detected` or `said` has for its window."""

    def __init__(
        self,
        options: Options,
        *,
        detected: Sequence[tuple[tuple[str, float], ...]] = (),
        said: Sequence[tuple[tuple[int, ...], float]] = (),
        **settings: object,
    ) -> None:
        self._detected = detected
        self._said = said
        self._hearing = Hearing(Path("pcm"), _none(), options, 5, 0.0, lambda: None)
        self.requests: list[WindowRequest] = []
        self.finals: list[bool] = []
        self.voice = Voice(self._hearing, EngineSettings.model_validate(settings), self._enqueue)

    def _enqueue(self, request: WindowRequest, final: bool) -> Item:
        self.requests.append(request)
        self.finals.append(final)
        index = request.window.index
        detects = request.options.language is None or request.options.multilingual
        languages = self._detected[index] if detects else ()
        language = languages[0][0] if languages else request.options.language or "en"
        tokens, temperature = self._said[index] if self._said else ((), 0.0)
        segment = Segment(0.0, 1.0, "text", -0.1, 0.0, 1.0, temperature)
        item = Item(
            job=1,
            request=request,
            hearing=self._hearing,
            weight=1.0,
            follows=index > 0,
            final=final,
            queued=0.0,
            said={},
        )
        result = WindowResult((segment,), language, languages, tokens, (), redone=False)
        item.done.set_result((result, WindowTiming(index, 0, 0.0, 0.0)))
        return item

    async def hear(self, *windows: Window) -> list[WindowRequest]:
        """Let the voice have these windows; returns what it asked for."""
        for each in windows:
            await self.voice.add(each)
        await self.voice.settle()
        return self.requests


async def _none() -> AsyncIterator[Window]:
    return
    yield


class TestLanguage:
    async def test_a_given_language_is_told_to_every_window(self) -> None:
        desk = Desk(Options(language="vi"), default_language="en")
        asked = await desk.hear(*map(window, range(4)))
        assert [each.options.language for each in asked] == ["vi"] * 4
        assert (desk.voice.language, desk.voice.probability) == ("vi", None)

    async def test_the_default_is_for_messages_that_say_nothing(self) -> None:
        for options, told in (
            (Options(), "vi"),
            (Options(languages=("en", "fr")), None),
            (Options(multilingual=True), None),
        ):
            asked = await Desk(options, detected=[EN], default_language="vi").hear(window())
            assert asked[0].options.language == told

    async def test_three_windows_detect_it_and_the_others_are_told(self) -> None:
        desk = Desk(Options(languages=("en", "vi")), detected=[EN, EN, EN])
        asked = await desk.hear(*map(window, range(5)))
        assert [each.options.language for each in asked] == [None, None, None, "en", "en"]
        assert desk.voice.language == "en"
        assert desk.voice.probability == pytest.approx(0.9)

    @pytest.mark.parametrize("number", [1, 2, 3, 5])
    async def test_the_one_who_heard_another_language_hears_again(self, number: int) -> None:
        desk = Desk(Options(), detected=[VI, EN, EN])
        asked = await desk.hear(window(0, seconds=2.0), *map(window, range(1, number)))
        heard = [item.done.result()[0].language for item in desk.voice.items]
        assert [item.window.index for item in desk.voice.items] == list(range(number))
        if number == 1:
            assert (heard, len(asked)) == (["vi"], 1)
        else:
            assert heard == ["en"] * number
            assert len(asked) == number + 1
            again = asked[min(number, 3)]
            assert (again.window.index, again.options.language) == (0, "en")

    async def test_a_model_of_one_language_is_not_asked_again(self) -> None:
        desk = Desk(Options(), detected=[()] * 4)
        asked = await desk.hear(*map(window, range(4)))
        assert len(asked) == 4
        assert (desk.voice.language, desk.voice.probability) == ("en", None)

    async def test_multilingual_windows_keep_theirs_and_the_job_is_in_the_likeliest(self) -> None:
        desk = Desk(Options(multilingual=True), detected=[VI, EN, VI, VI])
        asked = await desk.hear(*map(window, range(4)))
        assert len(asked) == 4
        assert all(each.options.language is None for each in asked)
        assert [item.done.result()[0].language for item in desk.voice.items] == ["vi", "en", "vi", "vi"]
        assert desk.voice.language == "vi"
        assert desk.voice.probability == pytest.approx((3 * 0.8 + 0.1) / 4)

    async def test_sound_is_kept_for_those_who_may_hear_it_again(self) -> None:
        voting = Desk(Options(), detected=[EN, VI, EN])
        await voting.hear(*map(window, range(4)))
        assert [each.window.index for each in voting.requests] == [0, 1, 2, 1, 3]
        assert voting.finals == [False, False, False, True, True]
        for options in (Options(language="en"), Options(multilingual=True)):
            desk = Desk(options, detected=[EN, VI])
            await desk.hear(window(0), window(1))
            assert desk.finals == [True, True]

    async def test_nothing_elects_nobody(self) -> None:
        desk = Desk(Options())
        assert await desk.hear() == []
        assert (desk.voice.language, desk.voice.probability) == (None, None)


class TestChain:
    async def test_a_window_is_told_what_was_said_before_it(self) -> None:
        asked = await Desk(CHAIN, said=[((1, 2), 0.0), ((3,), 0.4), ((4,), 0.0)]).hear(*map(window, range(3)))
        assert [each.previous for each in asked] == [(), (1, 2), (1, 2, 3)]
        alone = replace(CHAIN, condition_on_previous_text=False)
        asked = await Desk(alone, said=[((1, 2), 0.0), ((3,), 0.4)]).hear(window(0), window(1))
        assert [each.previous for each in asked] == [(), ()]

    async def test_guesswork_is_not_passed_on_nor_what_was_before_it(self) -> None:
        said = [((1, 2), 0.0), ((3,), 0.6), ((4,), 0.5), ((5,), 0.0)]
        asked = await Desk(CHAIN, said=said).hear(*map(window, range(4)))
        assert [each.previous for each in asked] == [(), (1, 2), (), (4,)]

    async def test_no_more_is_kept_than_the_model_can_be_told(self) -> None:
        tokens = tuple(range(100))
        asked = await Desk(CHAIN, said=[(tokens, 0.0)] * 5).hear(*map(window, range(5)))
        assert [len(each.previous) for each in asked] == [0, 100, 200, MAX_PROMPT_TOKENS, MAX_PROMPT_TOKENS]
        assert asked[4].previous == (tokens * 4)[-MAX_PROMPT_TOKENS:]

    async def test_a_window_that_is_heard_again_is_told_the_same(self) -> None:
        options = Options(condition_on_previous_text=True)
        said = [((1,), 0.0), ((2,), 0.0), ((3,), 0.0)]
        asked = await Desk(options, detected=[EN, VI, EN], said=said).hear(*map(window, range(3)))
        assert [each.window.index for each in asked] == [0, 1, 2, 1]
        assert asked[3].previous == asked[1].previous == (1,)


class TestMode:
    @pytest.mark.parametrize(
        "options",
        [
            Options(),
            Options(language="en", word_timestamps=True),
            Options(multilingual=True),
            Options(language="en", multilingual=True),
            CHAIN,
        ],
    )
    async def test_a_window_is_shared_only_where_that_costs_nothing(self, options: Options) -> None:
        desk = Desk(options, detected=[EN], window_mode="packed")
        assert [each.mode for each in await desk.hear(window(0, seconds=3.0))] == ["full"]

    async def test_messages_share_windows_when_their_language_is_known(self) -> None:
        longest = LONGEST_CLIP_SECONDS
        for seconds, mode in ((3.0, "packed"), (longest, "packed"), (longest + 0.1, "full"), (30.0, "full")):
            asked = await Desk(Options(language="en"), window_mode="packed").hear(window(0, seconds))
            assert [each.mode for each in asked] == [mode], seconds
        by_default = Desk(Options(), window_mode="packed", default_language="vi")
        assert [each.mode for each in await by_default.hear(window(0, 3.0))] == ["packed"]

    async def test_the_rest_of_a_job_shares_windows_once_its_language_is_elected(self) -> None:
        desk = Desk(Options(), detected=[EN] * 3, window_mode="packed")
        asked = await desk.hear(*(window(index, 3.0) for index in range(4)))
        assert [each.mode for each in asked] == ["full", "full", "full", "packed"]

    async def test_full_and_short_hold_for_all(self) -> None:
        for mode in ("full", "short"):
            for options in (Options(), Options(language="en", word_timestamps=True), CHAIN):
                desk = Desk(options, detected=[EN], window_mode=mode)
                assert [each.mode for each in await desk.hear(window(0, 3.0))] == [mode]

    async def test_beams_are_the_messages_or_else_the_settings(self) -> None:
        for asked_for, default, beams in ((None, 0, 0), (None, 5, 5), (2, 5, 2), (1, 0, 1)):
            (asked,) = await Desk(Options(language="en", beam_size=asked_for), beam_size=default).hear(window())
            assert asked.beam_size == beams
