"""What each alert is tried with: series that make it fire, and series like them that do not.

Values are in promtool's notation, one a minute: `0+5x90` is 0, 5, 10, … and `_` is no sample.
"""

from __future__ import annotations

from dataclasses import dataclass

HERE = 'job="v2td",instance="a"'


@dataclass(frozen=True, slots=True)
class Firing:
    """An alert that is to fire: its severity, its labels but for that, and what its description says then."""

    severity: str
    labels: dict[str, str]
    description: str


@dataclass(frozen=True, slots=True)
class Case:
    """Series, and what fires of `alert` at `at`; `interval` is the time between two values."""

    alert: str
    at: str
    series: dict[str, str]
    firing: tuple[Firing, ...] = ()
    interval: str = "1m"


def series(name: str, labels: str = "") -> str:
    """Return a series of instance a."""
    return f"{name}{{{HERE}{',' if labels else ''}{labels}}}"


def _both(
    alert: str, at: str, description: str, fires: dict[str, str], quiet: dict[str, str], **more: object
) -> list[Case]:
    """Return a case that fires and one that does not; `more`: severity, labels beside job and instance, or instead."""
    severity = str(more.get("severity", "ticket"))
    labels = more.get("labels", {"job": "v2td", "instance": "a"})
    assert isinstance(labels, dict)
    return [Case(alert, at, fires, (Firing(severity, labels, description),)), Case(alert, at, quiet)]


JOB = {"job": "v2td"}
LAG = series("v2td_kafka_lag_records", 'topic="t",partition="0"')
FINISHED = series("v2td_jobs_finished_total", 'outcome="transcribed"')
FAILED = series("v2td_jobs_finished_total", 'outcome="failed"')
WINDOWS = series("v2td_window_seconds_count", 'slot="0"')
STOPPED = series("v2td_intake_stopped")
QUEUE = series("v2td_queue_windows")
BUSY = series("v2td_slots", 'state="busy"')
IDLE = series("v2td_slots", 'state="idle"')


def _share(alert: str, slo: str, metric: str, le: str, words: str) -> list[Case]:
    """Return cases of a budget of 1 %: half of all too slow, one in 25, one in 200."""

    def of(good: int) -> dict[str, str]:
        return {
            series(f"{metric}_bucket", f'le="{le}"'): f"0+{good}x100",
            series(f"{metric}_bucket", 'le="+Inf"'): "0+200x100",
            series(f"{metric}_count"): "0+200x100",
        }

    many, few = f"50% of the {words}; 1 % may.", f"4% of the {words}; 1 % may."
    labels = {"job": "v2td", "slo": slo}
    return [
        Case(alert, "95m", of(100), (Firing("page", labels, many), Firing("ticket", labels, many))),
        Case(alert, "95m", of(192), (Firing("ticket", labels, few),)),
        Case(alert, "95m", of(199)),
    ]


def _files(lag: int, per_five_minutes: float, firing: tuple[Firing, ...] = (), *, stopped: int = 0) -> Case:
    """Return a case of six hours in which so many files are done; `stopped`: 1 where somebody paused intake."""
    finished = " ".join(f"{n * per_five_minutes:g}" for n in range(80))
    made_of = {LAG: f"{lag}x80", FINISHED: finished, STOPPED: f"{stopped}x80"}
    return Case("V2tdTooFewFiles", "6h", made_of, firing, "5m")


def _quantile(alert: str, metric: str, below: str, above: str, description: str) -> list[Case]:
    """Return cases of a percentile: all events in one bucket, then in a better one."""

    def of(le: str) -> dict[str, str]:
        bounds = [below, above, "+Inf"]
        counts = {bound: "0+60x60" if bounds.index(bound) >= bounds.index(le) else "0x60" for bound in bounds}
        return {series(f"{metric}_bucket", f'le="{bound}"'): values for bound, values in counts.items()}

    return _both(alert, "40m", description, of(above), of(below))


