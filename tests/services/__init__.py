"""Real services for the tests: Kafka 4, PostgreSQL and MinIO on free ports of 127.0.0.1.

``python -m tests.services up`` leaves them running for development and writes what they are called into
``.services/default.json``; ``down`` stops exactly what ``up`` started; ``run -- CMD`` gives one command a set of its
own and always takes it down again.  Builds live in ``$XDG_CACHE_HOME/v2td``, data in a fresh temporary folder, logs
in ``.services/logs``.

One module per service (``kafka``, ``minio``, ``postgres``); each can prepare a data folder and launch a server on it,
so that a test may also have a server of its own to kill and start again.
"""
