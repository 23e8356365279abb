"""JSON as RFC 8259 means it, from bytes that anybody may have written."""

from __future__ import annotations

import json
import math
import re
from functools import partial
from typing import Any, NoReturn

from v2td.config.settings import MessageSettings
from v2td.errors import ErrorClass, JobError

_SHOWN = 64  # characters of an unknown text in a reason

# A string (its end may be missing, so that no text is scanned twice) or a bracket.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def parse(value: bytes | None, limits: MessageSettings) -> Any:
    """Return the JSON value in `value`.

    Strings may still hold NUL or lone surrogates (they can be written as escapes). Numbers with a point or
    an exponent that a double cannot hold, too large or too small, come back as infinities: nothing else does.

    Raises:
        JobError: bad_message, saying what is wrong and where.
    """
    if value is None:
        raise _bad("the record has no value (a tombstone)")
    if not value:
        raise _bad("the value is empty")
    if len(value) > limits.max_bytes:
        raise _bad(f"{len(value)} bytes, more than the {limits.max_bytes} allowed")
    text = _decode(value)
    _check_depth(text, limits.max_depth)
    try:
        return json.loads(
            text,
            parse_int=partial(_integer, limits.max_digits),
            parse_float=_double,
            parse_constant=_no_constant,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        raise _bad(f"not JSON: {error}") from None


def shown(text: str) -> str:
    """Quote what a stranger wrote for a reason: bounded, one line, nothing that a terminal or Postgres minds."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _decode(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        hint = " (this looks like UTF-16)" if value[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise _bad(f"not UTF-8: byte 0x{value[error.start]:02x} at offset {error.start}{hint}") from None
    if text.startswith("\ufeff"):
        raise _bad("not JSON: it begins with a byte order mark")
    return text


def _check_depth(text: str, max_depth: int) -> None:
    # Before json.loads, which recurses.
    if text.count("[") + text.count("{") <= max_depth:
        return
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        first = text[match.start()]
        if first in "[{":
            depth += 1
            if depth > max_depth:
                raise _bad(f"nested deeper than {max_depth} levels at character {match.start()}")
        elif first in "]}":
            depth -= 1


def _integer(max_digits: int, digits: str) -> int:
    if len(digits) > max_digits:  # int() takes quadratic time
        raise _bad(f"an integer of {len(digits)} digits")
    return int(digits)


def _double(literal: str) -> float:
    number = float(literal)
    underflow = number == 0 and re.search("[1-9]", re.split("[eE]", literal)[0])
    return math.inf if underflow else number


def _no_constant(name: str) -> NoReturn:
    raise _bad(f"not JSON: {name}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _bad(f"duplicate key {shown(key)}")
            seen.add(key)
    return result


def _bad(reason: str) -> JobError:
    return JobError(ErrorClass.BAD_MESSAGE, reason)
