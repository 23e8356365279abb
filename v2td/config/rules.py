"""Rules that nobody could rely on (pure): those that never decide, and those that leave open who does.

Every fact that rules ask for is cut where a rule begins or ends: within a cell all rules say the same. A rule is then a
box of cells, a bit for each, and whether others leave something of it is found by taking them away one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from operator import and_
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from v2td.config.providers import RuleSettings

Box = tuple[int, ...]  # for each axis the cells, as bits

MOST_STEPS = 50_000  # for one question: beyond it something is taken to be left, and the rules are not refused
PRIORITIES = range(10)
BYTES, SECONDS = "bytes", "s"  # of the two axes that are ranges


@dataclass(frozen=True, slots=True)
class _Axis:
    """One fact: what to call each of its cells, and the cells a rule takes."""

    cells: tuple[str, ...]
    taken: Callable[[RuleSettings], Callable[[int], bool]]

    def bits(self, rule: RuleSettings) -> int:
        fits = self.taken(rule)
        return sum(1 << cell for cell in range(len(self.cells)) if fits(cell))


def in_order(rules: Iterable[RuleSettings]) -> list[RuleSettings]:
    """Return the rules as they are asked: the highest priority first, then as they stand in the file."""
    return sorted(rules, key=lambda rule: -rule.priority)


def contradictions(rules: Sequence[RuleSettings]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with rules: (`rules[index]`, what must be otherwise)."""
    ordered = in_order(rules)
    axes = _axes(ordered)
    boxes = [tuple(axis.bits(rule) for axis in axes) for rule in ordered]
    place = {id(rule): f"rules[{index}]" for index, rule in enumerate(rules)}
    for index, rule in enumerate(ordered):
        if _left(boxes[index], boxes[:index]) is None:
            takers = " and ".join(ordered[each].name for each in _needed(boxes[index], boxes[:index]))
            cure = f"give {rule.name} a higher priority, or remove it"
            yield place[id(rule)], f"a rule that can decide: all that {rule.name} fits is taken by {takers}; {cure}"
    for (first, one), (second, other) in combinations(enumerate(ordered), 2):
        if one.priority != other.priority or (one.provider, one.fallback) == (other.provider, other.fallback):
            continue
        both = _both(boxes[first], boxes[second])
        if both is None or both in (boxes[first], boxes[second]):  # one is a special case of the other
            continue
        if (undecided := _left(both, boxes[:first])) is not None:
            problem = f"{one.name} and {other.name} both fit {_example(undecided, axes)}, and name different providers"
            cure = f"give one of them a higher priority than {one.priority}"
            yield place[id(other)], f"unambiguous: {problem}; {cure}"


def _left(box: Box, others: Sequence[Box]) -> Box | None:
    """Return a part of `box` that is in none of the others; None when they cover it."""
    return _covering(box, others)[0]


def _covering(box: Box, others: Sequence[Box]) -> tuple[Box | None, set[int]]:
    """Return a part of `box` that is in none of the others, if there is one; and which of them were taken away."""
    parts = [(box, list(range(len(others))))]
    used: set[int] = set()
    steps = 0
    while parts:
        part, candidates = parts.pop()
        steps += len(candidates)
        near = [(_sticks_out(part, others[each]), each) for each in candidates if _meet(part, others[each])]
        if not near or steps > MOST_STEPS:
            return part, used
        outside, nearest = min(near)
        used.add(nearest)
        if outside > 0:
            rest = [each for _, each in near if each != nearest]
            parts.extend((piece, rest) for piece in _without(part, others[nearest]))
    return None, used


def _meet(one: Box, other: Box) -> bool:
    return all(map(and_, one, other))


def _sticks_out(box: Box, other: Box) -> int:
    """Return on how many axes a box has cells that the other has not; 0: the other contains it."""
    return sum(cells & ~others != 0 for cells, others in zip(box, other, strict=True))


def _both(one: Box, other: Box) -> Box | None:
    both = tuple(cells & others for cells, others in zip(one, other, strict=True))
    return both if all(both) else None


