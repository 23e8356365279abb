"""How a wrong setting is told: the field, the value found there, where it came from and the cure, never a secret."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from v2td.errors import ConfigError

MASK = "**********"


class InvalidConfigError(ConfigError):
    """All that is wrong with a configuration, a line each; `problems` holds them one by one."""

    def __init__(self, problems: Sequence[ConfigError]) -> None:
        super().__init__(problems[0].field, problems[0].value, problems[0].hint)
        self.args = (problems,)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def shown(value: Any) -> str:
    """A value as an error may show it: cut short, and without the credentials of a URL that lies there by mistake."""
    text = re.sub(r"//\S*@", f"//{MASK}@", repr(value) if isinstance(value, str) else str(value))
    return text if len(text) <= 80 else text[:79] + "…"


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`; did you mean …?` with the nearest choice, or nothing when none is near."""
    nearest = difflib.get_close_matches(word, list(choices), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""
