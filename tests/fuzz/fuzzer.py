"""The process in which a target is fuzzed: `python -m tests.fuzz.fuzzer MODULE:FUNCTION [libFuzzer's options]`.

libFuzzer ends its process, at the first finding and at the end of its time.
"""

from __future__ import annotations

import pkgutil
import sys

import atheris  # type: ignore[import-untyped]  # comes without types

JUDGED = ["v2td.messages", "v2td.fetch.urls", "v2td.fetch.guard", "v2td.speech.demux"]  # whose branches are counted


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=JUDGED):
        target = pkgutil.resolve_name(name)
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