def _without(box: Box, other: Box) -> Iterator[Box]:
    """Yield `box` without `other`, in pieces that do not overlap."""
    for axis, (cells, others) in enumerate(zip(box, other, strict=True)):
        if outside := cells & ~others:
            yield (*box[:axis], outside, *box[axis + 1 :])
        box = (*box[:axis], cells & others, *box[axis + 1 :])


def _needed(box: Box, others: Sequence[Box]) -> list[int]:
    """Return which of those that cover a box it takes: without any of them they do not."""
    needed = sorted(_covering(box, others)[1])
    for each in reversed(tuple(needed)):
        fewer = [other for other in needed if other != each]
        if _left(box, [others[other] for other in fewer]) is None:
            needed = fewer
    return needed


def _axes(rules: Sequence[RuleSettings]) -> list[_Axis]:
    """Return every fact that a rule asks for."""
    axes = [
        _range(rules, lambda rule: rule.file_size_bytes, BYTES),
        _range(rules, lambda rule: rule.duration_seconds, SECONDS),
        _values(rules, lambda rule: rule.language, "language"),
        _Axis(
            tuple(f"priority {each}" for each in PRIORITIES),
            lambda rule: lambda cell: not rule.job_priority or cell in rule.job_priority,
        ),
        _values(rules, lambda rule: rule.topic, "topic"),
        _values(rules, lambda rule: rule.tenant, "tenant"),
    ]
    keys = sorted({rule.metadata_key for rule in rules if rule.metadata_key is not None})
    return [*axes, *(_metadata(rules, key) for key in keys)]


def _range(rules: Sequence[RuleSettings], of: Callable[[RuleSettings], Sequence[float]], unit: str) -> _Axis:
    begins = sorted({0, *(end for rule in rules for end in of(rule))})

    def taken(rule: RuleSettings) -> Callable[[int], bool]:
        return lambda cell: inside(begins[cell], of(rule))

    below = [f" to {end:.15g}" for end in begins[1:]]
    cells = (f"{begin:.15g}{end} {unit}" for begin, end in zip(begins, (*below, " or more"), strict=True))
    return _Axis(tuple(cells), taken)


def inside(value: float, ends: Sequence[float]) -> bool:
    """Whether a value is in a range [from, below), [from] for no end, or () for all."""
    return not ends or (ends[0] <= value and (len(ends) == 1 or value < ends[1]))


def _values(rules: Sequence[RuleSettings], of: Callable[[RuleSettings], str | None], name: str) -> _Axis:
    """A fact of which rules name single values; the last cell is any other, and none."""
    values = sorted({value for rule in rules if (value := of(rule)) is not None})

    def taken(rule: RuleSettings) -> Callable[[int], bool]:
        return lambda cell: of(rule) is None or (cell < len(values) and values[cell] == of(rule))

    return _Axis((*(f"{name} {value}" for value in values), f"any other {name}"), taken)


def _metadata(rules: Sequence[RuleSettings], key: str) -> _Axis:
    """A key of the metadata: the last two cells are any other value, and that it is not there."""
    values = sorted({rule.metadata_value for rule in rules if rule.metadata_key == key and rule.metadata_value})

    def taken(rule: RuleSettings) -> Callable[[int], bool]:
        if rule.metadata_key != key:
            return lambda _cell: True
        if rule.metadata_value is None:
            return lambda cell: cell <= len(values)
        return lambda cell: cell < len(values) and values[cell] == rule.metadata_value

    named = (f"metadata {key}={value}" for value in values)
    return _Axis((*named, f"another metadata {key}", f"no metadata {key}"), taken)


def _example(box: Box, axes: Sequence[_Axis]) -> str:
    """Describe what lies in a box by one of its points, as far as that takes a choice."""
    said = [
        axis.cells[(cells & -cells).bit_length() - 1]
        for cells, axis in zip(box, axes, strict=True)
        if cells != (1 << len(axis.cells)) - 1
    ]
    return "a recording of " + ", ".join(said) if said else "any recording"
