"""The panels of the dashboard, row by row."""

from __future__ import annotations

from dataclasses import dataclass

HERE = 'job=~"$job",instance=~"$instance"'


@dataclass(frozen=True, slots=True)
class Panel:
    """A time series: what it shows of which queries, by their legends; above `limit` it is red."""

    title: str
    description: str
    unit: str  # Grafana's name of it
    queries: dict[str, str]
    limit: float | None = None
    stacked: bool = False
    exemplars: bool = False


def _of(metric: str, labels: str = "") -> str:
    return f"{metric}{{{HERE}{',' if labels else ''}{labels}}}"


def _rate(metric: str, by: str, labels: str = "") -> str:
    return f"sum by ({by}) (rate({_of(metric, labels)}[$__rate_interval]))"


def _percentiles(metric: str, by: str = "", labels: str = "", which: tuple[int, ...] = (50, 95, 99)) -> dict[str, str]:
    """Return a histogram's percentiles by their legends."""
    groups = f"{by}, le" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    rate = f"sum by ({groups}) (rate({_of(f'{metric}_bucket', labels)}[$__rate_interval]))"
    return {f"{legend}p{each}": f"histogram_quantile({each / 100}, {rate})" for each in which}


def _job(name: str, labels: str = "") -> str:
    return f'{name}{{job=~"$job"{"," if labels else ""}{labels}}}'


