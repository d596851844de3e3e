"""Requests that arrive together share one forward; one that comes alone is not delayed.

A thread that finds nobody at work makes the forward itself, for all that wait by then; whoever
came meanwhile is made next, by the first of them. So there is no thread to start or to stop.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from persona.issuing import Issued, Request

R = TypeVar("R", bound=Request)


class BusyError(RuntimeError):
    """As much is being made, or waits, as may."""


class _Waiting(Generic[R]):
    """A request and, later, its answer. leads: its thread makes the next forward."""

    def __init__(self, request: R) -> None:
        self.request = request
        self.woken = threading.Event()
        self.leads = False
        self.issued: Issued | None = None
        self.error: Exception | None = None

    def answer(self) -> Issued:
        if self.error is not None:
            raise self.error
        issued, request = self.issued, self.request
        if issued is None:
            raise RuntimeError("the thread that made the forward was stopped")
        if (issued.info.device, issued.info.sequence) != (request.device, request.sequence):
            raise RuntimeError("the edit is not the one that was asked for")
        return issued


class Batcher(Generic[R]):
    """Makes edits for many threads, up to `max_batch` in a forward."""

    def __init__(
        self, make: Callable[[Sequence[R]], list[Issued]], max_batch: int, max_waiting: int
    ) -> None:
        """make: makes edits, the answers in the order of the requests."""
        self._make, self._max_batch = make, max_batch
        self._places = threading.BoundedSemaphore(max_waiting)
        self._lock = threading.Lock()
        self._queue: deque[_Waiting[R]] = deque()
        self._led = False

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of `max_waiting` places. Raises BusyError at once where there is none."""
        if not self._places.acquire(blocking=False):
            raise BusyError
        try:
            yield
        finally:
            self._places.release()

    def issue(self, request: R) -> Issued:
        """The edit for a request. Raises what making it raised, for it alone."""
        mine = _Waiting(request)
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
        """Make one forward, then let the first of those who came meanwhile make the next."""
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

    def _answer(self, together: list[_Waiting[R]]) -> None:
        try:
            made = self._make([waiting.request for waiting in together])
            for waiting, issued in zip(together, made, strict=True):
                waiting.issued = issued
        except Exception as error:
            if len(together) == 1:
                together[0].error = error
                return
            for waiting in together:
                waiting.issued = None
                self._answer([waiting])
