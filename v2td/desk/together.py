"""Many who ask the same thing at the same time are served together: one statement, one commit, one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 500


class Together(Generic[T, R]):
    """Does by `do`, which takes many and returns a result for each, what is asked one by one.

    While it does some the next gather: alone nobody waits, and many take little longer than one; `linger_seconds` is
    for what is in no hurry. What `do` raises all get who were among them.
    """

    def __init__(self, do: Callable[[Sequence[T]], Awaitable[Sequence[R]]], linger_seconds: float = 0.0) -> None:
        self._do = do
        self._linger_seconds = linger_seconds
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._work: asyncio.Task[None] | None = None

    async def ask(self, what: T) -> R:
        """Return the result; a cancellation leaves it to be done all the same."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((what, future))
        if self._work is None:
            self._work = asyncio.create_task(self._run())
        return await future

    async def close(self) -> None:
        """Do no more."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])

    async def _run(self) -> None:
        try:
            while self._waiting:
                if self._linger_seconds:
                    await asyncio.sleep(self._linger_seconds)
                now, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
                try:
                    results = await self._do([what for what, _ in now])
                except Exception as error:  # noqa: BLE001 (it is theirs who asked)
                    for _, future in now:
                        if not future.done():
                            future.set_exception(error)
                else:
                    for (_, future), result in zip(now, results, strict=True):
                        if not future.done():
                            future.set_result(result)
        finally:
            self._work = None
