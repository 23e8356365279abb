"""Webhooks: whoever wants to know is told of ended jobs, by POST requests signed as Standard Webhooks has it.

In: that a job has ended. Out: rows of `webhooks`, durable when `Webhooks.note` returns, and requests, sent by `run` of
any instance until somebody takes them. `note` blocks on Postgres for as long as it is away; `run` holds up nobody. What
is sent is made of the rows when it is sent.
"""

from v2td.webhooks.post import Answer, Poster
from v2td.webhooks.webhooks import Ending, Webhooks

__all__ = ["Answer", "Ending", "Poster", "Webhooks"]
