from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.admin.serving import Daemon
from tests.admin.speaking import Told
from v2td.fetch.spool import Spool


def pytest_asyncio_loop_factories() -> Mapping[str, Any]:
    """The daemon runs on uvloop, and sockets are where loops differ."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    with Spool(tmp_path) as spool:
        yield Told(spool)
