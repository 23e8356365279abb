"""Which provider transcribes a job, and why not another (pure): the rules of [routing] against what is known of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from v2td.config import RoutingSettings, RuleSettings
from v2td.config.rules import in_order, inside

Fact = Literal["size", "seconds", "language"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules ask for. None: not known yet. `language` is "" when it is known that there is none.

    `priority` is the message's, `size_bytes` that of the file, `seconds` its duration.
    """

    size_bytes: int | None
    seconds: float | None
    language: str | None
    priority: int
    topic: str
    tenant: str | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Who transcribes: `chain` is the target and its fallbacks, providers or groups, none of them twice.

    `rule` None: none fitted, or none was asked. `why` has a line for each rule. With `model` only providers that have
    it are asked; `language` is what the decision knew of it.
    """

    rule: str | None
    target: str
    chain: tuple[str, ...]
    why: tuple[str, ...] = ()
    model: str | None = None
    language: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as the column transcriptions.route."""
        return {"rule": self.rule, "target": self.target, "chain": list(self.chain), "why": list(self.why)}


@dataclass(frozen=True, slots=True)
class Needs:
    """It cannot be decided yet: the rule `rule` hinges on `facts` that are not known.

    `targets` are those that may still be decided for, without their fallbacks.
    """

    facts: frozenset[Fact]
    rule: str
    targets: tuple[str, ...]
    why: tuple[str, ...] = ()
    model: str | None = None


def decide(settings: RoutingSettings, facts: Facts) -> Decision | Needs:
    """Return who transcribes such a job: the first rule that fits decides, the highest priority first.

    Only facts that matter are asked for: those of the first rule that could decide, were they known.
    """
    why: list[str] = []
    hinges: tuple[RuleSettings, frozenset[Fact]] | None = None
    chosen: RuleSettings | None = None
    possible: list[str] = []
    for rule in in_order(settings.rules):
        misfits, unknown = _judge(rule, facts)
        if misfits:
            why.append(f"{rule.name}: {misfits}")
        elif chosen is not None:
            why.append(f"{rule.name}: {'may fit' if unknown else 'fits'}, but {chosen.name} comes before it")
        elif unknown:
            why.append(f"{rule.name}: hinges on {' and '.join(sorted(unknown))}, not known yet")
            hinges = hinges or (rule, unknown)
            possible.append(rule.provider)
        else:
            why.append(f"{rule.name}: fits")
            chosen = rule
    target = settings.default if chosen is None else chosen.provider
    if hinges is not None:
        return Needs(hinges[1], hinges[0].name, tuple(dict.fromkeys((*possible, target))), tuple(why))
    fallback = (chosen.fallback if chosen is not None else ()) or settings.fallback
    return Decision(
        rule=None if chosen is None else chosen.name,
        target=target,
        chain=tuple(dict.fromkeys((target, *fallback))),
        why=tuple(why),
        language=facts.language or None,
    )


def narrowed(decision: Decision, chain: tuple[str, ...], model: str, reason: str) -> Decision:
    """Return the decision for those of `chain` alone, which have the model that a message insists on."""
    return replace(decision, target=chain[0], chain=chain, model=model, why=(*decision.why, reason))


def _judge(rule: RuleSettings, facts: Facts) -> tuple[str, frozenset[Fact]]:
    """Return why a rule does not fit, or "" and the facts that have to be known first."""
    return next(_misfits(rule, facts), ""), frozenset(_unknown(rule, facts))


def _unknown(rule: RuleSettings, facts: Facts) -> Iterator[Fact]:
    if rule.file_size_bytes and facts.size_bytes is None:
        yield "size"
    if rule.duration_seconds and facts.seconds is None:
        yield "seconds"
    if rule.language is not None and facts.language is None:
        yield "language"


def _misfits(rule: RuleSettings, facts: Facts) -> Iterator[str]:
    size, seconds = facts.size_bytes, facts.seconds
    if size is not None and not inside(size, rule.file_size_bytes):
        yield f"its size is {size} bytes, not {_range(rule.file_size_bytes)}"
    if seconds is not None and not inside(seconds, rule.duration_seconds):
        yield f"it lasts {seconds:g} s, not {_range(rule.duration_seconds)}"
    if rule.language is not None and facts.language not in (None, rule.language):
        yield f"its language is {facts.language or 'none'}, not {rule.language}"
    if rule.job_priority and facts.priority not in rule.job_priority:
        yield f"its priority is {facts.priority}, not {' or '.join(map(str, rule.job_priority))}"
    if rule.topic is not None and facts.topic != rule.topic:
        yield f"its topic is {facts.topic}, not {rule.topic}"
    if rule.tenant is not None and facts.tenant != rule.tenant:
        yield f"its tenant is {'none' if facts.tenant is None else facts.tenant}, not {rule.tenant}"
    if rule.metadata_key is not None:
        metadata = facts.metadata or {}
        if rule.metadata_key not in metadata:
            yield f"its metadata has no {rule.metadata_key}"
        elif rule.metadata_value is not None and _text(metadata[rule.metadata_key]) != rule.metadata_value:
            yield f"its metadata's {rule.metadata_key} is not {rule.metadata_value}"


def _range(ends: tuple[int, ...] | tuple[float, ...]) -> str:
    return f"from {ends[0]:.15g}" + (f" to below {ends[1]:.15g}" if len(ends) > 1 else " up")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
