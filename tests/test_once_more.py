"""What runs once more alone, in `make test`: a few failures, once, and never what fails again."""

from pathlib import Path

import pytest

from tests import __main__ as main

FIRST_TIME_ONLY = """
from pathlib import Path

def test_first_time_only():
    mark = Path(__file__).with_name("mark")
    there = mark.exists()
    mark.touch()
    assert there
"""
ALWAYS = "def test_always(): assert False"
MANY = "import pytest\n@pytest.mark.parametrize('n', range(5))\ndef test_many(n): assert False"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("tests", "code", "again"),
    [
        ("def test_good(): pass", 0, False),
        (FIRST_TIME_ONLY, 0, True),
        (ALWAYS, 1, True),
        (FIRST_TIME_ONLY + ALWAYS, 1, True),
        (MANY, 1, False),
        ("def test_(: ", 2, False),
    ],
    ids=["good", "first time only", "always", "one of two", "many", "no tests at all"],
)
def test_once_more(tests: str, code: int, again: bool, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (home / "test_it.py").write_text(tests)
    assert main.main(["-q", "test_it.py"]) == code
    told = capfd.readouterr().out
    assert ("once more, alone" in told) is again
    assert ("passed alone:\n  test_it.py::test_first_time_only" in told) is (again and code == 0)
