-- Jobs that came by the API: what they asked for may be asked again with the same key, and is not done twice.
CREATE TABLE submissions (
    idempotency_key text PRIMARY KEY,       -- the caller's, or one of ours
    request_sha256 text NOT NULL,           -- hex; the same key with another request is an error
    id uuid,                                -- the job's; NULL: Kafka has not acknowledged it yet
    job_id text,                            -- the message's own id
    audio_url text NOT NULL,                -- no credentials, no query
    topic text NOT NULL,
    kafka_partition integer,
    kafka_offset bigint,
    held_at timestamptz NOT NULL DEFAULT now(), -- when an instance last said that it is sending the record
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX submissions_id ON submissions (id);
CREATE INDEX submissions_job_id ON submissions USING hash (job_id);
CREATE INDEX submissions_created_at ON submissions (created_at);
