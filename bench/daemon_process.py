"""`python -m bench.daemon_process --config FILE`: the daemon as `v2td run` has it, with some rooms replaced.

--constant fetch decode: those rooms answer with constants. --engine-factor F: the engine only sleeps, F seconds per
second of audio (0: not at all). --default-gc: garbage is collected as Python has it by itself. --lag FILE: when
(time.monotonic()) a timer was due and how late it was, each time, go there as JSON at the end. --profile FILE:
cProfile's statistics of the whole run.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
from pathlib import Path

import uvloop

from bench.stand_ins import ConstantDecoders, ConstantDownloader, sleeping
from v2td import config, daemon, duties, logs, opening

LAG_SECONDS = 0.005  # how often the loop is asked; libuv's timers know whole milliseconds


async def _main(loaded: config.LoadedConfig, lags: list[tuple[float, float]] | None) -> None:
    probe = asyncio.create_task(_measure_lag(lags)) if lags is not None else None
    try:
        await daemon.run(loaded)
    finally:
        if probe is not None:
            probe.cancel()


async def _measure_lag(lags: list[tuple[float, float]]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        lags.append((due, max(0.0, loop.time() - due)))


def _nothing() -> None:
    """Tune nothing."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--constant", nargs="*", choices=("fetch", "decode"), default=())
    parser.add_argument("--engine-factor", type=float)
    parser.add_argument("--default-gc", action="store_true")
    parser.add_argument("--lag", type=Path)
    parser.add_argument("--profile", type=Path)
    return parser.parse_args()


def _replaced(arguments: argparse.Namespace) -> dict[str, type]:
    """Return stand-ins by the names under which the daemon makes its rooms: the rest of it stays as it is."""
    rooms: dict[str, type] = {}
    if "fetch" in arguments.constant:
        rooms["Downloader"] = ConstantDownloader
    if "decode" in arguments.constant:
        rooms["Decoders"] = ConstantDecoders
    if arguments.engine_factor is not None:
        rooms["Engine"] = sleeping(arguments.engine_factor)
    return rooms


def main() -> None:
    """Run until SIGTERM."""
    arguments = _arguments()
    for name, room in _replaced(arguments).items():
        assert hasattr(opening, name), "where the daemon opens its rooms"
        setattr(opening, name, room)
    loaded = config.load(arguments.config, environ={})
    logs.configure(loaded.settings.log.level, loaded.settings.log.format)
    lags: list[tuple[float, float]] | None = [] if arguments.lag else None
    profile = cProfile.Profile() if arguments.profile else None
    if arguments.default_gc:
        duties.tune_garbage_collection = _nothing
    if profile:
        profile.enable()
    uvloop.run(_main(loaded, lags))
    if profile:
        profile.disable()
        profile.dump_stats(arguments.profile)
    if lags is not None:
        arguments.lag.write_text(json.dumps(lags))


if __name__ == "__main__":
    main()
