"""A recording that several providers may hear one after the other: each of them gets its windows from the first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Self

from v2td.jobs import SAMPLE_RATE, Window
from v2td.providers.protocol import Recording


class Rewound:
    """A recording whose windows are taken from it once and told as often as it takes.

    `fault` is what taking one raised, if that happened: it is the recording's fault, or ours, and no provider's.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._taken: list[Window] = []
        self._ended = False
        self._taking: asyncio.Task[None] | None = None
        self._told: set[int] = set()
        self.fault: BaseException | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if (taking := self._taking) is not None:
            taking.cancel()
            await asyncio.wait({taking})

    @property
    def windows(self) -> tuple[Window, ...]:
        """Those that were taken by now."""
        return tuple(self._taken)

    @property
    def seconds(self) -> float:
        """How much of the recording they reach into."""
        return max((each.pieces[-1].end for each in self._taken), default=0) / SAMPLE_RATE

    def again(self, *, last: bool, clocked: bool) -> Recording:
        """Return the recording from its beginning, for the `last` provider or one behind which others wait.

        Only the last may free what it has read; silence around it is given back in any case. What was heard is passed
        on once for each window, though two providers may hear it. `clocked`: deadlines count from now on, whether the
        provider tells of its progress or not.
        """
        if clocked:
            self._recording.on_progress()
        return replace(
            self._recording,
            windows=self._from_first(clocked=clocked),
            on_done=self._recording.on_done if last else lambda _window: None,
            on_text=self._tell,
            last=last,
        )

    async def drain(self) -> None:
        """Take the windows that the provider left, so that the recording's totals are final; raises as taking does."""
        while await self._reaches(len(self._taken)):
            pass

    def _tell(self, window: Window, text: str) -> None:
        if window.index not in self._told:
            self._told.add(window.index)
            self._recording.on_text(window, text)

    async def _from_first(self, *, clocked: bool) -> AsyncIterator[Window]:
        index = 0
        while await self._reaches(index):
            if clocked:  # they allow more the longer the recording turns out to be
                self._recording.on_progress()
            yield self._taken[index]
            index += 1

    async def _reaches(self, index: int) -> bool:
        """Whether there is such a window; waits until it was taken."""
        while len(self._taken) <= index:
            if self.fault is not None:
                raise self.fault
            if self._ended:
                return False
            # In a task: were a provider that gives up to cancel the taking itself, the recording would end there.
            if self._taking is None:
                self._taking = asyncio.create_task(self._take())
            await asyncio.wait({self._taking})
        return True

    async def _take(self) -> None:
        try:
            self._taken.append(await anext(self._recording.windows))
        except StopAsyncIteration:
            self._ended = True
        except asyncio.CancelledError as error:
            self.fault = error
            raise
        except Exception as error:  # noqa: BLE001 (told to whoever asks for the window)
            self.fault = error
        finally:
            self._taking = None