ROWS = {
    "Key metrics": (
        Panel(
            *("Processing rate", "Jobs whose outcome is durable, failed ones included.", "short"),
            {"jobs a minute": _job("job:v2td_messages_per_minute:rate5m")},
        ),
        Panel(
            *("Queue lag", "Records that are not committed yet, those under way included.", "short"),
            {"records behind": _job("job:v2td_lag:sum"), "under way": f"sum({_of('v2td_kafka_in_flight_records')})"},
        ),
        Panel(
            *("Error rate", "Share of the jobs that failed; above a fifth the circuit opens.", "percentunit"),
            {"failed": _job("job:v2td_failed:ratio_rate10m")},
            limit=0.2,
        ),
        Panel(
            *("CPU", "Busy cores: the daemon and its children.", "short"),
            {"{{instance}}": _of("instance:v2td_busy_cores:rate5m")},
            stacked=True,
        ),
        Panel(
            *("Memory", "Resident memory of the daemon and its children.", "bytes"),
            {"{{instance}}": _of("v2td_rss_bytes")},
            stacked=True,
        ),
        Panel(
            *("Speed", "Seconds of audio transcribed in a second.", "short"),
            {"times real time": _job("job:v2td_audio_per_second:rate5m")},
        ),
    ),
    "Objectives": (
        Panel(
            *("Work per second of audio", "The goal: 99 % below 2, which is 30 minutes of audio in 60.", "short"),
            _percentiles("v2td_real_time_ratio"),
            limit=2,
        ),
        Panel(
            *("Files an hour, by instance", "The goal: 100 while there is work.", "short"),
            {"{{instance}}": _of("instance:v2td_files_per_hour:rate10m")},
        ),
        Panel(
            *("Submission", "From the request to its answer. The goal: 99 % below 100 ms.", "s"),
            _percentiles("v2td_submission_seconds"),
            limit=0.1,
        ),
        Panel(
            *("Errors against objectives, last hour", "Share of what missed its goal.", "percentunit"),
            {"{{slo}}": _job("job:v2td_slo_errors:ratio_1h")},
        ),
        Panel(
            *(
                "Errors against objectives, last 3 days",
                "The budgets: speed and submission 1 %, files 5 %.",
                "percentunit",
            ),
            {"{{slo}}": _job("job:v2td_slo_errors:ratio_3d")},
        ),
    ),
    "Backlog": (
        Panel(
            *("Backlog in audio", "Records behind times the mean length of recent recordings.", "s"),
            {
                "in Kafka": f"sum({_of('v2td_backlog_estimated_audio_seconds')})",
                "waiting for a slot": f"sum({_of('v2td_backlog_audio_seconds')})",
            },
        ),
        Panel(
            *("Time to drain", "At the present speed.", "s"),
            {"to drain": f"max by (job) ({_of('v2td_drain_seconds')})"},
        ),
        Panel(
            *("Cores needed to drain in an hour", "Busy ones; beside those that are busy now.", "short"),
            {
                "needed": f"max by (job) ({_of('v2td_cores_needed')})",
                "busy": f"sum by (job) ({_of('instance:v2td_busy_cores:rate5m')})",
            },
        ),
        Panel(
            *("Lag by partition", "Records behind.", "short"),
            {"{{topic}}/{{partition}}": f"sum by (topic, partition) ({_of('v2td_kafka_lag_records')})"},
        ),
        Panel(
            *("Oldest record under way", "Since it was written to Kafka.", "s"),
            {"{{topic}}/{{partition}}": f"max by (topic, partition) ({_of('v2td_kafka_oldest_unfinished_seconds')})"},
            limit=4 * 3600,
        ),
        Panel(
            *("Intake", "1 while it pauses: enough is under way, most jobs fail, or somebody said so.", "short"),
            {
                "{{instance}} paused": _of("v2td_kafka_paused"),
                "{{instance}} circuit open": _of("v2td_circuit_open"),
                "{{instance}} stopped": _of("v2td_intake_stopped"),
            },
        ),
    ),
    "Stages": (
        Panel(
            *("Time in a stage, p95", "Waiting included.", "s"),
            _percentiles("v2td_stage_seconds", "stage", which=(95,)),
            exemplars=True,
        ),
        Panel(
            *("Time in a stage, p50", "Waiting included.", "s"),
            _percentiles("v2td_stage_seconds", "stage", which=(50,)),
            exemplars=True,
        ),
        Panel(
            *("Jobs in a stage", "", "short"),
            {
                "{{stage}}": f"sum by (stage) ({_of('v2td_stage_in_flight')})",
                "all": f"sum({_of('v2td_jobs_in_flight')})",
            },
        ),
        Panel(
            *("Windows that wait", "Always 0 with lag: downloads or decoders are too slow.", "short"),
            {"{{instance}}": _of("v2td_queue_windows")},
        ),
        Panel(*("Wait for a slot", "", "s"), _percentiles("v2td_queue_wait_seconds")),
        Panel(
            *("Downloads", "Bytes fetched a second.", "Bps"),
            {"{{scheme}}": _rate("v2td_fetched_bytes_total", "scheme")},
        ),
    ),
    "Slots": (
        Panel(
            *("Slots by state", "", "short"),
            {"{{state}}": f"sum by (state) ({_of('v2td_slots')})"},
            stacked=True,
        ),
        Panel(
            *("Inference of a window", "A batch's time divided by its windows.", "s"),
            _percentiles("v2td_window_seconds"),
        ),
        Panel(*("Windows in a batch", "", "short"), _percentiles("v2td_batch_windows", which=(50, 95))),
        Panel(
            *("CPU by slot", "Busy cores.", "short"),
            {"{{instance}} {{slot}}": f"rate({_of('v2td_slot_cpu_seconds')}[$__rate_interval])"},
            stacked=True,
        ),
        Panel(
            *("Memory by slot", "", "bytes"),
            {"{{instance}} {{slot}}": _of("v2td_slot_rss_bytes")},
            stacked=True,
        ),
        Panel(
            *("Processes rebuilt", "Slots and decoders, by reason.", "short"),
            {
                "slot {{reason}}": _rate("v2td_slot_restarts_total", "reason"),
                "decoder {{reason}}": _rate("v2td_decoder_restarts_total", "reason"),
            },
        ),
        Panel(
            *("Gap between batches", "While windows wait.", "s"),
            _percentiles("v2td_slot_gap_seconds", which=(50, 99)),
        ),
        Panel(
            *("Windows heard again", "By what was doubtful.", "short"),
            {"{{flag}}": _rate("v2td_window_flags_total", "flag")},
        ),
    ),
    "Failures": (
        Panel(
            *("Failed jobs by class", "A second.", "short"),
            {"{{error_class}}": _rate("v2td_jobs_failed_total", "error_class")},
            stacked=True,
        ),
        Panel(
            *("Further attempts by class", "A second.", "short"),
            {"{{error_class}}": _rate("v2td_job_retries_total", "error_class")},
            stacked=True,
        ),
        Panel(
            *("Dead letters, deaths, losses", "Within an hour.", "short"),
            {
                "dead letters": f"sum(increase({_of('v2td_dead_letters_total')}[1h]))",
                "processes that died of a recording": f"sum(increase({_of('v2td_child_deaths_total')}[1h]))",
                "records lost to retention": f"sum(increase({_of('v2td_records_deleted_total')}[1h]))",
                "unreadable": f"sum(increase({_of('v2td_records_unreadable_total')}[1h]))",
            },
        ),
    ),
    "Providers": (
        *(
            Panel(
                *(f"Transcription, p{each}", "From the start of the download to the finished text.", "s"),
                _percentiles("v2t_transcription_duration_seconds", "provider", which=(each,)),
            )
            for each in (50, 95, 99)
        ),
        Panel(
            *("Throughput", "Megabytes of audio per second of the last transcription.", "MBs"),
            {"{{instance}} {{provider}}": _of("v2t_provider_throughput_mbps")},
        ),
        Panel(
            *("Success rate", "Of the recordings that a provider took.", "percentunit"),
            {
                "{{provider}}": _rate("v2td_provider_jobs_total", "provider", 'result="ok"')
                + "\n  / "
                + _rate("v2td_provider_jobs_total", "provider", 'result!="refused"')
            },
        ),
        Panel(
            *("State", "Open: left alone. Not healthy: it says so itself.", "short"),
            {
                "{{provider}} open": f"max by (provider) ({_of('v2td_provider_open')})",
                "{{provider}} healthy": f"min by (provider) ({_of('v2td_provider_healthy')})",
            },
        ),
        Panel(
            *("Recordings there", "With a provider, and waiting for it.", "short"),
            {
                "{{provider}}": f"sum by (provider) ({_of('v2td_provider_in_flight')})",
                "{{provider}} waiting": f"sum by (provider) ({_of('v2td_provider_waiting')})",
            },
        ),
        Panel(
            *("Handed on", "Recordings a second that went on to another provider, by who failed.", "short"),
            {"{{provider}}": _rate("v2td_provider_fallbacks_total", "provider")},
        ),
        Panel(
            *("Cost", "A day, in the currency of the configuration.", "short"),
            {"{{provider}}": f"sum by (provider) (increase({_of('v2td_provider_cost_total')}[1d]))"},
        ),
    ),
    "Caches and files": (
        Panel(
            *("Results found", "Look-ups by where the text was found.", "short"),
            {"{{found}}": _rate("v2td_result_cache_total", "found")},
            stacked=True,
        ),
        Panel(
            *("Downloads spared", "By what the cache of files had.", "short"),
            {"{{found}}": _rate("v2td_file_cache_total", "found")},
            stacked=True,
        ),
        Panel(
            *("Files of transcripts", "Written to buckets, a second.", "short"),
            {"{{result}}": _rate("v2td_outputs_total", "result")},
        ),
    ),
    "Kafka and Postgres": (
        Panel(*("Offset commits", "", "s"), _percentiles("v2td_kafka_commit_seconds", which=(50, 99)), limit=1),
        Panel(
            *("Commits and rebalances", "A second.", "short"),
            {
                "commits {{result}}": _rate("v2td_kafka_commits_total", "result"),
                "rebalances": _rate("v2td_kafka_rebalances_total", "job"),
            },
        ),
        Panel(
            *("Rebalances", "From a revocation to the next assignment.", "s"),
            _percentiles("v2td_kafka_rebalance_seconds"),
        ),
        Panel(*("One transaction", "Begin to commit.", "s"), _percentiles("v2td_write_seconds")),
        Panel(*("Outcomes in a transaction", "", "short"), _percentiles("v2td_write_batch_outcomes", which=(50, 95))),
        Panel(
            *("Rows, retries, duplicates", "A second.", "short"),
            {
                "{{table}}": _rate("v2td_write_rows_total", "table"),
                "retries": _rate("v2td_write_retries_total", "job"),
                "duplicates": _rate("v2td_write_duplicates_total", "job"),
            },
        ),
    ),
    "The daemon": (
        Panel(
            *("Event loop", "How late it runs a timer; above 0.1 s something blocks it.", "s"),
            _percentiles("v2td_loop_lag_seconds", which=(50, 99)),
            limit=0.1,
        ),
        Panel(
            *("Requests", "To the APIs, by how they ended; and refused ones.", "short"),
            {
                "on demand {{result}}": _rate("v2td_api_requests_total", "result"),
                "submitted {{result}}": _rate("v2td_submissions_total", "result"),
                "refused: {{reason}}": _rate("v2td_admin_rejected_total", "reason"),
            },
        ),
        Panel(
            *("Told", "Webhooks a second by how they ended, those that wait, spans.", "short"),
            {
                "webhooks {{result}}": _rate("v2td_webhooks_total", "result"),
                "webhooks waiting": f"max by (job) ({_of('v2td_webhooks_waiting')})",
                "spans {{result}}": _rate("v2td_spans_total", "result"),
            },
        ),
    ),
}
