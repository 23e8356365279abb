"""Every command says how it is used, what its exit codes mean, and is in the generated documents."""

import re
import shlex
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from v2td.cli.app import EXIT_CODES, app
from v2td.cli.reference import FILES, Command, commands
from v2td.config.generated import outdated

WITHOUT_JSON = {"v2td run", "v2td transcribe", "v2td model pull", "v2td model path", "v2td schema message"}
COMMANDS_OF: Any = typer.main.get_command(app)  # made once: that takes a while
RENDERED = {name: render() for name, render in FILES.items()}
each_command = pytest.mark.parametrize("command", commands(), ids=lambda each: each.name)


def examples(command: Command) -> list[str]:
    """The commands in backticks behind `Example:`, without what they are piped into."""
    _, _, told = command.help.partition("Example")
    return [re.split(r" [|>] ", each)[0].removeprefix("sudo ") for each in re.findall(r"`([^`]+)`", told)]


def _resolved(arguments: list[str]) -> tuple[Any, list[str]]:
    """Return the command that the first words name, and the rest of them."""
    found, rest = COMMANDS_OF, list(arguments)
    while hasattr(found, "commands"):
        found = found.commands[rest.pop(0)]
    return found, rest


def test_committed_files_are_current() -> None:
    assert outdated(FILES) == [], "run: python -m v2td.cli.reference --write"


@each_command
def test_every_command_has_an_example_that_is_valid(command: Command) -> None:
    own = [each for each in examples(command) if each.startswith(command.name)]
    assert own, f"{command.name}: end its docstring with Example: `{command.name} …`"
    for example in own:
        _, *arguments = shlex.split(example)
        found, rest = _resolved(arguments)
        found.make_context(command.name, rest)  # wrong usage is an error


@each_command
def test_every_command_tells_its_exit_codes(command: Command) -> None:
    assert _resolved(command.name.split()[1:])[0].epilog == EXIT_CODES


def test_the_exit_codes_are_shown() -> None:
    result = CliRunner().invoke(app, ["dlq", "list", "--help"], env={"COLUMNS": "300"})
    assert result.exit_code == 0
    assert EXIT_CODES.replace("`", "") in result.stdout
    assert "\x1b" not in result.stdout, "colour, and this is no terminal"


def test_commands_answer_scripts_unless_there_is_nothing_to_say() -> None:
    without = {each.name for each in commands() if not any("--json" in names for names, _ in each.parameters)}
    assert without == WITHOUT_JSON


@each_command
def test_every_command_is_in_each_document(command: Command) -> None:
    assert f"\n## {command.name}\n" in RENDERED["docs/commands.md"]
    assert f"\n.SS {command.name.replace('-', chr(92) + '-')} " in RENDERED["docs/v2td.1"]


def test_no_text_is_taken_for_a_request_of_the_manual_page() -> None:
    for line in RENDERED["docs/v2td.1"].splitlines():
        assert re.match(r"\.(SH|SS|TH|TP|PP|B|I|\\\")(\s|$)", line) or not line.startswith((".", "'")), line
        assert re.sub(r"\\(?:f[BIR]|[-e&\"])", "", line).count("\\") == 0, line
