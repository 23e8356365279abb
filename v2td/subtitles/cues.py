"""Subtitles that people can read: a transcript's segments as cues that obey reading rules. Pure.

The rules are those of Netflix's Timed Text Style Guide (42 characters, two lines, 5/6 to 7 seconds, 20 characters a
second, two frames between cues; shorter lines for scripts without spaces) and of the BBC's Subtitle Guidelines (lines
are broken after punctuation, and even). Widths are columns of a terminal: a wide character takes two, a combining
one none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

from v2td.formats import Document, clock, short_clock
from v2td.jobs import Segment
from v2td.subtitles.words import Token, broken, fits, joined, split, tokens, width

GAP_SECONDS = 0.084  # two frames at 24 a second, in whole milliseconds
SHORTEST_SECONDS = 0.25  # of a cue that others leave no room
LATE_SECONDS = 0.5  # that a cue may wait for the one before to be shown long enough
LATE_TO_SPEAKER_SECONDS = 2.0  # and for one of another speaker who is still talking
SPARSE = 4.0  # columns a second: nobody talks so slowly, so the times of a segment's parts cannot be guessed
# Columns of a line where the script has no spaces or is wide; of others, and at most, Rules.max_line.
COLUMNS = {"ja": 26, "ko": 32, "th": 35, "yue": 32, "zh": 32}


@dataclass(frozen=True, slots=True)
class Rules:
    """What a cue may be: columns of a line, lines, seconds, columns a second where the next cue leaves room."""

    max_line: int = 42
    max_lines: int = 2
    min_seconds: float = 0.833
    max_seconds: float = 7.0
    max_rate: float = 20.0


@dataclass(frozen=True, slots=True)
class Cue:
    """What is shown from `start` to `end`, in seconds of the recording."""

    start: float
    end: float
    lines: tuple[str, ...]
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Words that are shown together; `label` is who speaks, where the format has no other place for it."""

    tokens: tuple[Token, ...]
    channel: int | None
    label: tuple[Token, ...] = ()

    @property
    def start(self) -> float:
        return self.tokens[0].start

    @property
    def end(self) -> float:
        return max(self.start, self.tokens[-1].end)

    @property
    def shown(self) -> tuple[Token, ...]:
        return (*self.label, *self.tokens)


def srt(document: Document, rules: Rules = Rules()) -> str:
    """Return the transcript as SubRip; it cannot show two cues at a time, so speakers come one after the other."""
    found = cues(document.segments, rules, document.language, overlapping=False)
    return "".join(
        f"{number}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}\n{_srt_text(cue)}\n\n"
        for number, cue in enumerate(found, start=1)
    )


def vtt(document: Document, rules: Rules = Rules()) -> str:
    """Return the transcript as WebVTT; cues of different speakers may be shown at a time."""
    found = cues(document.segments, rules, document.language, overlapping=True)
    return "WEBVTT\n\n" + "".join(
        f"{short_clock(cue.start)} --> {short_clock(cue.end)}\n{_vtt_text(cue)}\n\n" for cue in found
    )


def cues(
    segments: Sequence[Segment], rules: Rules, language: str | None = None, *, overlapping: bool = False
) -> list[Cue]:
    """Return the cues of a transcript, in order of start; all of its text is in them, and in its order.

    With `overlapping` those of different channels may overlap, and no cue says who speaks; without, every cue of a
    transcript by channels does. Two of one channel never overlap.
    """
    columns = min(rules.max_line, COLUMNS.get(language or "", rules.max_line))
    rules = replace(rules, max_line=columns)
    if not overlapping:
        return _timed(_joined(_chunks(segments, rules, labelled=True), rules), rules)
    tracks: dict[int | None, list[Segment]] = {}
    for segment in segments:
        tracks.setdefault(segment.channel, []).append(segment)
    found = [
        cue for track in tracks.values() for cue in _timed(_joined(_chunks(track, rules, labelled=False), rules), rules)
    ]
    return sorted(found, key=lambda cue: cue.start)


