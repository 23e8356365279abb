"""`v2td debug bundle` where nothing answers: it is made all the same, and overwrites nothing."""

from __future__ import annotations

import json
import stat
import tarfile
from pathlib import Path

from typer.testing import CliRunner

from v2td.cli.app import app

NOWHERE = ("--set", "kafka.bootstrap_servers=127.0.0.1:1", "--set", "database.dsn=postgresql://nobody@127.0.0.1:1/none")


def test_what_cannot_be_had_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    done = CliRunner().invoke(
        app, ["debug", "bundle", *NOWHERE, "--output", str(file), "--admin", "http://127.0.0.1:1"]
    )
    assert done.exit_code == 0, done.output
    assert "not in it: status.json: " in done.stderr
    assert "look into it before you send it" in done.stdout
    with tarfile.open(file) as archive:
        names = archive.getnames()
        member = archive.extractfile("v2td-debug/manifest.json")
        assert member is not None
        manifest = json.load(member)
    assert {"v2td-debug/config.json", "v2td-debug/versions.json", "v2td-debug/host.json"} <= set(names)
    errors = {each["name"]: each["error"] for each in manifest["parts"]}
    assert errors["config.json"] is None
    for name in ("tables.json", "group.json", "metrics.txt"):
        assert errors[name]
        assert f"v2td-debug/{name}" not in names
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    before = file.read_bytes()
    again = CliRunner().invoke(app, ["debug", "bundle", *NOWHERE, "--output", str(file)])
    assert again.exit_code == 1
    assert "--output" in again.stderr
    assert file.read_bytes() == before
