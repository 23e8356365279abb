"""The command line of the test services: ``python -m tests.services build|up|down|status|run -- COMMAND``."""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.services import stack, state
from tests.services.build import Builds, build
from tests.services.errors import ServiceError
from tests.services.state import DEFAULT_FILE, FILE_VARIABLE, FOLDER, Services

# How long a command that was asked to end may take before it is asked harder.
_PATIENCE_SECONDS = 15.0


def main(arguments: Sequence[str]) -> int:
    """Runs one subcommand and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.services", description="Real services for the tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build Kafka and MinIO into the cache, install what is missing (root on Debian)")
    commands.add_parser("up", help="start the services and leave them running")
    commands.add_parser("down", help="stop the services that `up` started, remove their data")
    commands.add_parser("status", help="say what runs and whether it answers")
    run = commands.add_parser("run", help="start a set of services, run a command, stop them")
    run.add_argument("rest", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    chosen = parser.parse_args(arguments)
    try:
        match chosen.command:
            case "build":
                build()
            case "up":
                _up()
            case "down":
                _down()
            case "status":
                return _status()
            case _:
                return _run(parser, chosen.rest)
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _up() -> None:
    builds = build()
    with state.locked(FOLDER / "lock"):
        stack.sweep()
        running = state.read(DEFAULT_FILE)
        if running and running.services and not asyncio.run(stack.unanswered(running.services)):
            print("the services are up already")
            return
        stack.down(DEFAULT_FILE)
        began = time.monotonic()
        services = asyncio.run(stack.up(builds, DEFAULT_FILE, owned=False))
        print(f"the services are up after {time.monotonic() - began:.1f} s; stop them with: make services-down")
        _describe(services)


def _down() -> None:
    with state.locked(FOLDER / "lock"):
        stack.sweep()
        stopped = stack.down(DEFAULT_FILE)
        print(f"stopped: {', '.join(stopped)}" if stopped else "nothing of ours was running")


def _status() -> int:
    """Exit status 0 when all three answer, else 3, as `systemctl status` has it."""
    running = state.read(DEFAULT_FILE)
    if running is None or running.services is None:
        print("the services are not up; start them with: make services-up")
        return 3
    silent = asyncio.run(stack.unanswered(running.services))
    for process in running.processes:
        print(f"{process.name:9} pid {process.pid:<8} {silent.get(process.name, 'answers')}")
    _describe(running.services)
    return 3 if silent else 0


def _describe(services: Services) -> None:
    print(f"  kafka     {services.kafka_bootstrap}")
    print(f"  postgres  {services.postgres_dsn}")
    print(f"  s3        {services.s3_endpoint}  key {services.s3_access_key}  secret {services.s3_secret_key}")
    print(f"  state     {DEFAULT_FILE}")


def _run(parser: argparse.ArgumentParser, rest: Sequence[str]) -> int:
    command = rest[1:] if rest[:1] == ["--"] else rest
    if not command:
        parser.error("run needs a command: run -- COMMAND")
    builds = build()
    with state.locked(FOLDER / "lock"):
        stack.sweep()
    return asyncio.run(_run_between(builds, command))


async def _run_between(builds: Builds, command: Sequence[str]) -> int:
    """Up, the command, down; the exit status is the command's, or 128 + the signal that ended us."""
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, number)
    file = FOLDER / f"run-{os.getpid()}.json"
    starting = asyncio.create_task(stack.up(builds, file, owned=True))
    received = asyncio.create_task(signals.get())
    try:
        await asyncio.wait({starting, received}, return_when=asyncio.FIRST_COMPLETED)
        if received.done():
            starting.cancel()
            await asyncio.wait({starting})
            return 128 + received.result()
        await starting
        received.cancel()
        return await _run_command(command, file, signals)
    finally:
        # Blocks the loop, and means to: nothing else runs now, and a second signal waits until all is down.
        stack.down(file)


async def _run_command(command: Sequence[str], file: Path, signals: asyncio.Queue[int]) -> int:
    """Runs ``command``, hands it the signals that reach us, and returns its exit status as a shell would."""
    try:
        child = await asyncio.create_subprocess_exec(*command, env={**os.environ, FILE_VARIABLE: str(file)})
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    ended = asyncio.create_task(child.wait())
    asked = False
    while not ended.done():
        received = asyncio.create_task(signals.get())
        patience = _PATIENCE_SECONDS if asked else None
        await asyncio.wait({ended, received}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            received.cancel()
        elif not received.done():
            received.cancel()
            child.kill()
        elif not asked and received.result() == signal.SIGINT:
            asked = True  # Ctrl-C reached the command too, as it shares our terminal; it is given time to end
        else:
            asked = True
            child.terminate()
    status = ended.result()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