def _chunks(segments: Iterable[Segment], rules: Rules, *, labelled: bool) -> Iterator[_Chunk]:
    """Yield each segment in as few pieces as may be shown."""
    for segment in sorted(segments, key=lambda each: each.start):
        named = labelled and segment.channel is not None
        label = (Token(f"[channel {segment.channel}]", segment.start, segment.start),) if named else ()
        # In a cue of a single line the label and any word must fit beside each other.
        room = rules.max_line - width(label) - 1 if label and rules.max_lines == 1 else rules.max_line
        rest, by_words = tokens(segment, max(1, room))
        while rest:
            count = _most(rest, label, rules, by_words=by_words)
            if count < len(rest):
                count = split(rest, count)
            yield _Chunk(tuple(rest[:count]), segment.channel, label)
            rest = rest[count:]


def _most(rest: Sequence[Token], label: tuple[Token, ...], rules: Rules, *, by_words: bool) -> int:
    """Return how many of the words fit into one cue, at least one."""
    fitting = 1
    while fitting < len(rest):
        chunk = rest[: fitting + 1]
        seconds = chunk[-1].end - chunk[0].start
        long = seconds > rules.max_seconds and (by_words or width(chunk) / seconds >= SPARSE)
        if long or not fits([*label, *chunk], rules.max_line, rules.max_lines):
            break
        fitting += 1
    return fitting


def _joined(chunks: Iterable[_Chunk], rules: Rules) -> list[_Chunk]:
    """Put what is said too quickly to be read together with what follows, where both fit into one cue."""
    found: list[_Chunk] = []
    for chunk in _in_order(chunks):
        last = found[-1] if found else None
        if (
            last is not None
            and last.channel == chunk.channel
            and chunk.start - GAP_SECONDS < last.start + rules.min_seconds
        ):
            both = _Chunk(
                (*last.tokens, replace(chunk.tokens[0], spaced=True), *chunk.tokens[1:]), last.channel, last.label
            )
            if fits(both.shown, rules.max_line, rules.max_lines) and both.end - both.start <= rules.max_seconds:
                found[-1] = both
                continue
        found.append(chunk)
    return found


def _in_order(chunks: Iterable[_Chunk]) -> list[_Chunk]:
    """Put those of all channels in order of start; of one channel they stay as they are, whatever their times."""
    latest: dict[int | None, float] = {}
    keyed: list[tuple[float, _Chunk]] = []
    for chunk in chunks:
        latest[chunk.channel] = max(chunk.start, latest.get(chunk.channel, chunk.start))
        keyed.append((latest[chunk.channel], chunk))
    return [chunk for _, chunk in sorted(keyed, key=itemgetter(0))]


def _timed(chunks: Sequence[_Chunk], rules: Rules) -> list[Cue]:
    """Return the cues of one track: long enough to be read where there is room, none over another."""
    found: list[Cue] = []
    free = 0.0  # when the next cue may begin
    for number, chunk in enumerate(chunks):
        start = max(chunk.start, free)
        end = min(max(chunk.end, start + _reading(chunk, rules)), start + rules.max_seconds)
        if number + 1 < len(chunks):
            end = max(min(end, _last_end(start, chunk, chunks[number + 1], rules)), start + SHORTEST_SECONDS)
        lines = broken(chunk.shown, rules.max_line, rules.max_lines)
        found.append(Cue(start, end, tuple(map(joined, lines or [chunk.shown])), chunk.channel))
        free = end + GAP_SECONDS
    return found


def _last_end(start: float, chunk: _Chunk, following: _Chunk, rules: Rules) -> float:
    """Return when a cue must end for the one that follows, which may wait a little."""
    before = following.start - GAP_SECONDS
    if chunk.channel == following.channel:
        needed, late = rules.min_seconds, LATE_SECONDS
    else:
        needed, late = min(_reading(chunk, rules), chunk.end - chunk.start), LATE_TO_SPEAKER_SECONDS
    return max(before, min(start + needed, before + late))


def _reading(chunk: _Chunk, rules: Rules) -> float:
    return max(rules.min_seconds, width(chunk.shown) / rules.max_rate)


def _srt_text(cue: Cue) -> str:
    return "\n".join(line.replace("-->", "->") for line in cue.lines)  # the arrow marks a cue's times


def _vtt_text(cue: Cue) -> str:
    text = "\n".join(cue.lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text if cue.channel is None else f"<v Channel {cue.channel}>{text}"
