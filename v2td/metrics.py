"""Every metric v2td exports, defined and explained here and nowhere else.

Labels come from closed sets (stages, error classes, slots, the configured topics): never a host, a URL or an id.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

MEGABYTE = 1_000_000

# The second seed's two, named and bucketed exactly as it has them.
TRANSCRIPTION_DURATION = Histogram(
    "v2t_transcription_duration_seconds",
    "Transcription duration by provider: seconds from the start of the download to the finished text.",
    ["provider", "file_size_range"],
    buckets=(10, 30, 60, 120, 300, 600, 1800),
)
PROVIDER_THROUGHPUT = Gauge(
    "v2t_provider_throughput_mbps",
    "Provider throughput in MB/s: audio bytes / 10^6 per second of the last transcription.",
    ["provider"],
)

PROVIDER_JOBS = Counter(
    "v2td_provider_jobs_total",
    "Recordings that a provider was asked for, by how it ended.",
    ["provider", "result"],  # ok | failed | refused
)
PROVIDER_SECONDS = Histogram(
    "v2td_provider_seconds",
    "Time a provider takes for a recording, without the wait for a place.",
    ["provider"],
    buckets=(0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800),
)
PROVIDER_IN_FLIGHT = Gauge("v2td_provider_in_flight", "Recordings that a provider has now.", ["provider"])
PROVIDER_WAITING = Gauge("v2td_provider_waiting", "Recordings that wait for a place at a provider.", ["provider"])
PROVIDER_OPEN = Gauge("v2td_provider_open", "1 while a provider is left alone: its breaker is open.", ["provider"])
PROVIDER_HEALTHY = Gauge("v2td_provider_healthy", "1 while a provider says that it is well.", ["provider"])
PROVIDER_COST = Counter(
    "v2td_provider_cost_total", "What a provider charges, in the currency of the configuration.", ["provider"]
)
PROVIDER_AUDIO_SECONDS = Counter("v2td_provider_audio_seconds_total", "Seconds of audio it transcribed.", ["provider"])
FALLBACKS = Counter(
    "v2td_provider_fallbacks_total",
    "Recordings that went on to another provider, by who failed.",
    ["provider"],
)
RESULT_CACHE = Counter(
    "v2td_result_cache_total",
    "Look-ups in the cache of results, by where the text was found.",
    ["found"],  # in_flight | redis | postgres | none
)
REDIS_ERRORS = Counter("v2td_redis_errors_total", "Look-ups and writes that Redis did not answer.")
FILE_CACHE = Counter(
    "v2td_file_cache_total",
    "Downloads that could have been spared, by how that went.",
    ["found"],  # hit | stale | none
)
FILE_CACHE_HIT_BYTES = Counter("v2td_file_cache_hit_bytes_total", "Bytes of recordings that were not downloaded again.")
FILE_CACHE_BYTES = Gauge("v2td_file_cache_bytes", "Bytes of recordings kept on disk.")
FILE_CACHE_EVICTIONS = Counter("v2td_file_cache_evictions_total", "Recordings that made room for others.")
OUTPUTS = Counter("v2td_outputs_total", "Files of transcripts written to buckets.", ["result"])  # ok | failed
OUTPUT_BYTES = Counter("v2td_output_bytes_total", "Bytes of them.")
RESULTS_TOLD = Counter("v2td_results_told_total", "Outcomes told in kafka.results_topic, repetitions included.")
API_REQUESTS = Counter(
    "v2td_api_requests_total",
    "Requests to the transcription API by how they ended.",
    ["result"],  # ok | failed | refused | busy
)

RECORDS_RECEIVED = Counter("v2td_records_received_total", "Kafka records polled.", ["topic"])
RECORDS_SKIPPED = Counter(
    "v2td_records_skipped_total", "Valid records that name no recording (other bucket events).", ["topic"]
)
JOBS_FINISHED = Counter(
    "v2td_jobs_finished_total",
    "Jobs whose outcome is durable.",
    ["outcome"],  # transcribed | failed
)
JOBS_FAILED = Counter("v2td_jobs_failed_total", "Failed jobs by class of error.", ["error_class"])
JOBS_KNOWN = Counter(
    "v2td_jobs_known_total", "Jobs delivered again whose outcome was durable already: not done a second time."
)
JOBS_REDONE = Counter(
    "v2td_jobs_redone_total",
    "Records delivered again that were not finished before: those between the committed offset and the newest "
    "durable one.",
)
WINDOWS_RESUMED = Counter("v2td_windows_resumed_total", "Windows that were heard before a restart and not again.")
JOBS_REPLAYED = Counter("v2td_jobs_replayed_total", "Failed jobs done again for `v2td dlq replay`.")
CHILD_DEATHS = Counter(
    "v2td_child_deaths_total", "Processes that died of, or hung on, a recording alone.", ["kind"]
)  # decoder | slot | provider
CIRCUIT_OPEN = Gauge("v2td_circuit_open", "1 while intake pauses because too many jobs fail.")
JOBS_DELAYED = Counter("v2td_jobs_delayed_total", "Jobs sent to kafka.retry_topic.")
JOB_RETRIES = Counter(
    "v2td_job_retries_total", "Attempts after the first, by the class that caused them.", ["error_class"]
)
JOBS_IN_FLIGHT = Gauge("v2td_jobs_in_flight", "Jobs on their way to a durable row.")
STAGE_SECONDS = Histogram(
    "v2td_stage_seconds",
    "Time a job spends in a stage (fetch, prepare, transcribe, write), waiting included.",
    ["stage"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800),
)
STAGE_IN_FLIGHT = Gauge("v2td_stage_in_flight", "Jobs now in a stage.", ["stage"])

AUDIO_SECONDS = Counter("v2td_audio_seconds_total", "Seconds of audio transcribed, as the recordings are long.")
SPEECH_SECONDS = Counter("v2td_speech_seconds_total", "Seconds of speech in them, as the VAD hears it.")
BACKLOG_AUDIO_SECONDS = Gauge("v2td_backlog_audio_seconds", "Seconds of audio in windows that wait for a slot.")
REAL_TIME_RATIO = Histogram(
    "v2td_real_time_ratio",
    "Seconds of work on a recording (download, and first window to text) per second of it; under 30 s count as 30 s.",
    buckets=(0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
FETCHED_BYTES = Counter("v2td_fetched_bytes_total", "Bytes of recordings downloaded or read.", ["scheme"])

QUEUE_WINDOWS = Gauge("v2td_queue_windows", "Windows that wait for a slot.")
QUEUE_WAIT = Histogram(
    "v2td_queue_wait_seconds",
    "Time a window waits for a slot.",
    buckets=(0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
QUEUE_BYTES = Gauge("v2td_queue_bytes", "PCM of windows that wait for a slot.")
SLOTS = Gauge(
    "v2td_slots",
    "Processes that hold the model, by state.",
    ["state"],  # starting | idle | busy | unloaded
)
SLOT_RESTARTS = Counter(
    "v2td_slot_restarts_total",
    "Slots rebuilt.",
    ["reason"],  # died | deadline | stopped | memory | windows
)
SLOT_GAP = Histogram(
    "v2td_slot_gap_seconds",
    "Time between two batches of a slot while windows wait.",
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5),
)
BATCH_WINDOWS = Histogram(
    "v2td_batch_windows", "Windows transcribed together.", buckets=(1, 2, 4, 6, 8, 10, 16, 32, 64, 128)
)
WINDOW_FLAGS = Counter(
    "v2td_window_flags_total",
    "Windows whose text looked doubtful and that were decoded again, by reason.",
    ["flag"],  # compression_ratio | logprob | repetition | coverage | sparse | dense | fallback
)
SLOT_RSS = Gauge("v2td_slot_rss_bytes", "Resident memory of a slot's process.", ["slot"])
SLOT_CPU = Gauge("v2td_slot_cpu_seconds", "CPU time of a slot's process since it was started.", ["slot"])
WINDOW_SECONDS = Histogram(
    "v2td_window_seconds",
    "Inference of one window: a batch's time divided by its windows.",
    ["slot"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
DECODER_RESTARTS = Counter(
    "v2td_decoder_restarts_total",
    "Decoder processes rebuilt.",
    ["reason"],  # died | deadline | stopped | memory
)

KAFKA_LAG = Gauge("v2td_kafka_lag_records", "Records between the committed offset and the end.", ["topic", "partition"])
KAFKA_IN_FLIGHT = Gauge("v2td_kafka_in_flight_records", "Records under way.", ["topic", "partition"])
KAFKA_OLDEST = Gauge(
    "v2td_kafka_oldest_unfinished_seconds",
    "Since the oldest record under way was written to Kafka; 0 when there is none.",
    ["topic", "partition"],
)
KAFKA_COMMIT_SECONDS = Histogram(
    "v2td_kafka_commit_seconds", "One offset commit.", buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
)
KAFKA_REBALANCE_SECONDS = Histogram(
    "v2td_kafka_rebalance_seconds",
    "From the start of a revocation to the next assignment.",
    buckets=(0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
RECORDS_DELETED = Counter(
    "v2td_records_deleted_total", "Records that retention deleted before they were read: lost to us.", ["topic"]
)
RECORDS_UNREADABLE = Counter("v2td_records_unreadable_total", "Offsets of corrupt batches, skipped.", ["topic"])
TOPICS_RECREATED = Counter("v2td_topics_recreated_total", "Topics found to be another one of the same name.", ["topic"])
KAFKA_COMMITS = Counter("v2td_kafka_commits_total", "Offset commits.", ["result"])  # ok | failed
KAFKA_REBALANCES = Counter("v2td_kafka_rebalances_total", "Assignments received.")
KAFKA_PAUSED = Gauge("v2td_kafka_paused", "1 while intake is paused because enough is under way.")
DEAD_LETTERS = Counter("v2td_dead_letters_total", "Dead letters acknowledged by the broker.", ["truncated"])

WRITE_ROWS = Counter("v2td_write_rows_total", "Rows inserted.", ["table"])
WRITE_DUPLICATES = Counter("v2td_write_duplicates_total", "Outcomes that were already durable.")
WRITE_BATCH = Histogram(
    "v2td_write_batch_outcomes",
    "Outcomes in one transaction.",
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 5000),
)
WRITE_SECONDS = Histogram("v2td_write_seconds", "One transaction, begin to commit.")
WRITE_RETRIES = Counter("v2td_write_retries_total", "Transactions tried again because Postgres was in trouble.")

LOOP_LAG = Histogram(
    "v2td_loop_lag_seconds",
    "How late the event loop runs a timer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)

CPU_SECONDS = Counter("v2td_cpu_seconds_total", "CPU time of this process and its children, looked at every 10 s.")
RSS = Gauge("v2td_rss_bytes", "Resident memory of this process and its children.")

ADMIN_REJECTED = Counter(
    "v2td_admin_rejected_total",
    "Requests to the admin endpoint that its limits or checks refused.",
    ["reason"],  # host | rate | token | body | slow | malformed | connections
)

INTAKE_STOPPED = Gauge("v2td_intake_stopped", "1 while intake pauses because somebody asked for it (`v2td pause`).")
COMMANDS = Counter(
    "v2td_commands_total",
    "What people asked of jobs and of the intake, and this instance did.",
    ["command"],  # cancel | priority | pause | resume
)
SUBMISSIONS = Counter(
    "v2td_submissions_total",
    "Jobs that came by the API.",
    ["result"],  # ok | repeated | refused | failed
)
SUBMISSION_SECONDS = Histogram(
    "v2td_submission_seconds",
    "From the request to its answer, when Kafka has the job.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
WEBHOOKS = Counter(
    "v2td_webhooks_total",
    "Requests that told of an ended job.",
    ["result"],  # delivered | failed | dead
)
WEBHOOKS_WAITING = Gauge("v2td_webhooks_waiting", "Deliveries that nobody has taken yet, those of all instances.")
BACKLOG_ESTIMATED_SECONDS = Gauge(
    "v2td_backlog_estimated_audio_seconds",
    "Seconds of audio in the records behind: their number times the mean length of recent recordings.",
)
DRAIN_SECONDS = Gauge("v2td_drain_seconds", "How long the backlog takes at the present speed; NaN: not known.")
CORES_NEEDED = Gauge("v2td_cores_needed", "Busy cores that work the backlog off in an hour; NaN: not known.")
SPANS = Counter("v2td_spans_total", "Spans of traces.", ["result"])  # sent | lost
BUILD_INFO = Gauge("v2td_build_info", "Always 1: which version and model this is.", ["version", "model"])


def file_size_range(size_bytes: int) -> str:
    """Label value for TRANSCRIPTION_DURATION: 0-10MB, 10-100MB or 100MB+ (MB = 10^6 bytes)."""
    if size_bytes < 10 * MEGABYTE:
        return "0-10MB"
    return "10-100MB" if size_bytes < 100 * MEGABYTE else "100MB+"
