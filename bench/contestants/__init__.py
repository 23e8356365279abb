"""Who takes part in the benchmark: each takes the same recordings and gives back their text.

In: clips. Out: a `Heard`. Two kinds: consumers (original, optimized, v2td) read Kafka, download, and write to
Postgres; programs (engine, raw, batched, whisper_cpp) are told files and answer with texts. All run as processes of
their own that are ready, with their models loaded, before a clock starts.
"""

from bench.contestants.consumers import Arena, arena, daemon_config, optimized, original, v2td_daemon
from bench.contestants.contestant import Contestant, ContestError, Heard
from bench.contestants.program import program

__all__ = [
    "Arena",
    "ContestError",
    "Contestant",
    "Heard",
    "arena",
    "daemon_config",
    "optimized",
    "original",
    "program",
    "v2td_daemon",
]
