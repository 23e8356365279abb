"""All tests; what failed in company is run once more alone.

Three workers and the servers of tests share two cores, so that a test may lose a race against the machine.  Those that
failed, if they are few, run again with nothing beside them: one that fails again fails the run, one that passes is
named.  A defect that shows only under load can hide behind this, which is why the names are the last thing said.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path("build/tests")
FEW = 4  # more at once are no accident


def main(arguments: list[str]) -> int:
    """Runs pytest with the arguments; returns its exit code, or that of the second run."""
    shutil.rmtree(CACHE, ignore_errors=True)
    code = _pytest(arguments)
    failed = _failed()
    if code != 1 or not 0 < len(failed) <= FEW:
        return code
    print(f"\nonce more, alone: {len(failed)} of the tests failed", flush=True)
    code = _pytest(failed)
    if code == 0:
        print("\nfailed beside others and passed alone:", *failed, sep="\n  ", flush=True)
    return code


def _pytest(arguments: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={CACHE}", *arguments]
    return subprocess.run(command, check=False).returncode


def _failed() -> list[str]:
    """The tests, by name, that failed in the last run; of none when it could not tell."""
    try:
        return sorted(json.loads((CACHE / "v/cache/lastfailed").read_text()))
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
