"""What the downloads of these tests are made of, and what becomes of them."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from v2td.errors import ErrorClass, JobError, TransientJobError
from v2td.fetch import Downloader

BODY = os.urandom(700_000)


Spooled = Callable[[], list[Path]]


class FlippingResolver(AbstractResolver):
    """Names that mean something else each time they are asked for; the last answer stays."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        pass


async def failure(downloader: Downloader, url: str) -> JobError:
    with pytest.raises(JobError) as caught:
        await downloader.fetch(url)
    return caught.value


def is_permanent(error: JobError, error_class: ErrorClass) -> bool:
    return error.error_class is error_class and not isinstance(error, TransientJobError)


def is_transient(error: JobError, error_class: ErrorClass) -> bool:
    return error.error_class is error_class and isinstance(error, TransientJobError)
