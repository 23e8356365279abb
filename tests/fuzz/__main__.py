"""`make fuzz`: every target, or those that are named, for so many seconds each."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fuzz.campaign import fuzz
from tests.fuzz.findings import FINDINGS
from tests.fuzz.seeds import MAX_BYTES, seeds, words
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Return 1 when a target broke."""
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=…", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all when none is named")
    parser.add_argument("--seconds", type=int, default=300, help="for each target (300)")
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"), help="keeps what was learnt (build/fuzz)")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}")
    broken = [
        name
        for name in arguments.targets or TARGETS
        if not _holds(name, seconds=arguments.seconds, folder=arguments.folder)
    ]
    return 1 if broken else 0


def _holds(name: str, *, seconds: int, folder: Path) -> bool:
    print(f"{name}: {seconds} s …", flush=True)
    report = fuzz(
        TARGETS[name],
        seconds,
        folder,
        seeds=[*seeds(name), *FINDINGS[name].values()],
        words=words(name),
        max_bytes=MAX_BYTES[name],
    )
    if report.finding is None:
        print(f"{name}: {report.inputs} inputs, {report.branches} branches, nothing found")
        return True
    print(report.output[-4000:])
    print(f"{name}: BROKEN by {report.finding!r}\nmend it, then put this into tests/fuzz/findings.py")
    return False


if __name__ == "__main__":
    sys.exit(main())
