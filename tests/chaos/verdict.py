"""What is wrong with what the daemons left: compares the producer's log with all that is durable (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.producer import Sent
from v2td.jobs import Coordinates

EXAMPLES = 5
ECHO = "echo "  # an echo daemon's text: this, the job's id and INDEX/COUNT for each window

Key = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row of transcriptions or failures; `text` is None for a failure."""

    id: str
    topic: str
    partition: int
    offset: int
    record_index: int
    timestamp_ms: int
    job_id: str | None
    text: str | None
    segments: int = 0
    distinct_segments: int = 0
    waits: bool = False  # a failure that is being replayed: not the last word


@dataclass(frozen=True, slots=True)
class Durable:
    """All that is durable. `replays` are (topic, partition, offset) of records that replayed a failure and are done.

    `committed` are the group's offsets by topic and partition. What should be gone by then is there by ids, of jobs in
    `cluster`: windows and deaths that unfinished jobs left behind, and segments that have no transcription.
    """

    outcomes: Sequence[Outcome]
    letters: Collection[str] = ()  # `v2td-id` of each dead letter
    replays: Collection[tuple[str, int, int]] = ()
    committed: Mapping[tuple[str, int], int] = field(default_factory=dict)
    cluster: str = ""
    windows: Collection[str] = ()
    deaths: Collection[str] = ()
    stray_segments: Collection[str] = ()


@dataclass(slots=True)
class Verdict:
    """How many records are lost, how many outcomes are there twice, and what else is wrong.

    A record is lost when it has no outcome and its offset is committed, so that nobody will read it again; one that
    is still to be read is a problem, since the daemons had their time, but not lost.
    """

    records: int = 0
    lost: int = 0
    duplicates: int = 0
    problems: list[str] = field(default_factory=list)


def key_of(record: Sent | Outcome) -> Key:
    """Return what tells a record from all others, of a topic that was made anew as well."""
    return record.topic, record.partition, record.offset, record.timestamp_ms


def judge(sent: Sequence[Sent], durable: Durable, *, unsure: Collection[str], excused: Collection[Key]) -> Verdict:
    """Return what is wrong: each record that was sent is to have exactly one outcome, its own, and there are no others.

    `unsure` are jobs that may be in the topic or not, `excused` records that may have an outcome or none.
    """
    verdict = Verdict(records=len(sent))
    by_record: dict[Key, list[Outcome]] = {}
    for outcome in durable.outcomes:
        by_record.setdefault(key_of(outcome), []).append(outcome)
    wanted = {key_of(record): record for record in sent}
    missing = [
        record
        for key, record in wanted.items()
        if key not in by_record and key not in excused and key[:3] not in durable.replays
    ]
    unread = [record for record in missing if record.offset >= durable.committed.get(key_of(record)[:2], 0)]
    verdict.lost = len(missing) - len(unread)
    _complain(verdict, "no outcome, and committed", set(missing) - set(unread))
    _complain(verdict, "no outcome yet, and not committed", unread)
    _judge_repetitions(verdict, durable.outcomes)
    known_topics = {record.topic for record in sent}
    strangers = [
        outcome
        for key, outcomes in by_record.items()
        for outcome in outcomes
        if key not in wanted and key not in excused and outcome.job_id not in unsure and key[0] in known_topics
    ]
    _complain(verdict, "an outcome of a record that nobody sent", strangers)
    _judge_contents(verdict, wanted, by_record)
    unsent = [each for each in durable.outcomes if each.text is None and not each.waits and key_of(each) in wanted]
    _complain(verdict, "a failure without a dead letter", [each for each in unsent if each.id not in durable.letters])
    waiting = [each for each in durable.outcomes if each.waits and key_of(each) not in excused]
    _complain(verdict, "a failure that still waits for its replay", waiting)
    _judge_leftovers(verdict, durable, excused)
    return verdict


def _judge_leftovers(verdict: Verdict, durable: Durable, excused: Collection[Key]) -> None:
    """All jobs have ended, but those that are excused: nothing of theirs may be left."""
    excused_ids = {str(Coordinates(durable.cluster, *key).row_id()) for key in excused}
    _complain(verdict, "windows of a job that has ended", sorted(set(durable.windows) - excused_ids))
    _complain(verdict, "deaths of a job that has ended", sorted(set(durable.deaths) - excused_ids))
    _complain(verdict, "segments without their transcription", sorted(set(durable.stray_segments)))


def _judge_repetitions(verdict: Verdict, outcomes: Sequence[Outcome]) -> None:
    jobs = Counter((*key_of(each), each.record_index) for each in outcomes)
    ids = Counter(each.id for each in outcomes)
    twice = [each for each in outcomes if jobs[(*key_of(each), each.record_index)] > 1 or ids[each.id] > 1]
    verdict.duplicates = sum(count - 1 for count in jobs.values()) or sum(count - 1 for count in ids.values())
    _complain(verdict, "an outcome that is there twice", twice)
    _complain(verdict, "segments twice", [each for each in outcomes if each.segments != each.distinct_segments])


def _judge_contents(verdict: Verdict, wanted: dict[Key, Sent], by_record: dict[Key, list[Outcome]]) -> None:
    own = [(record, outcome) for key, record in wanted.items() for outcome in by_record.get(key, ())]
    _complain(
        verdict,
        "another job's outcome",
        [outcome for record, outcome in own if record.job_id is not None and outcome.job_id != record.job_id],
    )
    echoes = [(record, outcome) for record, outcome in own if (outcome.text or "").startswith(ECHO)]
    wrong = [outcome for record, outcome in echoes if not _is_whole(outcome, record.job_id)]
    _complain(verdict, "another job's text, or not all of it", wrong)


def _is_whole(outcome: Outcome, job: str | None) -> bool:
    """Whether an echo daemon's text has each window of the job, in order, and a segment for each."""
    words = (outcome.text or "").split()
    count = int(words[-1].rpartition("/")[2])
    expected = [word for index in range(count) for word in (ECHO.strip(), job, f"{index}/{count}")]
    return words == expected and outcome.segments == count


def _complain(verdict: Verdict, what: str, cases: Iterable[Sent | Outcome | str]) -> None:
    found = list(cases)
    if found:
        verdict.problems.append(f"{len(found)} × {what}: {', '.join(map(_name, found[:EXAMPLES]))}")


def _name(case: Sent | Outcome | str) -> str:
    return case if isinstance(case, str) else f"{case.topic}/{case.partition}/{case.offset}"
