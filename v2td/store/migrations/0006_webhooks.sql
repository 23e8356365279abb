-- POST requests that tell of ended jobs: noted before the offset is committed, sent until somebody takes them.
CREATE TABLE webhooks (
    id uuid PRIMARY KEY,                    -- made of job, revision, event and URL: the header webhook-id
    job uuid NOT NULL,
    revision integer NOT NULL,
    event text NOT NULL,                    -- transcribed | failed
    url text NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'dead')),
    attempts integer NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL DEFAULT now(),
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);
CREATE INDEX webhooks_waiting ON webhooks (next_at) WHERE state = 'waiting';
CREATE INDEX webhooks_job ON webhooks (job);
CREATE INDEX webhooks_created_at ON webhooks (created_at);
