from collections.abc import Mapping
from typing import Any

import pytest
import uvloop

from tests.admin.serving import Daemon


def pytest_asyncio_loop_factories() -> Mapping[str, Any]:
    """The daemon runs on uvloop, and sockets are where loops differ."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()
