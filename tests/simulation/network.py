"""How long requests travel, and which get lost: all drawn from the schedule's random numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from aiokafka.errors import KafkaConnectionError, KafkaError, RequestTimedOutError

from tests.simulation.loop import SERVER

BACKOFF_SECONDS = 0.1  # before a client asks once more


class Network:
    """Between any client and any server. `trouble` is the share of requests that something happens to."""

    def __init__(self, loop: asyncio.AbstractEventLoop, random: Random, latency: float, trouble: float) -> None:
        self.random = random
        self.trouble = trouble
        self.loop = loop
        self._latency = latency

    def delay(self) -> float:
        """Seconds that a message takes: mostly little, at times a lot."""
        draw = self.random.random()
        if draw < self.trouble:
            return self.random.uniform(0.1, 6.0)
        return self._latency * (0.2 + draw)

    def lost(self) -> bool:
        return self.random.random() < self.trouble / 2


class Connection:
    """A client's connection to the brokers: requests arrive in order."""

    def __init__(self, network: Network, is_down: Callable[[], bool], timeout: float) -> None:
        self._network = network
        self._is_down = is_down
        self._timeout = timeout
        self._last = 0.0

    async def ask(self, serve: Callable[..., Any], *arguments: Any) -> Any:
        """Have `serve` called when the request arrives, whatever becomes of us, and return its answer.

        Raises what it raises; KafkaConnectionError or RequestTimedOutError when request or answer got lost.
        """
        network, loop = self._network, self._network.loop
        answer: asyncio.Future[Any] = loop.create_future()
        when = self._last = max(loop.time() + network.delay(), self._last + 1e-6)
        fate = network.random.random() if network.lost() else 1.0
        if fate < 0.5:  # the request never arrives
            loop.call_at(when, _give, answer, None, KafkaConnectionError("lost"), context=SERVER)
        else:
            loop.call_at(when, self._arrive, answer, fate < 1.0, serve, arguments, context=SERVER)
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError:
            raise RequestTimedOutError from None

    async def persist(self, serve: Callable[..., Any], *arguments: Any) -> Any:
        """As `ask`, until there is an answer."""
        while True:
            try:
                return await self.ask(serve, *arguments)
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(BACKOFF_SECONDS)

    def _arrive(
        self, answer: asyncio.Future[Any], lose_answer: bool, serve: Callable[..., Any], arguments: Any
    ) -> None:
        if self._is_down():
            _give(answer, None, KafkaConnectionError("down"))
            return
        try:
            result = serve(*arguments)
        except Exception as error:  # noqa: BLE001 (it is the answer)
            self._reply(answer, None, error)
            return
        if lose_answer:
            self._reply(answer, None, KafkaConnectionError("answer lost"))
        elif isinstance(result, asyncio.Future):
            result.add_done_callback(lambda done: self._forward(answer, done), context=SERVER)
        else:
            self._reply(answer, result, None)

    def _forward(self, answer: asyncio.Future[Any], done: asyncio.Future[Any]) -> None:
        error = done.exception()
        self._reply(answer, None if error else done.result(), error)

    def _reply(self, answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        loop = self._network.loop
        loop.call_later(self._network.delay(), _give, answer, result, error, context=SERVER)


def _give(answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
        answer.exception()  # known to be handled, though who asked may be dead
