"""Children that a stranger took over answer with what would take us over."""

import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from v2td.child import Child, ChildDied
from v2td.errors import ErrorClass, JobError
from v2td.jobs import Span
from v2td.speech.decode_worker import Piece

KNOWN = (Piece, Span, JobError, ErrorClass)

# In the child: what it answers with is no longer what the function returned, but these bytes.
ANSWER_WITH = """
import gc
from multiprocessing.queues import SimpleQueue
(results,) = (each for each in gc.get_objects() if isinstance(each, SimpleQueue))
results._writer.send_bytes(content)
import time
time.sleep(60)
"""


class _Runs:
    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def echo(value: object) -> tuple[Callable[..., None], str, dict[str, object]]:
    return exec, "raise value", {"value": value}


async def test_known_classes_come_through() -> None:
    piece = Piece(((Span(1, 2),), ()), 3, 4, 0, 0.5, last=True)
    async with Child("child", int, answers=KNOWN) as child:
        assert await child.call(eval, "piece", {"piece": piece}, deadline_seconds=5) == piece
        assert await child.call(os.getpid, deadline_seconds=5) == child.pid
        with pytest.raises(JobError, match="no") as caught:
            await child.call(*echo(JobError(ErrorClass.TOO_LONG, "no")), deadline_seconds=5)
        assert caught.value.error_class is ErrorClass.TOO_LONG
        with pytest.raises(ValueError, match="invalid literal"):
            await child.call(int, "x", deadline_seconds=5)


async def test_everything_else_ends_the_child_and_builds_nothing(tmp_path: Path) -> None:
    bait = tmp_path / "bait"
    evil = [
        pickle.dumps(_Runs(os.system, f"touch {bait}")),
        pickle.dumps(_Runs(subprocess.check_output, ["touch", str(bait)])),
        pickle.dumps(_Runs(eval, f"open({str(bait)!r}, 'w')")),
        pickle.dumps(_Runs(exec, f"open({str(bait)!r}, 'w')")),
        pickle.dumps(_Runs(getattr, "x", "upper")),
        pickle.dumps(SystemExit(1)),
        pickle.dumps(KeyboardInterrupt()),
        pickle.dumps(tmp_path),
        pickle.dumps(7),
        b"no pickle at all",
        b"",
    ]
    async with Child("child", int, answers=KNOWN) as child:
        for content in evil:
            with pytest.raises(ChildDied, match="died"):
                await child.call(exec, ANSWER_WITH, {"content": content}, deadline_seconds=20)
            assert not bait.exists()
            await child.restart()
        assert await child.call(os.getpid, deadline_seconds=5) == child.pid


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the executor expects no number
async def test_without_the_list_the_bait_is_taken(tmp_path: Path) -> None:
    """Else the test above would prove nothing."""
    bait = tmp_path / "bait"
    async with Child("child", int) as child:
        content = pickle.dumps(_Runs(os.system, f"touch {bait}"))
        with pytest.raises(ChildDied):
            await child.call(exec, ANSWER_WITH, {"content": content}, deadline_seconds=3)
    assert bait.exists()


async def test_an_endless_answer_is_not_waited_for() -> None:
    header = """
import gc, os, struct
from multiprocessing.queues import SimpleQueue
(results,) = (each for each in gc.get_objects() if isinstance(each, SimpleQueue))
os.write(results._writer.fileno(), struct.pack("!i", -1) + struct.pack("!Q", 1 << 40))
import time
time.sleep(60)
"""
    async with Child("child", int, answers=KNOWN) as child:
        with pytest.raises(ChildDied, match="died"):
            await child.call(exec, header, {}, deadline_seconds=20)


READ_ENVIRONMENT = "raise ValueError(open('/proc/self/environ', 'rb').read() + repr(__import__('os').environ).encode())"


async def test_our_secrets_are_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("V2TD_KAFKA__SASL_PASSWORD", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "V2TD_TEST_X"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("V2TD_FAILPOINTS", "decoder.piece=raise")
    async with Child("child", int, answers=KNOWN) as child:
        for _ in range(2):
            with pytest.raises(ValueError, match="V2TD_FAILPOINTS") as caught:
                await child.call(exec, READ_ENVIRONMENT, deadline_seconds=5)
            assert b"canary" not in caught.value.args[0]
            await child.restart()
    assert os.environ["DB_PASSWORD"] == "canary"
    async with Child("trusted", int) as child:
        with pytest.raises(ValueError, match="canary"):
            await child.call(exec, READ_ENVIRONMENT, deadline_seconds=5)
