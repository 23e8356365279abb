"""Who transcribes what: the second seed's three rules, facts that are not known yet, and the explanation."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from v2td.config import RoutingSettings, load
from v2td.providers import Decision, Facts, Needs
from v2td.providers.router import decide

MB = 1_000_000
# RouterConfig of the second seed: the same names, values and priorities.
SEED = """
[routing]
fallback = ["local"]

[[routing.rules]]
name = "small-files-to-the-local-provider"
provider = "whisper_cpp"
file_size_bytes = [0, 10_000_000]
priority = 1

[[routing.rules]]
name = "large-files-to-the-api"
provider = "openai"
file_size_bytes = [100_000_000]
priority = 1

[[routing.rules]]
name = "chinese-to-the-specialised-model"
provider = "whisper_cpp_zh"
language = "zh"
priority = 2

[[providers.whisper_cpp]]
name = "whisper_cpp"
model = "/models/ggml-base.bin"

[[providers.whisper_cpp]]
name = "whisper_cpp_zh"
model = "/models/ggml-zh.bin"

[[providers.openai]]
name = "openai"
base_url = "https://api.openai.com/v1"
"""
SMALL, LARGE, ZH = (rule["name"] for rule in tomllib.loads(SEED)["routing"]["rules"])


@pytest.fixture
def seed(tmp_path: Path) -> RoutingSettings:
    file = tmp_path / "config.toml"
    file.write_text(SEED)
    return load(file, {}, {}).settings.routing


def facts(size: int | None = 1000, *, seconds: float | None = None, language: str | None = "en", **more: Any) -> Facts:
    return Facts(size, seconds, language, **{"priority": 5, "topic": "v2td-jobs", **more})


def routing(*rules: dict[str, Any], **more: Any) -> RoutingSettings:
    named = [{"name": f"r{number}", "provider": f"p{number}", **rule} for number, rule in enumerate(rules)]
    return RoutingSettings.model_validate({"rules": named, **more})


def decided(settings: RoutingSettings, of: Facts) -> Decision:
    found = decide(settings, of)
    assert isinstance(found, Decision)
    return found


@pytest.mark.parametrize(
    ("size", "language", "rule", "provider"),
    [
        (0, "en", SMALL, "whisper_cpp"),
        (10 * MB - 1, "en", SMALL, "whisper_cpp"),
        (10 * MB, "en", None, "local"),
        (100 * MB - 1, "", None, "local"),
        (100 * MB, "", LARGE, "openai"),
        (5_000 * MB, "vi", LARGE, "openai"),
        (1, "zh", ZH, "whisper_cpp_zh"),
        (50 * MB, "zh", ZH, "whisper_cpp_zh"),
        (100 * MB, "zh", ZH, "whisper_cpp_zh"),
    ],
)
def test_the_rules_of_the_seed(
    seed: RoutingSettings, size: int, language: str, rule: str | None, provider: str
) -> None:
    found = decided(seed, facts(size, language=language))
    assert (found.rule, found.target) == (rule, provider)
    assert found.chain == tuple(dict.fromkeys((provider, "local")))
    assert len(found.why) == 3


def test_the_language_is_asked_for_only_where_it_matters(seed: RoutingSettings) -> None:
    found = decide(seed, facts(5, language=None))
    assert isinstance(found, Needs)
    assert found.facts == {"language"}
    assert found.rule == ZH
    assert found.targets == ("whisper_cpp_zh", "whisper_cpp")
    behind = routing({"file_size_bytes": (0, 10)}, {"priority": -1, "language": "zh"}, {"priority": -2})
    assert decided(behind, facts(5, language=None)).rule == "r0"
    assert decide(behind, facts(10, language=None)) == Needs(
        frozenset({"language"}),
        "r1",
        ("p1", "p2"),
        (
            "r0: its size is 10 bytes, not from 0 to below 10",
            "r1: hinges on language, not known yet",
            "r2: fits",
        ),
    )


def test_one_fact_after_the_other() -> None:
    """What the first rule needs may make what the second needs unnecessary."""
    rules = routing({"priority": 2, "duration_seconds": (600,)}, {"priority": 1, "language": "zh"})
    first = decide(rules, facts(language=None))
    assert isinstance(first, Needs)
    assert first.facts == {"seconds"}
    assert first.targets == ("p0", "p1", "local")
    assert decided(rules, facts(language=None, seconds=600)).rule == "r0"
    then = decide(rules, facts(language=None, seconds=599.9))
    assert isinstance(then, Needs)
    assert then.facts == {"language"}
    both = decide(
        routing({"duration_seconds": (1,), "language": "zh", "file_size_bytes": (1,)}), facts(None, language=None)
    )
    assert isinstance(both, Needs)
    assert both.facts == {"seconds", "language", "size"}


def test_what_misfits_anyway_needs_nothing() -> None:
    rules = routing({"topic": "other", "language": "zh", "priority": 1}, {"duration_seconds": (0, 5), "tenant": "acme"})
    assert decided(rules, facts(language=None)).rule is None


@pytest.mark.parametrize(
    ("rule", "fits", "why"),
    [
        ({"duration_seconds": (10, 20)}, {"seconds": 10}, "it lasts 20 s, not from 10 to below 20"),
        ({"job_priority": (0, 1)}, {"priority": 1}, "its priority is 5, not 0 or 1"),
        ({"topic": "urgent"}, {"topic": "urgent"}, "its topic is v2td-jobs, not urgent"),
        ({"tenant": "acme"}, {"tenant": "acme"}, "its tenant is none, not acme"),
        ({"language": "vi"}, {"language": "vi"}, "its language is en, not vi"),
        ({"metadata_key": "kind"}, {"metadata": {"kind": None}}, "its metadata has no kind"),
    ],
)
def test_each_kind_of_rule(rule: dict[str, Any], fits: dict[str, Any], why: str) -> None:
    rules = routing(rule)
    assert decided(rules, facts(**{"seconds": 20, **fits})).rule == "r0"
    assert decided(rules, facts(seconds=20)).why == (f"r0: {why}",)


@pytest.mark.parametrize(("value", "text"), [("call", "call"), (7, "7"), (True, "true"), (None, "null"), ([1], "[1]")])
def test_metadata_is_compared_as_text(value: object, text: str) -> None:
    rules = routing({"metadata_key": "kind", "metadata_value": text})
    assert decided(rules, facts(metadata={"kind": value})).rule == "r0"
    other = decided(rules, facts(metadata={"kind": "another"}))
    assert (other.rule, other.why) == (None, (f"r0: its metadata's kind is not {text}",))


def test_priority_then_order_then_default() -> None:
    rules = routing(
        {"language": "en", "topic": "t"}, {"language": "en"}, {"priority": 7, "tenant": "acme"}, default="p9"
    )
    assert decided(rules, facts(topic="t", tenant="acme")).rule == "r2"
    assert decided(rules, facts(topic="t")).rule == "r0"
    assert decided(rules, facts()).rule == "r1"
    assert decided(rules, facts(language="")).target == "p9"


def test_those_behind_the_first_are_explained_too() -> None:
    rules = routing({"priority": 2, "tenant": "acme"}, {"priority": 1, "language": "zh"}, {"duration_seconds": (5,)})
    assert decided(rules, facts(tenant="acme", language=None, seconds=6)).why == (
        "r0: fits",
        "r1: may fit, but r0 comes before it",
        "r2: fits, but r0 comes before it",
    )


def test_the_chain_names_nobody_twice_and_prefers_the_rules_own() -> None:
    rules = routing(
        {"fallback": ("p1", "p0", "local")}, {"priority": 1, "topic": "t"}, fallback=("p1", "local"), default="local"
    )
    assert decided(rules, facts()).chain == ("p0", "p1", "local")
    assert decided(rules, facts(topic="t")).chain == ("p1", "local")
    assert decided(routing(fallback=("p1", "local")), facts()).chain == ("local", "p1")


def test_a_decision_is_a_column() -> None:
    found = decided(routing({"topic": "t"}), facts())
    assert json.loads(json.dumps(found.as_json())) == {
        "rule": None,
        "target": "local",
        "chain": ["local"],
        "why": ["r0: its topic is v2td-jobs, not t"],
    }
