"""Every input but the slow ones has its fate, through real daemons; `make corpus` tells of each, and its memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from rich.progress import Progress

from tests.corpus.programme import run_all
from tests.services.state import Services
from v2td import bundled


@pytest.mark.slow
@pytest.mark.timeout(300)  # on a machine that does something else as well
async def test_every_input_has_its_fate(services: Services, tmp_path: Path) -> None:
    bundled.model_folder()  # built before any daemon waits for it
    with Progress(disable=True) as progress:
        ran = await run_all(services, tmp_path / "corpus", progress, quick=True)
    assert not ran.problems, "\n".join(ran.problems)
    assert len(ran.got) > 300
    assert not ran.reached
    assert asyncio.all_tasks() == {asyncio.current_task()}
