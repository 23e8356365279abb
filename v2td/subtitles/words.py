"""The words of subtitles: cut from segments with their times, and set in lines. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from rich.cells import cell_len

from v2td.jobs import Segment

_SENTENCE = (*".?!…。？！．", "⋯")
_CLAUSE = tuple(",;:、，；：—–")
_CLOSERS = "\"'”’»)]}」』）】》"
# Thai, Lao, Burmese, Khmer, kana, ideographs: lines may be broken between any two characters.
_NO_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef]"
)
_CLINGING = "ーァィゥェォッャュョぁぃぅぇぉっゃゅょ々ๆะาำ"  # never first in a line
_OPENERS = "「『（【《〈([{“‘«"
_SENTENCE_BONUS, _CLAUSE_BONUS = 400.0, 160.0  # squared columns of unevenness that a good place to break is worth


@dataclass(frozen=True, slots=True)
class Token:
    """What no line breaks: a word, or a character of a script without spaces; times in seconds."""

    text: str
    start: float
    end: float
    spaced: bool = True  # a space comes before it, unless it is first in its line
    columns: int = field(init=False)  # its width on a screen, measured once

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", cell_len(self.text))


def tokens(segment: Segment, max_line: int) -> tuple[list[Token], bool]:
    """Return the words of a segment, none wider than a line, and whether their times are those of words.

    Without words the time is shared out by width.
    """
    text = " ".join(segment.text.split())
    end = max(segment.start, segment.end)
    found: list[Token] = []
    if segment.words and "".join("".join(word.text for word in segment.words).split()) == text.replace(" ", ""):
        at = segment.start
        for word in segment.words:
            start = min(max(word.start, at), end)
            at = min(max(word.end, start), end)
            found += _shared(word.text, start, at, spaced=word.text[:1].isspace())
    by_words = bool(found)
    if not by_words:
        found = _shared(text, segment.start, end, spaced=True)
    return [piece for token in found for piece in _cut(token, max_line)], by_words


def width(found: Sequence[Token]) -> int:
    """Return the columns of words in one line."""
    return sum(token.columns + token.spaced for token in found) - (found[0].spaced if found else 0)


def joined(found: Sequence[Token]) -> str:
    """Return words as one line."""
    return "".join(f" {token.text}" if token.spaced else token.text for token in found).strip()


def fits(found: Sequence[Token], max_line: int, max_lines: int) -> bool:
    """Tell whether words fit into so many lines."""
    return _lines_needed(found, max_line) <= max_lines


def broken(found: Sequence[Token], max_line: int, max_lines: int) -> list[Sequence[Token]] | None:
    """Return words in as few lines as they need, broken where it reads best; None where they do not fit."""
    count = _lines_needed(found, max_line)
    if count > max_lines:
        return None
    return [found] if count <= 1 else _even(found, max_line, count)


def split(found: Sequence[Token], most: int) -> int:
    """Return after how many of the words, at most `most`, a cue had better end: the rest goes into the next."""
    for marks, least in ((_SENTENCE, most // 4), (_CLAUSE, most // 2)):
        for count in range(most, max(1, least) - 1, -1):
            if _ends(found[count - 1], marks):
                return count
    rest = len(found) - most
    # What is left would flash by: rather two even cues.
    return max(1, (most + rest) // 2) if rest < most // 3 else most


def _lines_needed(found: Sequence[Token], max_line: int) -> int:
    lines, used = 1, 0
    for token in found:
        with_it = used + token.columns + (token.spaced if used else 0)
        if used and with_it > max_line:
            lines, used = lines + 1, token.columns
        else:
            used = with_it
    return lines


def _even(found: Sequence[Token], max_line: int, count: int) -> list[Sequence[Token]]:
    """Break into `count` lines, which is possible: the most even ones, and rather after punctuation."""
    mean = width(found) / count
    upto = list(accumulate((token.columns + token.spaced for token in found), initial=0))
    best: list[dict[int, tuple[float, int]]] = [{0: (0.0, 0)}]  # by line: where it may end, at what cost, begun where
    for _ in range(count):
        ends: dict[int, tuple[float, int]] = {}
        for begin, (cost, _) in best[-1].items():
            for end in range(begin + 1, len(found) + 1):
                columns = upto[end] - upto[begin] - found[begin].spaced
                if columns > max_line and end > begin + 1:
                    break
                total = cost + (columns - mean) ** 2 - (0.0 if end == len(found) else _bonus(found[end - 1]))
                if end not in ends or total < ends[end][0]:
                    ends[end] = (total, begin)
        best.append(ends)
    lines, end = [], len(found)
    for ends in reversed(best[1:]):
        begin = ends[end][1]
        lines.append(found[begin:end])
        end = begin
    return lines[::-1]


def _bonus(token: Token) -> float:
    if _ends(token, _SENTENCE):
        return _SENTENCE_BONUS
    return _CLAUSE_BONUS if _ends(token, _CLAUSE) else 0.0


def _ends(token: Token, marks: tuple[str, ...]) -> bool:
    return token.text.rstrip(_CLOSERS).endswith(marks)


def _shared(text: str, start: float, end: float, *, spaced: bool) -> list[Token]:
    """Share the time of a text out to its words, by their widths."""
    words = [(piece, first) for word in text.split() for piece, first in _pieces(word)]
    total = sum(max(1, cell_len(word)) for word, _ in words)
    found, used = [], 0
    for number, (word, first) in enumerate(words):
        begin = start + (end - start) * used / total
        used += max(1, cell_len(word))
        until = start + (end - start) * used / total
        found.append(Token(word, begin, until, spaced=first and (spaced or number > 0)))
    return found


def _pieces(word: str) -> Iterator[tuple[str, bool]]:
    """Yield what no line breaks of a word, and whether it is the first of it."""
    pieces: list[str] = []
    for letter in word:
        if pieces and not _may_break(pieces[-1], letter):
            pieces[-1] += letter
        else:
            pieces.append(letter)
    for number, piece in enumerate(pieces):
        yield piece, number == 0


def _may_break(before: str, letter: str) -> bool:
    if not (_NO_SPACES.match(letter) or _NO_SPACES.match(before[-1])):
        return False
    clings = letter in _CLINGING or unicodedata.category(letter) in {"Mn", "Mc", "Me", "Pe", "Pf", "Po"}
    return not clings and before[-1] not in _OPENERS


def _cut(token: Token, max_line: int) -> Iterator[Token]:
    """Cut a word that is wider than a line."""
    if token.columns <= max_line:
        yield token
        return
    parts: list[str] = [""]
    for letter in token.text:
        if parts[-1] and cell_len(parts[-1] + letter) > max_line:
            parts.append("")
        parts[-1] += letter
    share = (token.end - token.start) / len(parts)
    for number, part in enumerate(parts):
        begin = token.start + share * number
        yield Token(part, begin, begin + share, spaced=token.spaced and number == 0)
