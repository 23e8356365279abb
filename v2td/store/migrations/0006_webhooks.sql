-- POST requests that tell of ended jobs: noted before the offset is committed, sent until somebody takes them.
CREATE TABLE webhooks (
    id uuid PRIMARY KEY,                    -- made of the record that asked, job, revision, event and URL: webhook-id
    job uuid NOT NULL,
    revision integer NOT NULL,
    event text NOT NULL CHECK (event IN ('transcribed', 'failed')),
    url text NOT NULL,                      -- whole: its query may hold a secret, show it without
    host text COLLATE "C" NOT NULL,         -- of the URL, with its port: few requests are under way to one at a time
    metadata jsonb,                         -- of a job that failed, whose row has none
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'dead')),
    attempts integer NOT NULL DEFAULT 0,    -- begun so far, since the last `v2td webhooks retry`
    next_at timestamptz NOT NULL DEFAULT now(),  -- while a request is under way, when others may take it over
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);
CREATE INDEX webhooks_waiting ON webhooks (host, next_at) WHERE state = 'waiting';
CREATE INDEX webhooks_job ON webhooks (job);
CREATE INDEX webhooks_created_at ON webhooks (created_at);
