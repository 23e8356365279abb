-- Column names are a contract. All times are the server's; durations are seconds.

CREATE TABLE transcriptions (
    id uuid NOT NULL,                       -- Coordinates.row_id(): what the CLI and the API call JOB
    revision integer NOT NULL DEFAULT 0,    -- 0 from Kafka; a later re-transcription adds one
    job_id text,                            -- the message's own id, not unique
    cluster_id text NOT NULL,
    topic text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    record_index integer NOT NULL,          -- tells the jobs of one record apart
    record_timestamp timestamptz,           -- NULL when the record has none, or one beyond year 9999
    tenant text,
    audio_url text NOT NULL,                -- no credentials, no query
    audio_sha256 text NOT NULL,             -- hex
    options_sha256 text NOT NULL,           -- hex; everything but the audio that decides the text
    audio_bytes bigint NOT NULL,
    audio_seconds double precision NOT NULL,
    speech_seconds double precision NOT NULL,
    language text,
    language_probability double precision,
    task text NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    text text NOT NULL,
    duration double precision NOT NULL,     -- processing, from the start of the download
    timings jsonb NOT NULL,                 -- seconds per stage up to hand-over, and `windows`
    speech_coverage_ratio double precision, -- NULL when there is no speech
    truncated boolean NOT NULL,
    cached_from uuid,                       -- the transcription whose text this is
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, revision)
);
CREATE INDEX transcriptions_coordinates ON transcriptions (cluster_id, topic, kafka_partition, kafka_offset);
CREATE INDEX transcriptions_content ON transcriptions (audio_sha256, options_sha256);
-- Looked up by equality only; a hash has no longest key, so no producer's id can be too long for it.
CREATE INDEX transcriptions_job_id ON transcriptions USING hash (job_id);
CREATE INDEX transcriptions_created_at ON transcriptions (created_at);

-- One partition per UTC month, made ahead by the daemon (store/partitions.py). There is no default partition:
-- rows in it would stop the month's own partition from being made.
CREATE TABLE transcript_segments (
    transcription_id uuid NOT NULL,
    revision integer NOT NULL,
    segment_index integer NOT NULL,
    channel integer,
    speaker text,
    start_seconds double precision NOT NULL,
    end_seconds double precision NOT NULL,
    text text NOT NULL,
    avg_logprob double precision NOT NULL,
    no_speech_prob double precision NOT NULL,
    compression_ratio double precision NOT NULL,
    temperature double precision NOT NULL,
    words jsonb,                            -- [{start, end, word, probability}] when the job asked for them
    created_at timestamptz NOT NULL,        -- that of its transcription's row
    PRIMARY KEY (transcription_id, revision, segment_index, created_at)
) PARTITION BY RANGE (created_at);

CREATE TABLE failures (
    id uuid PRIMARY KEY,
    job_id text,
    cluster_id text NOT NULL,
    topic text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    record_index integer NOT NULL,
    record_timestamp timestamptz,
    audio_url text,
    error_class text NOT NULL,
    reason text NOT NULL,
    attempts integer NOT NULL,
    record_key bytea,                       -- the record's key, value and headers, each cut at 64 KiB:
    payload bytea,                          -- the dead letter has them whole
    headers jsonb NOT NULL,                 -- [[name, "text" or {"base64": "…"}]]
    replay_state text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX failures_coordinates ON failures (cluster_id, topic, kafka_partition, kafka_offset);
CREATE INDEX failures_job_id ON failures USING hash (job_id);
CREATE INDEX failures_created_at ON failures (created_at);

CREATE TABLE instances (
    name text PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    slots integer NOT NULL,
    cpu_seconds double precision NOT NULL,  -- of the daemon and its children
    rss_bytes bigint NOT NULL,
    partitions text[] NOT NULL,             -- assigned to it, as topic/partition
    seen_at timestamptz NOT NULL DEFAULT now()
);
