"""A server that did not answer is left alone for a while, so that not every job pays for its silence."""

from __future__ import annotations

import time

from v2td.logs import get_logger

log = get_logger(__name__)

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 30.0


class Rest:
    """Rests of 1, 2, 4, … 30 seconds after failures in a row; behind each, one caller finds out how things are."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._pause = 0.0  # 0 while it answers
        self._until = 0.0
        self._probing = False

    def may_ask(self) -> bool:
        """Whether to ask it now; who is told so says how it went, unless cancelled."""
        if self._pause == 0:
            return True
        now = time.monotonic()
        if now < self._until:
            return False
        self._probing = True
        self._until = now + self._pause  # the others go on without; a cancelled probe holds nobody up for longer
        return True

    def failed(self, error: BaseException) -> None:
        """Take note that it did not answer."""
        if self._pause > 0 and not self._probing:  # asked together with the one that began the rest
            return
        if self._pause == 0:
            log.warning("the cache of results does without", server=self._server, error=str(error) or repr(error))
        self._probing = False
        self._pause = min(2 * self._pause, LONGEST_SECONDS) or FIRST_SECONDS
        self._until = time.monotonic() + self._pause

    def answered(self) -> None:
        """Take note that it answers."""
        if self._pause > 0:
            log.info("the cache of results has it again", server=self._server)
        self._pause, self._probing = 0.0, False
