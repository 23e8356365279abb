from __future__ import annotations

import pytest
from typer.testing import CliRunner

from v2td.cli import demo as module
from v2td.cli.app import app


def test_help_answers() -> None:
    result = CliRunner().invoke(app, ["demo", "--help"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    for flag in ("--once", "--json", "--keep"):
        assert flag in result.output


def test_without_the_extra_it_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXTRA_PACKAGES", (*module.EXTRA_PACKAGES, "a_package_that_is_not_there"))
    assert CliRunner().invoke(app, ["demo", "--help"]).exit_code == 0
    result = CliRunner().invoke(app, ["demo", "--once"])
    assert result.exit_code == 1
    assert "pip install 'v2td[demo]'" in result.output
    assert "a_package_that_is_not_there" in result.output
