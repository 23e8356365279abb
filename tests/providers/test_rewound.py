"""A recording that several providers hear: nobody misses a window, none is freed too early, and faults stay its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.providers.given import Source
from v2td.errors import ErrorClass, JobError
from v2td.jobs import Window
from v2td.providers.windows import Rewound

READS = st.lists(st.one_of(st.none(), st.integers(0, 6)), min_size=1, max_size=4)  # windows that each reads; None: all


@dataclass
class Freed:
    """Fails when a window is read after it was freed, as its PCM would be gone."""

    windows: set[int]

    def __call__(self, window: Window) -> None:
        assert window.index not in self.windows, "freed once"
        self.windows.add(window.index)


@settings(deadline=None)
@given(count=st.integers(1, 5), reads=READS, fault=st.booleans())
def test_each_hears_all_from_the_first(count: int, reads: list[int | None], *, fault: bool) -> None:
    async def scenario() -> None:
        problem = JobError(ErrorClass.TRUNCATED, "the end is missing") if fault else None
        source, freed = Source(count, fault=problem), Freed(set())
        recording = replace(source.recording(), on_done=freed)
        async with Rewound(recording) as rewound:
            for number, wanted in enumerate(reads):
                again = rewound.again(last=number == len(reads) - 1, clocked=False)
                assert again.last == (number == len(reads) - 1)
                expected = [each.index for each in source.windows][:wanted]
                read: list[int] = []
                raised: JobError | None = None
                try:
                    if wanted != 0:
                        async for window in again.windows:
                            assert window.index not in freed.windows
                            read.append(window.index)
                            again.on_text(window, str(number))
                            again.on_done(window)
                            if len(read) == wanted:
                                break
                except JobError as error:
                    raised = error
                assert raised is (problem if wanted is None or wanted > count else None)
                assert read == expected
            if fault:
                with pytest.raises(JobError):
                    await rewound.drain()
            else:
                await rewound.drain()
            assert [each.index for each in rewound.windows] == list(range(count))
            assert rewound.seconds == 30 * count
        most = max(count if wanted is None else min(wanted, count) for wanted in reads)
        assert [index for index, _text in source.told] == list(range(most))
        last = reads[-1]
        assert freed.windows == set(range(count)[:last])
        assert source.taken == count

    asyncio.run(scenario())


async def test_a_cancelled_reader_loses_no_window_and_one_that_lingers_does_no_harm() -> None:
    source = Source(3)
    source.gate.clear()
    async with Rewound(source.recording()) as rewound:
        read: dict[str, list[int]] = {"cancelled": [], "lingers": [], "next": []}

        async def reader(name: str) -> None:
            async for window in rewound.again(last=False, clocked=False).windows:
                read[name].append(window.index)

        tasks = {name: asyncio.create_task(reader(name)) for name in read}
        while not all(len(each) == 2 for each in read.values()):
            await asyncio.sleep(0)
        tasks["cancelled"].cancel()
        await asyncio.wait({tasks["cancelled"]})
        source.gate.set()
        await asyncio.wait({tasks["lingers"], tasks["next"]})
    assert read == {"cancelled": [0, 1], "lingers": [0, 1, 2], "next": [0, 1, 2]}


async def test_leaving_ends_what_is_being_decoded_for_it() -> None:
    ended: list[str] = []

    async def decoding() -> AsyncIterator[Window]:
        try:
            yield Source(1).windows[0]
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    recording = replace(Source(1).recording(), windows=decoding())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), Rewound(recording) as rewound:
            await rewound.drain()
    assert ended == ["cancelled"]
