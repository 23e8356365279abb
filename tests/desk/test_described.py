"""Schemathesis asks the jobs API by its description, with what fits it and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.admin.test_description import schemathesis
from tests.desk.conftest import TOKEN, Office, filled, served

# What a schema cannot say makes a fitting request wrong: languages that contradict each other, a model that nobody has,
# a job that is unknown, a key that stood for another request. What is there after DELETE is a job that was cancelled.
SETTINGS = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "413", "422", "503"]
use_after_free.enabled = false
"""
OPTIONS = ("--include-path-regex", "^/v1/", "--phases", "coverage,fuzzing", "--max-examples", "4")


@pytest.mark.slow
async def test_schemathesis_finds_nothing_in_the_jobs_api(office: Office, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    await filled(office)
    async with office.desk() as desk, served(desk, requests_per_second=10_000) as session:
        said = await schemathesis(str(session._base_url), tmp_path, "-H", f"Authorization: Bearer {TOKEN}", *OPTIONS)
    assert "Tested: 12" in said
    assert await office.records()
