"""The HTTP endpoint for machines: /metrics, /livez, /readyz, /status.

In: questions over HTTP. Out: what the daemon's `View` says. Blocks on nothing.
"""

from v2td.admin.server import View, serve

__all__ = ["View", "serve"]
