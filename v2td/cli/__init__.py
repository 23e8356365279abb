"""The command line: one file per command group, no logic.

In: arguments. Out: text on stdout, everything else on stderr, and an exit code: 0 done, 1 not done (`error: …` says
why), 2 wrong usage, 130 interrupted. Each command imports what it needs when it runs, so that `--help` is quick.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command that the arguments name, and exit; the entry point `v2td`."""
    from v2td.cli.app import app

    app(prog_name="v2td")
