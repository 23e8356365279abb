"""The tables of the first seed's consumers; `job_id` and `status` are how the benchmark sees that one is done."""

COMPLETED = "completed"

SCHEMA = """
    CREATE TABLE transcripts (
        id uuid PRIMARY KEY,
        job_id text NOT NULL,
        audio_url text NOT NULL,
        language text NOT NULL,
        duration double precision NOT NULL,
        full_text text NOT NULL,
        status text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE transcript_segments (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        transcript_id uuid NOT NULL REFERENCES transcripts,
        segment_index integer NOT NULL,
        start_time double precision NOT NULL,
        end_time double precision NOT NULL,
        text text NOT NULL,
        avg_logprob double precision NOT NULL
    );
    CREATE INDEX ON transcript_segments (transcript_id);
"""
