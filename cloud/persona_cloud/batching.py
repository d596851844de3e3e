"""Requests that arrive together are answered together; one that comes alone is not delayed.

A thread that finds nobody at work makes the answers itself, for all that wait by then; whoever came
meanwhile is answered next, by the first of them. So there is no thread to start or to stop.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class BusyError(RuntimeError):
    """As much is being made, or waits, as may."""


class Places:
    """So many requests may be under way in a process."""

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place. Raises BusyError at once where there is none."""
        if not self._free.acquire(blocking=False):
            raise BusyError
        try:
            yield
        finally:
            self._free.release()


class _Waiting(Generic[Q, A]):
    """A request and, later, its answer. leads: its thread makes the next answers."""

    def __init__(self, request: Q) -> None:
        self.request = request
        self.woken = threading.Event()
        self.leads = False
        self.made: A | Exception | None = None

    def answer(self) -> A:
        if self.made is None:
            raise RuntimeError("the thread that made the answers was stopped")
        if isinstance(self.made, Exception):
            raise self.made
        return self.made


class Batcher(Generic[Q, A]):
    """Answers many threads, up to `max_batch` together."""

    def __init__(
        self,
        make: Callable[[Sequence[Q]], Sequence[A | Exception]],
        max_batch: int,
        shared: tuple[type[Exception], ...] = (),
    ) -> None:
        """make: makes answers, or errors, in the order of the requests.

        Where it raises, each request is tried alone, so that one cannot fail others; but not for
        errors of the kinds in `shared`, which are no request's own.
        """
        self._make, self._max_batch, self._shared = make, max_batch, shared
        self._lock = threading.Lock()
        self._queue: deque[_Waiting[Q, A]] = deque()
        self._led = False

    def answer(self, request: Q) -> A:
        """The answer to a request. Raises what making it raised."""
        mine: _Waiting[Q, A] = _Waiting(request)
        with self._lock:
            self._queue.append(mine)
            mine.leads = not self._led
            self._led = True
        if not mine.leads:
            mine.woken.wait()
        if mine.leads:
            self._lead()
        return mine.answer()

    def _lead(self) -> None:
        """Make answers once, then let the first of those who came meanwhile make the next."""
        with self._lock:
            size = min(len(self._queue), self._max_batch)
            together = [self._queue.popleft() for _ in range(size)]
        try:
            self._answer(together)
        finally:
            with self._lock:
                self._led = bool(self._queue)
                if self._led:
                    self._queue[0].leads = True
                    self._queue[0].woken.set()
            for waiting in together:
                waiting.woken.set()

    def _answer(self, together: list[_Waiting[Q, A]]) -> None:
        try:
            made = self._make([waiting.request for waiting in together])
            for waiting, answer in zip(together, made, strict=True):
                waiting.made = answer
        except Exception as error:
            alone = len(together) == 1
            for waiting in together:
                waiting.made = error
                if not alone and not isinstance(error, self._shared):
                    self._answer([waiting])
