"""Runs a target in its fuzzer, for so long, on a corpus that grows, and tells what came of it."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

INPUT_SECONDS = 20  # an input of a few kilobytes that takes longer is a finding
RSS_MB = 1500  # or more memory
START_SECONDS = 60  # to import, on a busy machine


@dataclass(frozen=True, slots=True)
class Report:
    """What a campaign did: inputs tried, branches reached, the input that broke the target, what libFuzzer said."""

    inputs: int
    branches: int
    finding: bytes | None
    output: str


def fuzz(
    target: Callable[[bytes], None], seconds: int, folder: Path, *, seeds: Sequence[bytes], words: str, max_bytes: int
) -> Report:
    """Fuzz a target, a function of a module; its corpus and what it finds stay below `folder`."""
    corpus = folder / target.__name__
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (corpus / hashlib.sha256(seed).hexdigest()).write_bytes(seed)
    dictionary = folder / f"{target.__name__}.words"
    dictionary.write_text(words)
    artifact = folder / f"{target.__name__}.finding"
    artifact.unlink(missing_ok=True)
    ended = _run(
        [
            *(sys.executable, "-m", "tests.fuzz.fuzzer", f"{target.__module__}:{target.__name__}", str(corpus)),
            *(f"-dict={dictionary}", f"-max_total_time={seconds}", f"-timeout={INPUT_SECONDS}"),
            *(f"-rss_limit_mb={RSS_MB}", f"-max_len={max_bytes}", f"-exact_artifact_path={artifact}"),
            "-print_final_stats=1",
        ],
        seconds + INPUT_SECONDS + START_SECONDS,
    )
    output = ended.stdout.decode(errors="replace")
    finding = artifact.read_bytes() if artifact.exists() else None
    inputs, branches = (
        int(numbers[-1]) if (numbers := re.findall(pattern, output)) else 0
        for pattern in (r"stat::number_of_executed_units: (\d+)", r" cov: (\d+)")
    )
    if finding is None and (ended.returncode != 0 or not inputs):
        raise RuntimeError(f"the fuzzer of {target.__name__} ended with {ended.returncode}:\n{output[-3000:]}")
    return Report(inputs, branches, finding, output)


def _run(command: list[str], seconds: float) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.output or b"").decode(errors="replace")
        raise RuntimeError(f"the fuzzer did not end within {seconds:g} s:\n{said[-3000:]}") from None
