-- What people ask of jobs under way and of the intake: every instance reads it, and is woken by NOTIFY v2td_commands.
CREATE TABLE job_commands (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    command text NOT NULL CHECK (command IN ('cancel', 'priority', 'pause', 'resume')),
    job uuid,                               -- of cancel and priority: a row's id
    priority integer CHECK (priority BETWEEN 0 AND 9),
    group_id text,                          -- of pause and resume: the consumer group
    instance text,                          -- of pause and resume: as in `instances`; NULL: the whole group
    actor text NOT NULL,                    -- who asked, as far as it is known: api, page, cli user@host
    done_at timestamptz,                    -- of cancel and priority: when the job had its outcome, or was asked for anew
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((job IS NOT NULL) = (command IN ('cancel', 'priority'))),
    CHECK ((group_id IS NOT NULL) = (command IN ('pause', 'resume'))),
    CHECK ((priority IS NOT NULL) = (command = 'priority')),
    CHECK (instance IS NULL OR group_id IS NOT NULL)
);
CREATE INDEX job_commands_job ON job_commands (job) WHERE job IS NOT NULL;
CREATE INDEX job_commands_open ON job_commands (id) WHERE done_at IS NULL AND job IS NOT NULL;
CREATE INDEX job_commands_words ON job_commands (group_id, id) WHERE group_id IS NOT NULL;

-- Every act that changes something, whoever did it and however it went. Nothing is ever deleted from it by v2td.
CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,                   -- cancel, priority, pause, resume, replay, drop, redo, submit, …
    target text,                            -- a job's id, an instance, …; NULL: the group, or several jobs
    details jsonb NOT NULL DEFAULT '{}',
    error text                              -- why it was not done; NULL: it was
);
CREATE INDEX audit_log_at ON audit_log (at);
CREATE INDEX audit_log_target ON audit_log USING hash (target);
