"""What a child may answer with: a pickle runs what it names, so a child that strangers took over could take us over.

The child's end of the pipe is not to be trusted, ours builds nothing but values, exceptions and known classes. Nor is
the child: it inherits none of the secrets that lie in our environment.
"""

from __future__ import annotations

import _posixsubprocess
import builtins
import io
import os
import pickle
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import reduction
from multiprocessing.connection import Connection, reduce_connection  # type: ignore[attr-defined]  # typeshed
from typing import Any

MAX_ANSWER_BYTES = 64_000_000
# What Python, the libraries and the tests need of the environment.
INHERITED = re.compile(
    r"PATH|HOME|TZ|TMPDIR|LANG|LC_\w+|LD_\w+|PYTHON\w+|OMP_\w+|MKL_\w+|OPENBLAS_\w+|ORT_\w+|MALLOC_\w+|COVERAGE_\w+|"
    r"V2TD_FAILPOINTS(_\w+)?"
)
# How an executor wraps what a call returned or raised.
RESULT, REBUILT = ("concurrent.futures.process", "_ResultItem"), ("concurrent.futures.process", "_rebuild_exc")


def accept_only(executor: ProcessPoolExecutor, classes: Iterable[type]) -> None:
    """Have a fresh executor take nothing but builtin values, builtin exceptions and these classes from its process.

    Anything else breaks it, as if the process had ended.
    """
    results: Any = executor._result_queue  # noqa: SLF001 (there is no public way)
    answers = _Answers(os.dup(results._reader.fileno()), writable=False)  # noqa: SLF001 (likewise)
    answers.known = {RESULT, REBUILT} | {(each.__module__, each.__qualname__) for each in classes}
    results._reader.close()  # noqa: SLF001 (likewise)
    results._reader = answers  # noqa: SLF001 (likewise)


@contextmanager
def without_secrets() -> Iterator[None]:
    """Start processes with what INHERITED names of our environment only; no other thread may start one meanwhile.

    The change is made to what multiprocessing hands to exec: `os.environ` is not touched, which other threads read, and
    what a process removes from its own stays in its memory and in /proc/self/environ.
    """
    kept = [os.fsencode(f"{name}={value}") for name, value in os.environ.items() if INHERITED.fullmatch(name)]
    fork_exec = _posixsubprocess.fork_exec

    def with_environment(args: Any, paths: Any, close: Any, keep: Any, folder: Any, _inherit: None, *rest: Any) -> int:
        return fork_exec(args, paths, close, keep, folder, kept, *rest)

    _posixsubprocess.fork_exec = with_environment  # type: ignore[assignment]  # passes the rest on as it comes
    try:
        yield
    finally:
        _posixsubprocess.fork_exec = fork_exec


class _Answers(Connection):
    """The reading end of the pipe."""

    known: set[tuple[str, str]]

    def recv(self) -> Any:
        answer = _Unpickler(self.recv_bytes(MAX_ANSWER_BYTES), self.known).load()
        if (type(answer).__module__, type(answer).__qualname__) != RESULT:
            raise pickle.UnpicklingError("not the result of a call")
        return answer


reduction.register(_Answers, reduce_connection)  # the process inherits this end, too


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, known: set[tuple[str, str]]) -> None:
        super().__init__(io.BytesIO(content))
        self._known = known

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._known or (module == "builtins" and _is_exception(name)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"a child must not answer with {module}.{name}")


def _is_exception(name: str) -> bool:
    """Whether it is one that ends no more than a call: SystemExit would end us."""
    found = getattr(builtins, name, None)
    return isinstance(found, type) and issubclass(found, Exception)