FILES = {"job": "v2td", "slo": "files"}
NEVER_DONE = "For 100% of the time with work an instance finished fewer than 100 files an hour; 5 % may be."

SLO = [
    *_share("V2tdTooSlow", "speed", "v2td_real_time_ratio", "2.0", "recordings took longer than twice their length"),
    *_share(
        "V2tdSubmissionSlow", "submission", "v2td_submission_seconds", "0.1", "submissions took longer than 100 ms"
    ),
    _files(500, 4, (Firing("page", FILES, NEVER_DONE), Firing("ticket", FILES, NEVER_DONE))),
    _files(500, 20),
    _files(3, 4),  # slow, but there is nothing to do
    _files(500, 4, stopped=1),
]

WORK = [
    *_both(
        *("V2tdLagGrows", "4h", "600 records are behind, more than an hour ago."),
        {LAG: "120+2x237 600x9"},
        {LAG: "3000-2x300"},
        labels=JOB,
    ),
    *_both(
        *("V2tdBacklogTakesHours", "40m", "At the present speed it is done in 5h 0m 0s."),
        {series("v2td_drain_seconds"): "18000x60"},
        {series("v2td_drain_seconds"): "3600x60"},
        labels=JOB,
    ),
    *_both(
        *("V2tdOldRecord", "20m", "Topic t, partition 0: written 5h 0m 0s ago and not finished."),
        {series("v2td_kafka_oldest_unfinished_seconds", 'topic="t",partition="0"'): "18000x60"},
        {series("v2td_kafka_oldest_unfinished_seconds", 'topic="t",partition="0"'): "3600x60"},
        labels={"job": "v2td", "topic": "t", "partition": "0"},
    ),
    *_both(
        *("V2tdNothingFinishes", "40m", "5 records are behind; no job ended and no window was heard for half an hour."),
        {LAG: "5x60", FINISHED: "7x60", WINDOWS: "9x60", STOPPED: "0x60"},
        {LAG: "5x60", FINISHED: "7x60", WINDOWS: "0+1x60", STOPPED: "0x60"},
        severity="page",
        labels=JOB,
    ),
    Case(
        *("V2tdNothingFinishes", "40m"),
        {LAG: "5x60", FINISHED: "7x60", WINDOWS: "9x60", STOPPED: "1x60"},
    ),
    Case(  # never heard a window, or has remote providers alone: a counter that never counted is not there
        *("V2tdNothingFinishes", "40m"),
        {LAG: "5x60", FINISHED: "0x60", STOPPED: "0x60"},
        (Firing("page", JOB, "5 records are behind; no job ended and no window was heard for half an hour."),),
    ),
    Case(  # one of them is paused, and the other does nothing
        *("V2tdNothingFinishes", "40m"),
        {
            LAG: "5x60",
            FINISHED: "0x60",
            STOPPED: "0x60",
            LAG.replace('"a"', '"b"'): "6x60",
            STOPPED.replace('"a"', '"b"'): "1x60",
        },
        (Firing("page", JOB, "5 records are behind; no job ended and no window was heard for half an hour."),),
    ),
    *_both(
        *("V2tdIntakeStopped", "70m", "a takes no records: `v2td resume` lets it."),
        {series("v2td_intake_stopped"): "1x90"},
        {series("v2td_intake_stopped"): "1x30 0x60"},
    ),
    *_both(
        *("V2tdCircuitOpen", "10m", "a tries ten jobs after each pause."),
        {series("v2td_circuit_open"): "1x20"},
        {series("v2td_circuit_open"): "1x3 0x20"},
        severity="page",
    ),
    *_both(
        *("V2tdJobsFail", "30m", "50% of the jobs of the last ten minutes failed."),
        {FINISHED: "0+4x60", FAILED: "0+4x60"},
        {FINISHED: "0+40x60", FAILED: "0+4x60"},
        severity="page",
        labels=JOB,
    ),
    *_both(
        *("V2tdDeadLetters", "70m", "120 dead letters in an hour."),
        {FINISHED: "0+10x90", series("v2td_dead_letters_total", 'truncated="no"'): "0+2x90"},
        {FINISHED: "0+100x90", series("v2td_dead_letters_total", 'truncated="no"'): "0+2x90"},
        labels=JOB,
    ),
]

