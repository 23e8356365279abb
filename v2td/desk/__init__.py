"""The desk: who comes by HTTP hands in jobs, asks what became of them, and says what is to be done about them.

In: bodies of requests and ids. Out: records in Kafka, commands in Postgres, and what is known of jobs. Blocks on
Postgres and the brokers, for a bounded time.
"""

from v2td.desk.desk import Desk

__all__ = ["Desk"]
