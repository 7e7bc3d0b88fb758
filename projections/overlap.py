"""Steps in a thread of their own, one at a time and in order: while one waits for its store, the next is made ready."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Generic, TypeVar

_T = TypeVar("_T")


class InOrder(Generic[_T]):
    """Runs one step at a time. After a step has failed no other is run: its error is raised by `settle`, then and ever after.

    Called by one thread. The steps see the context (names bound for logging) of whoever gives them.
    """

    def __init__(self, name: str) -> None:
        self._threads = ThreadPoolExecutor(1, name)
        self._running: Future[_T] | None = None
        self._failed: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a step runs at this moment."""
        return self._running is not None and not self._running.done()

    def give(self, step: Callable[[], _T]) -> None:
        """Start a step.

        Raises:
            RuntimeError: the one before was not settled.
        """
        if self._failed is not None:
            raise self._failed
        if self._running is not None:
            raise RuntimeError("expected the step before to be settled, found it running")
        self._running = self._threads.submit(copy_context().run, step)

    def settle(self) -> _T | None:
        """Wait for the step that was given; its result, None where none was. Raises what the step raised."""
        if self._failed is not None:
            raise self._failed
        running, self._running = self._running, None
        if running is None:
            return None
        try:
            return running.result()
        except BaseException as error:
            self._failed = error
            raise

    def close(self) -> None:
        """Wait until nothing runs. The error of a step that was not settled is lost: another one ends the worker already."""
        self._threads.shutdown(wait=True)
