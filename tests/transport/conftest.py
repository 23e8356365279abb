"""A certificate authority for each test module."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from tests.transport.certificates import Certificates, make


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The daemon runs on uvloop, and TLS is where loops differ."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make(tmp_path_factory.mktemp("certificates"))
