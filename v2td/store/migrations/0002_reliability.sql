-- Finished windows of jobs that are under way; the transaction that writes the outcome deletes them.
CREATE TABLE window_results (
    id uuid NOT NULL,                       -- the job's
    "window" integer NOT NULL,              -- its index in the job
    options_sha256 text NOT NULL,           -- hex; audio, samples, model and options: all that decides the text
    result jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, "window", options_sha256)
);

-- How often a job killed a child process: it outlives the daemon, and the outcome deletes it.
CREATE TABLE child_deaths (
    id uuid PRIMARY KEY,
    deaths integer NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now()
);

-- Records that replayed a failure and are done: the outcome has the failure's id and coordinates, not theirs.
CREATE TABLE replays (
    record_id uuid PRIMARY KEY,             -- Coordinates.row_id() of the replaying record
    replay_of uuid NOT NULL,
    cluster_id text NOT NULL,
    topic text NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    record_sha256 text NOT NULL,            -- hex; of key and value
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX replays_coordinates ON replays (cluster_id, topic, kafka_partition, kafka_offset, record_id);
CREATE INDEX replays_of ON replays (replay_of);

-- The record's time as Kafka has it (-1 for none), which takes part in the id: a timestamptz holds not every one.
-- NULL in rows of before.
ALTER TABLE failures ADD COLUMN record_timestamp_ms bigint;

-- With the id: what is done from an offset on is then read from the index alone, in order and in pages.
DROP INDEX transcriptions_coordinates, failures_coordinates;
CREATE INDEX transcriptions_coordinates ON transcriptions (cluster_id, topic, kafka_partition, kafka_offset, id);
CREATE INDEX failures_coordinates ON failures (cluster_id, topic, kafka_partition, kafka_offset, id);
