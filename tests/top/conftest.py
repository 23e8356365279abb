"""The daemons of tests/daemon and the command of tests/cli, for tests of `v2td top`."""

from tests.cli.conftest import v2td
from tests.daemon.conftest import flaky, recordings_server, world

__all__ = ["flaky", "recordings_server", "v2td", "world"]
