"""`make audit` tells holes, and never takes an index that knows nothing for a clean bill."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests import audit

ROOT = Path(__file__).parents[1]
GOOD: dict[str, Any] = {"name": "a", "version": "1", "vulns": []}
SILENT = {"name": "b", "skip_reason": "Dependency not found and could not be audited: b (1)"}
BAD = {
    "name": "c",
    "version": "2",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}, {"id": "X", "fix_versions": []}],
}


def test_holes_are_named_with_their_cure() -> None:
    lines, holes = audit.judge({"dependencies": [GOOD, BAD]})
    assert holes == 2
    assert lines[:2] == ["c 2: PYSEC-1, mended in 3", "c 2: X, mended in no version"]
    assert lines[-1] == "advisories: 2 of 2 packages looked up, 2 holes"


def test_silence_is_no_clean_bill() -> None:
    lines, holes = audit.judge({"dependencies": [SILENT, GOOD]})
    assert holes == 0
    assert lines == [
        "advisories: 1 of 2 packages looked up, 0 holes",
        "the package index gives no advisories for the others: ask again where it does",
    ]


def test_the_bill_is_without_noise() -> None:
    bill = {"components": [{"name": "a", "description": "requirements line 1: a==1 --hash=…"}]}
    assert audit.tidy(bill) == {"components": [{"name": "a"}]}


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-demo.txt", "constraints-dev.txt"])
def test_every_version_has_its_hashes(name: str) -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / ".ci" / name).read_text().strip())
    assert len(entries) > 20
    for entry in entries:
        assert re.match(r"[\w.-]+==\S+ ", entry), entry[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:80]
