"""What a child may answer with: a pickle runs what it names, so a child that strangers took over could take us over.

The child's end of the pipe is not to be trusted, ours builds nothing but values, exceptions and known classes.
"""

from __future__ import annotations

import builtins
import io
import os
import pickle
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import reduction
from multiprocessing.connection import Connection, reduce_connection  # type: ignore[attr-defined]  # typeshed
from typing import Any

MAX_ANSWER_BYTES = 64_000_000
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
