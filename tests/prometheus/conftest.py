"""The daemons of tests/daemon, for a Prometheus to scrape."""

from tests.daemon.conftest import flaky, recordings_server, world

__all__ = ["flaky", "recordings_server", "world"]
