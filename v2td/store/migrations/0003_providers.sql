-- Who transcribed, and why: the rule that chose, and what kept each other rule from choosing. NULL: nothing was asked.
ALTER TABLE transcriptions ADD COLUMN route jsonb;
-- What the provider charges, in the currency of the configuration; NULL: nothing.
ALTER TABLE transcriptions ADD COLUMN cost double precision;

-- What the message said and no other column tells, such as its prompt: `v2td redo` asks for the same. NULL in rows of
-- before.
ALTER TABLE transcriptions ADD COLUMN request jsonb;

-- Transcriptions that are to be done again as another revision (`v2td redo`): noted before their records are sent.
CREATE TABLE redos (
    id uuid NOT NULL,                       -- the transcription's
    revision integer NOT NULL,              -- that is to come
    model text,
    provider text,
    record_sha256 text NOT NULL,            -- hex; of key and value of the record that may ask for it
    sent_at timestamptz,                    -- NULL: Kafka has not taken the record yet
    failed text,                            -- why there will be no such revision
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, revision)
);

-- With the time: of all rows of a recording the newest is then read from the index, however many there are.
DROP INDEX transcriptions_content;
CREATE INDEX transcriptions_content ON transcriptions (audio_sha256, options_sha256, created_at);
