"""A terminal taken whole: keys as they are pressed, a screen that is drawn over, and all as it was afterwards."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

END = "q"  # what a terminal that went away says
CHUNK = 64


class Screen:
    """The terminal's other screen, drawn by `draw(width, height)` as lines that fit. A context manager.

    Unlike rich's Live it does not fill lines with blanks: tmux would wrap those when the window changes its size, and
    leave them behind on the screen that is shown again at the end.
    """

    def __init__(self, console: Console, draw: Callable[[int, int], Sequence[Text]]) -> None:
        self._console = console
        self._draw = draw

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Take the screen, and draw."""
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)
        self.refresh()

    def close(self) -> None:
        """Give the screen back."""
        self._console.show_cursor(True)
        self._console.set_alt_screen(False)

    def refresh(self) -> None:
        """Draw all of it, in the size that the terminal has now and in one write."""
        # Not the console's: that believes the variables LINES and COLUMNS, which do not change with the window.
        lines = self._draw(*os.get_terminal_size(self._console.file.fileno()))
        with self._console:
            self._console.control(Control.home())
            for number, line in enumerate(lines):
                self._console.control(Control((ControlType.ERASE_IN_LINE, 2)))
                self._console.print(line, end="\n" if number < len(lines) - 1 else "", soft_wrap=True)


class Keyboard:
    """Puts what is typed on standard input into `pressed`; nothing where that is no terminal. A context manager."""

    def __init__(self) -> None:
        self.pressed: asyncio.Queue[str] = asyncio.Queue()
        self._before: list[object] | None = None

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()

    def listen(self) -> None:
        """Take keys one by one, unechoed; Ctrl-C and Ctrl-Z stay signals."""
        if not sys.stdin.isatty():
            return
        self._before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._read)

    def restore(self) -> None:
        """Leave the terminal as it was."""
        if self._before is not None:
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)  # type: ignore[arg-type]  # as it came
            self._before = None

    def _read(self) -> None:
        try:
            typed = os.read(sys.stdin.fileno(), CHUNK).decode(errors="replace")
        except OSError:
            typed = ""
        if typed.startswith("\x1b"):
            return  # an arrow or the like, in several characters
        for key in typed or END:
            self.pressed.put_nowait(key)