PROCESSES = [
    *_both(
        *("V2tdDown", "10m", "a gives Prometheus no metrics."),
        {series("up"): "1x3 0x20"},
        {series("up"): "1x20"},
        severity="page",
    ),
    Case("V2tdDown", "10m", {}, (Firing("page", JOB, " gives Prometheus no metrics."),)),
    *_both(
        *("V2tdRestarts", "50m", "a began 3 times in an hour."),
        {series("process_start_time_seconds"): "10x10 20x10 30x10 40x30"},
        {series("process_start_time_seconds"): "10x10 20x50"},
    ),
    *_quantile(
        *("V2tdLoopBlocked", "v2td_loop_lag_seconds", "0.25", "0.5"),
        "One timer in a hundred of a is 497.5ms late or more.",
    ),
    *_both(
        *("V2tdNoSlotBusy", "10m", "a has windows in its queue and no busy slot."),
        {QUEUE: "3x20", BUSY: "0x20", IDLE: "2x20"},
        {QUEUE: "3x20", BUSY: "1x20", IDLE: "1x20"},
        severity="page",
    ),
    *_both(
        *("V2tdSlotsRestart", "40m", "a: 6 times in half an hour, reason died."),
        {series("v2td_slot_restarts_total", 'reason="died"'): "0+0.2x60"},
        {series("v2td_slot_restarts_total", 'reason="windows"'): "0+0.2x60"},
        labels={"job": "v2td", "instance": "a", "reason": "died"},
    ),
    *_both(
        *("V2tdDecodersRestart", "40m", "a: 6 times in half an hour, reason memory."),
        {series("v2td_decoder_restarts_total", 'reason="memory"'): "0+0.2x60"},
        {series("v2td_decoder_restarts_total", 'reason="memory"'): "0+0.1x60"},
        labels={"job": "v2td", "instance": "a", "reason": "memory"},
    ),
    *_both(
        *("V2tdRecordingsKill", "20m", "10 processes of kind decoder died of one recording each in ten minutes."),
        {series("v2td_child_deaths_total", 'kind="decoder"'): "0+1x60"},
        {series("v2td_child_deaths_total", 'kind="decoder"'): "0+0.1x60"},
        labels={"job": "v2td", "kind": "decoder"},
    ),
    *_both(
        *("V2tdVersionsDiffer", "130m", "2 versions or models have been at work for two hours."),
        {series("v2td_build_info", f'version="{each}",model="base"'): "1x140" for each in (1, 2)},
        {f'v2td_build_info{{job="v2td",instance="{each}",version="1",model="base"}}': "1x140" for each in "ab"},
        labels=JOB,
    ),
]


def _born(alert: str, name: str, fires: Firing) -> list[Case]:
    """Return cases of a counter that comes into being with its first event, that goes on, and that is old."""
    return [
        Case(alert, "70m", {name: "_x65 3x20"}, (fires,)),
        Case(alert, "90m", {name: "5x60 8x60"}, (fires,)),
        Case(alert, "90m", {name: "5x120"}),
    ]


TOPIC = {"job": "v2td", "topic": "t"}

