"""Rules that can never decide, and those that leave open who does, are refused with both named; all others are not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from v2td.config import InvalidConfigError, RoutingSettings, RuleSettings, load
from v2td.config.rules import contradictions, in_order
from v2td.providers import Decision, Facts
from v2td.providers.router import decide

MB = 1_000_000


def rules(*tables: dict[str, Any]) -> list[RuleSettings]:
    """Return rules a, b, c…, each for a provider of its own."""
    return [
        RuleSettings.model_validate({"name": name, "provider": name, **table})
        for name, table in zip("abcdefgh", tables, strict=False)
    ]


def told(*tables: dict[str, Any]) -> list[tuple[str, str]]:
    return list(contradictions(rules(*tables)))


SMALL, LARGE = {"file_size_bytes": (0, 10 * MB)}, {"file_size_bytes": (100 * MB,)}


@pytest.mark.parametrize(
    "tables",
    [
        (),
        ({},),
        ({**SMALL, "priority": 1}, {**LARGE, "priority": 1}, {"language": "zh", "priority": 2}),  # the seed's
        (SMALL, {"file_size_bytes": (10 * MB,)}),  # half-open: they touch, and do not overlap
        (SMALL, {}),  # a special case, then all
        ({"language": "en", "topic": "t"}, {"language": "en"}, {}),
        ({"language": "en"}, {"language": "vi"}, {"language": "zh"}),
        ({"job_priority": (0, 1)}, {"job_priority": (2, 3)}),
        (SMALL, {"language": "zh", "provider": "a"}),  # both lead to the same
        # The overlap is decided by somebody before them.
        ({**SMALL, "language": "zh", "priority": 1}, SMALL, {"language": "zh"}),
        ({**SMALL, "language": "zh"}, SMALL, {"language": "zh"}),
        ({"metadata_key": "k", "metadata_value": "v"}, {"metadata_key": "k"}),
        ({"metadata_key": "k", "metadata_value": "v"}, {"metadata_key": "k", "metadata_value": "w"}),
    ],
)
def test_rules_that_can_be_relied_on(tables: tuple[dict[str, Any], ...]) -> None:
    assert told(*tables) == []


@pytest.mark.parametrize(
    ("tables", "index", "by"),
    [
        (({}, SMALL), 1, "a"),
        ((SMALL, {"priority": 1}), 0, "b"),
        ((SMALL, SMALL), 1, "a"),
        (({"file_size_bytes": (0, 5)}, {"file_size_bytes": (5,)}, {"language": "zh"}), 2, "a and b"),
        (({"file_size_bytes": (0, 6)}, {"priority": 1, "file_size_bytes": (6,)}, {}), 2, "b and a"),
        (({"job_priority": range(5)}, {"topic": "t", "priority": -1}, {"job_priority": range(5, 10)}), 1, "a and c"),
        (({"language": "zh"}, {"metadata_key": "k"}, {"language": "zh", "metadata_key": "k", "priority": -1}), 2, "a"),
        (({"metadata_key": "k"}, {"metadata_key": "k", "metadata_value": "v"}), 1, "a"),
    ],
)
def test_rules_that_can_never_decide(tables: tuple[dict[str, Any], ...], index: int, by: str) -> None:
    """Also when it takes several rules before them; of these only those that matter are named."""
    name = "abcd"[index]
    cure = f"give {name} a higher priority, or remove it"
    expected = (f"rules[{index}]", f"a rule that can decide: all that {name} fits is taken by {by}; {cure}")
    assert expected in told(*tables)


@pytest.mark.parametrize(
    ("one", "other", "example"),
    [
        (SMALL, {"language": "zh"}, "a recording of 0 to 10000000 bytes, language zh"),
        (LARGE, {"duration_seconds": (0.5, 60)}, "a recording of 100000000 or more bytes, 0.5 to 60 s"),
        ({"file_size_bytes": (0, 6)}, {"file_size_bytes": (4, 9)}, "a recording of 4 to 6 bytes"),
        ({"topic": "t"}, {"tenant": "acme"}, "a recording of topic t, tenant acme"),
        ({"job_priority": (1, 2)}, {"job_priority": (2, 3)}, "a recording of priority 2"),
        ({"metadata_key": "k"}, {"metadata_key": "l", "metadata_value": "v"}, "metadata k, metadata l=v"),
    ],
)
def test_rules_that_leave_open_who_does_it(one: dict[str, Any], other: dict[str, Any], example: str) -> None:
    ((where, what),) = told(one, other)
    assert where == "rules[1]"
    assert what.startswith("unambiguous: a and b both fit a recording of ")
    assert what.endswith(f"{example}, and name different providers; give one of them a higher priority than 0")
    assert told(one, {**other, "priority": 1}) == []
    assert told({**one, "priority": 1}, other) == []


def test_the_fallback_counts_as_well() -> None:
    assert len(told(SMALL, {"language": "zh", "provider": "a", "fallback": ("c",)})) == 1


def test_a_configuration_tells_all_of_them(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    tables = [
        'file_size_bytes = [0, 10]\nprovider = "api"',
        'language = "zh"\nprovider = "local"',
        'topic = "t"\nlanguage = "zh"\nprovider = "api"',
    ]
    api = '[[providers.openai]]\nname = "api"\nbase_url = "https://api.example.com/v1"\n'
    file.write_text(api + "".join(f'[[routing.rules]]\nname = "r{at}"\n{each}\n' for at, each in enumerate(tables)))
    with pytest.raises(InvalidConfigError) as caught:
        load(file, {}, {})
    assert [each.field for each in caught.value.problems] == ["routing.rules[2]", "routing.rules[1]"]
    assert "all that r2 fits is taken by r1" in caught.value.problems[0].hint


def test_a_section_made_by_hand_is_checked_too() -> None:
    with pytest.raises(ValidationError, match=r"rules\[1\] must be a rule that can decide"):
        RoutingSettings(rules=tuple(rules({}, SMALL)))


# Facts and rules of few values, so that all combinations can be tried.
SIZES, DURATIONS, LANGUAGES, PRIORITIES, TENANTS = (0, 1, 2, 3), (0.0, 1.0, 2.0), ("en", "zh", ""), (4, 5), ("x", None)
METADATA: tuple[dict[str, str], ...] = ({}, {"k": "v"}, {"k": "w"})


def ranges(largest: int) -> st.SearchStrategy[tuple[int, ...]]:
    ends = st.lists(st.integers(0, largest), min_size=2, max_size=2, unique=True).map(lambda each: tuple(sorted(each)))
    return st.one_of(st.just(()), st.integers(0, largest).map(lambda each: (each,)), ends)


def table(drawn: dict[str, Any]) -> dict[str, Any]:
    """Return it with the two keys of `metadata` as they are written."""
    key, value = drawn.pop("metadata")
    return {**drawn, "metadata_key": key, "metadata_value": value}


shapes: dict[Any, st.SearchStrategy[Any]] = {
    "provider": st.sampled_from(["p", "q"]),
    "priority": st.integers(0, 1),
    "file_size_bytes": ranges(3),
    "duration_seconds": ranges(2),
    "language": st.sampled_from([None, None, "en", "zh"]),
    "job_priority": st.sampled_from([(), (), tuple(range(5)), tuple(range(5, 10))]),
    "tenant": st.sampled_from([None, None, "x"]),
    "metadata": st.sampled_from([(None, None), (None, None), ("k", None), ("k", "v")]),
}
tables = st.fixed_dictionaries(shapes).map(table)


def every() -> Iterator[Facts]:
    for size, seconds, language, priority, tenant, metadata in product(
        SIZES, DURATIONS, LANGUAGES, PRIORITIES, TENANTS, METADATA
    ):
        yield Facts(size, seconds, language, priority, "t", tenant, metadata)


def fits(rule: RuleSettings, facts: Facts) -> bool:
    found = decide(RoutingSettings(rules=(rule,)), facts)
    assert isinstance(found, Decision)
    return found.rule is not None


@settings(deadline=None)
@given(st.lists(tables, min_size=1, max_size=4))
def test_what_is_told_is_what_a_trial_of_everything_shows(given_tables: list[dict[str, Any]]) -> None:
    found = rules(*given_tables)
    ordered = in_order(found)
    domains = {rule.name: {at for at, facts in enumerate(every()) if fits(rule, facts)} for rule in ordered}
    unreachable, ambiguous = set(), set()
    before: set[int] = set()
    before_of = {}
    for rule in ordered:
        before_of[rule.name] = set(before)
        if domains[rule.name] <= before:
            unreachable.add(rule.name)
        before |= domains[rule.name]
    for one, other in combinations(ordered, 2):
        both = domains[one.name] & domains[other.name]
        special = both in (domains[one.name], domains[other.name])
        same = one.priority != other.priority or one.provider == other.provider
        if not special and not same and both - before_of[one.name]:
            ambiguous.add((one.name, other.name))
    said = [what for _, what in contradictions(found)]
    assert {what.split("all that ")[1].split()[0] for what in said if "can decide" in what} == unreachable
    pairs = [re.match(r"unambiguous: (\w) and (\w) both", what) for what in said if "unambiguous" in what]
    assert {(pair[1], pair[2]) for pair in pairs if pair is not None} == ambiguous


def test_many_rules_are_looked_through() -> None:
    """Each for a tenant, a language and a size of its own, and one for the rest."""
    many = [
        RuleSettings(name=f"r{at}", provider=f"p{at}", tenant=f"t{at}", language="zh", file_size_bytes=(at, at + 50))
        for at in range(300)
    ]
    rest = RuleSettings(name="rest", provider="rest", priority=-1)
    assert list(contradictions([*many, rest])) == []
    assert [where for where, _ in contradictions([rest.model_copy(update={"priority": 1}), *many])] == [
        f"rules[{at}]" for at in range(1, 301)
    ]
