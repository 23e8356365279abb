"""What `v2td storage` wants of buckets: lifecycle rules and notifications, ours told from strangers' (pure).

A rule is compared by what it means in words, since servers add to, order and leave out of what they were given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from v2td.config import StorageSettings

OURS = "v2td-"  # what the names of our rules begin with: others are not touched
EVENTS = "s3:ObjectCreated:*"

Rule = Mapping[str, Any]


def fixed_prefix(template: str) -> str:
    """Return what all keys of a template (of OutputSettings) begin with."""
    prefix = ""
    for text, name, _form, _conversion in Formatter().parse(template):
        prefix += text
        if name is not None:
            break
    return prefix


def lifecycle_rules(settings: StorageSettings, prefix: str) -> list[Rule]:
    """Return our rules for files of transcripts, as put_bucket_lifecycle_configuration takes them; one or none."""
    rule: dict[str, Any] = {"ID": f"{OURS}transcripts", "Status": "Enabled", "Filter": {"Prefix": prefix}}
    if settings.tier is not None:
        rule["Transitions"] = [{"Days": settings.transition_days, "StorageClass": settings.tier}]
    if settings.transcript_days is not None:
        rule["Expiration"] = {"Days": settings.transcript_days}
    return [rule] if len(rule) > 3 else []


def notifications(settings: StorageSettings) -> list[Rule]:
    """Return our QueueConfigurations: one for each suffix, since a filter has but one."""
    found: list[Rule] = []
    for number, suffix in enumerate(settings.notify_suffixes or ("",), start=1):
        named = (("prefix", settings.notify_prefix), ("suffix", suffix))
        rules = [{"Name": name, "Value": value} for name, value in named if value]
        found.append(
            {
                "Id": f"{OURS}recordings-{number}",
                "QueueArn": settings.notify_arn,
                "Events": [EVENTS],
                **({"Filter": {"Key": {"FilterRules": rules}}} if rules else {}),
            }
        )
    return found


def ours(rules: Sequence[Rule]) -> list[Rule]:
    """Return those of the rules that v2td made."""
    return [rule for rule in rules if _name(rule).startswith(OURS)]


def others(rules: Sequence[Rule]) -> list[Rule]:
    """Return those of the rules that somebody else made."""
    return [rule for rule in rules if not _name(rule).startswith(OURS)]


def lifecycle_in_words(rule: Rule) -> str:
    """Say what a rule does, such as `t/*: to COLD after 7 days, deleted after 30 days`."""
    # One transition may come as a list or by itself.
    transitions = rule.get("Transitions") or filter(None, [rule.get("Transition")])
    does = [f"to {each.get('StorageClass')} after {_time(each)}" for each in transitions]
    if expiration := rule.get("Expiration"):
        does.append(f"deleted after {_time(expiration)}")
    known = {"ID", "Status", "Filter", "Prefix", "Transitions", "Transition", "Expiration"}
    does += [f"{key} {rule[key]}" for key in sorted(rule.keys() - known)]
    state = "" if rule.get("Status") == "Enabled" else " (disabled)"
    return f"{_objects(rule)}: {', '.join(does) or 'nothing'}{state}"


def notification_in_words(rule: Rule) -> str:
    """Say what is announced where, such as `calls/*.wav: s3:ObjectCreated:* to arn:minio:sqs::T1:kafka`."""
    filters = rule.get("Filter", {}).get("Key", {}).get("FilterRules", ())
    named = {each["Name"].lower(): each["Value"] for each in filters}
    events = ", ".join(sorted(rule["Events"]))
    return f"{named.get('prefix', '')}*{named.get('suffix', '')}: {events} to {_target(rule['QueueArn'])}"


def _target(arn: str) -> str:
    """Return a name without what MinIO adds to its own: the region it serves."""
    return re.sub(r"^(arn:minio:sqs):[^:]*:", r"\1::", arn)


def _name(rule: Rule) -> str:
    return str(rule.get("ID") or rule.get("Id") or "")


def _objects(rule: Rule) -> str:
    scope = rule.get("Filter") or {"Prefix": rule.get("Prefix", "")}
    more = [f" and {key} {scope[key]}" for key in sorted(scope.keys() - {"Prefix"})]
    return f"{scope.get('Prefix', '')}*{''.join(more)}"


def _time(when: Mapping[str, Any]) -> str:
    if "Days" in when:
        return f"{when['Days']} days"
    return str(when.get("Date", when))