KAFKA = [
    *_born(
        *("V2tdRecordsLost", series("v2td_records_deleted_total", 'topic="t"')),
        Firing("page", TOPIC, "3 records of t are lost."),
    ),
    *_born(
        *("V2tdRecordsUnreadable", series("v2td_records_unreadable_total", 'topic="t"')),
        Firing("ticket", TOPIC, "3 offsets of t could not be read and were skipped."),
    ),
    *_born(
        *("V2tdTopicRecreated", series("v2td_topics_recreated_total", 'topic="t"')),
        Firing("ticket", TOPIC, "t is another topic of the same name: it is read from its start."),
    ),
    *_both(
        *("V2tdCommitsFail", "30m", "a works, and after a restart it would have to look up what it has done."),
        {series("v2td_kafka_commits_total", 'result="failed"'): "0+1x60"},
        {series("v2td_kafka_commits_total", 'result="failed"'): "5x60"},
        severity="page",
    ),
    *_quantile(
        *("V2tdCommitsSlow", "v2td_kafka_commit_seconds", "1.0", "5.0"),
        "One commit in a hundred of a takes 4.96s or more.",
    ),
    *_both(
        *("V2tdGroupUnsteady", "90m", "a: 12 (rebalances an hour, or seconds for one)."),
        {series("v2td_kafka_rebalances_total"): "0+0.2x120"},
        {series("v2td_kafka_rebalances_total"): "0+0.1x120"},
    ),
    Case(
        *("V2tdGroupUnsteady", "90m"),
        {
            series("v2td_kafka_rebalance_seconds_bucket", f'le="{le}"'): values
            for le, values in (("30.0", "0x120"), ("60.0", "0+0.1x120"), ("+Inf", "0+0.1x120"))
        },
        (Firing("ticket", {"job": "v2td", "instance": "a"}, "a: 58.5 (rebalances an hour, or seconds for one)."),),
    ),
]

PROVIDER = {"job": "v2td", "provider": "p"}

OTHERS = [
    *_both(
        *("V2tdPostgresTrouble", "20m", "a wrote the same 5 times in five minutes. Nothing is lost."),
        {series("v2td_write_retries_total"): "0+1x30"},
        {series("v2td_write_retries_total"): "7x30"},
        severity="page",
    ),
    *_both(
        *("V2tdProviderOpen", "20m", "p: jobs go to its fallback, or wait."),
        {series("v2td_provider_open", 'provider="p"'): "1x30"},
        {series("v2td_provider_open", 'provider="p"'): "0x30"},
        labels=PROVIDER,
    ),
    *_both(
        *("V2tdProviderUnhealthy", "20m", "p does not say that it is well."),
        {series("v2td_provider_healthy", 'provider="p"'): "0x30"},
        {series("v2td_provider_healthy", 'provider="p"'): "1x30"},
        labels=PROVIDER,
    ),
    *_both(
        *("V2tdFilesNotWritten", "40m", "a cannot write to the bucket of `output.bucket`."),
        {series("v2td_outputs_total", 'result="failed"'): "0+1x60"},
        {series("v2td_outputs_total", 'result="ok"'): "0+1x60"},
    ),
    *_both(
        *("V2tdRedisErrors", "40m", "a works without it."),
        {series("v2td_redis_errors_total"): "0+60x60"},
        {series("v2td_redis_errors_total"): "0+1x60"},
    ),
    *_both(
        *("V2tdWebhooksWait", "40m", "2k deliveries wait."),
        {series("v2td_webhooks_waiting"): "2000x60"},
        {series("v2td_webhooks_waiting"): "20x60"},
        labels=JOB,
    ),
    *_born(
        *("V2tdWebhooksDead", series("v2td_webhooks_total", 'result="dead"')),
        Firing("ticket", JOB, "3 deliveries had all their tries, or are not wanted, or not allowed."),
    ),
    *_both(
        *("V2tdSpansLost", "50m", "The collector does not take the spans of a."),
        {series("v2td_spans_total", 'result="lost"'): "0+1x60"},
        {series("v2td_spans_total", 'result="sent"'): "0+1x60"},
    ),
    *_both(
        *("V2tdWrongTokens", "20m", "a refused 30 requests in ten minutes."),
        {series("v2td_admin_rejected_total", 'reason="token"'): "0+3x30"},
        {series("v2td_admin_rejected_total", 'reason="rate"'): "0+3x30"},
    ),
]

CASES = (*SLO, *WORK, *PROCESSES, *KAFKA, *OTHERS)
