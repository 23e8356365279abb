import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tests.cli.conftest import Run
from v2td import __version__
from v2td.cli.app import app

COMMANDS = [
    ["run"],
    ["check"],
    ["demo"],
    ["submit"],
    ["transcribe"],
    ["cache", "info"],
    ["cache", "clear"],
    ["db", "upgrade"],
    ["db", "version"],
    ["model", "pull"],
    ["model", "list"],
    ["model", "path"],
    ["schema", "message"],
]
HEAVY = {"aiohttp", "aiokafka", "asyncpg", "av", "botocore", "ctranslate2", "faster_whisper", "numpy", "pydantic"}


def test_help_names_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f" {command[0]} " in result.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert "Usage: " in result.stdout
    assert ("--config" in result.stdout) == (command[0] not in {"demo", "schema"})


def test_help_loads_nothing_heavy() -> None:
    script = "import sys, v2td.cli.app; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert "typer" in loaded
    assert not HEAVY & set(loaded)


@pytest.mark.parametrize("arguments", [["--version"], ["--version", "run"]])
def test_version(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stdout) == (0, f"v2td {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["chekc"], "check"),
        (["check", "--set", "engine.slots"], "SECTION.KEY=VALUE"),
        (["submit"], "Missing argument"),
        (["submit", "--priority", "10", "http://a/b"], "--priority"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stdout == ""


def test_set_overrides_all_else() -> None:
    result = CliRunner().invoke(
        app,
        ["db", "version", "--set", "database.dsn=postgresql://u@127.0.0.1:1/x"],
        env={"V2TD_CONFIG": "/dev/null", "V2TD_DATABASE__DSN": "mysql://refused"},
    )
    assert result.exit_code == 1
    assert result.stderr.startswith("error: connect to Postgres")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("database.dsn=postgresql://u:hunter2@127.0.0.1:1/x", "database.dsn"),
        ("database.dsn=postgresql://127.0.0.1:1/x?user=u&password=hunter2", "database.dsn"),
        ("kafka.sasl_password=hunter2", "kafka.sasl_password"),
        ('fetch.hosts=[{pattern="a.example", bearer_token="hunter2"}]', "fetch.hosts[0].bearer_token"),
        ('fetch.hosts=[{pattern="a.example", headers={x="hunter2"}}]', "fetch.hosts[0].headers.x"),
    ],
)
def test_a_secret_on_the_command_line_is_refused(override: str, key: str) -> None:
    result = CliRunner().invoke(app, ["db", "version", "--set", override], env={"V2TD_CONFIG": "/dev/null"})
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {key} = **")
    assert "all users can read a command line: write file:/its/path, env:NAME or credential:NAME" in result.stderr
    assert "hunter2" not in result.output


def test_set_may_say_where_a_secret_lies() -> None:
    result = CliRunner().invoke(
        app,
        ["db", "version", "--set", "database.dsn=env:SOME_DSN", "--set", "database.read_dsn="],
        env={"V2TD_CONFIG": "/dev/null", "SOME_DSN": "postgresql://u:hunter2@127.0.0.1:1/x"},
    )
    assert result.exit_code == 1
    assert result.stderr.startswith("error: connect to Postgres")
    assert "hunter2" not in result.output


def test_all_wrong_settings_are_told_at_once() -> None:
    arguments = ["db", "version", "--set", "engine.slots=x", "--set", "engine.slot=4"]
    result = CliRunner().invoke(app, arguments, env={"V2TD_CONFIG": "/dev/null"})
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "engine.slots = 'x' (flag engine.slots)" in result.stderr
    assert "did you mean engine.slots?" in result.stderr


async def test_completion_completes(v2td: Run) -> None:
    answer = await v2td(_V2TD_COMPLETE="complete_bash", COMP_WORDS="v2td tra", COMP_CWORD="1")
    assert answer.stdout.split() == ["transcribe"]
