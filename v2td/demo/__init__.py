"""The tour: an embedded broker, an embedded Postgres, a web server, and the real daemon between them.

In: the options of `v2td demo`. Out: what was heard, as a table or as one JSON object, and an exit code. It blocks
on everything, since it is a program of its own above the daemon; whatever it starts ends with it, even by kill -9,
and nothing outside a temporary folder is touched. Needs the extra `demo`.
"""

from v2td.demo.app import Options, main
from v2td.demo.session import Session, session

__all__ = ["Options", "Session", "main", "session"]
