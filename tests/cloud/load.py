"""Phones that ask a cloud again and again, and what must hold of all that they were told."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

import httpx
from cloud_phone import Phone

from persona.formats.observation import Observation

SECONDS = 60.0

PROBE_SECONDS = 5.0
"""How long a probe waits: as long as the chart's readiness probe."""


def until(true: Callable[[], Any], seconds: float = SECONDS) -> float:
    """Wait until something holds; how long that took."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds, "it did not come to pass"
        time.sleep(0.05)
    return time.monotonic() - begun


def ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


class Load:
    """Phones that ask again and again from several threads until they are told to stop."""

    def __init__(
        self, phones: Sequence[Phone], observations: Sequence[Observation], pause: float = 0.0
    ) -> None:
        self.phones, self.observations, self.pause = phones, observations, pause
        self.answers: list[tuple[Phone, httpx.Response, float, float]] = []
        self.lost: list[tuple[float, httpx.TransportError]] = []
        self.stopped = threading.Event()

    def __enter__(self) -> "Load":
        self.pool = ThreadPoolExecutor(len(self.phones))
        self.running = [self.pool.submit(self._ask, phone) for phone in self.phones]
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.pool.shutdown()
        for one in self.running:
            one.result()

    def _ask(self, phone: Phone) -> None:
        number = 0
        while not self.stopped.is_set():
            number += 1
            begun = time.monotonic()
            try:
                response = phone.ask(self.observations[number % len(self.observations)])
            except httpx.TransportError as error:
                self.lost.append((time.monotonic(), error))
                time.sleep(0.05)
                continue
            self.answers.append((phone, response, begun, time.monotonic()))
            time.sleep(self.pause)

    def statuses(self) -> Counter[int]:
        return Counter(response.status_code for _, response, _, _ in self.answers)

    def edits(self) -> list[tuple[Phone, httpx.Response]]:
        return [(p, r) for p, r, _, _ in self.answers if r.status_code == 200]


def check_each_is_its_own(edits: Iterable[tuple[Phone, httpx.Response]]) -> None:
    """Every edit verifies for its device, and no sequence number was given twice."""
    seen = set()
    for phone, response in edits:
        info = phone.verify(response).info
        assert (info.device, info.sequence) not in seen
        seen.add((info.device, info.sequence))


@dataclass(frozen=True)
class Probe:
    """What a load balancer saw. said: the status, or what became of its connection instead."""

    begun: float
    ended: float
    said: int | str


class Probes:
    """A load balancer that asks /readyz every so often, each time by a connection of its own."""

    def __init__(self, address: str, pause: float = 0.05) -> None:
        host, port = address.removeprefix("http://").split(":")
        self._host, self._port, self._pause = host, int(port), pause
        self.seen: list[Probe] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> "Probes":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stopped.wait(self._pause):
            begun = time.monotonic()
            said = self._probe()
            self.seen.append(Probe(begun, time.monotonic(), said))

    def _probe(self) -> int | str:
        connection = HTTPConnection(self._host, self._port, timeout=PROBE_SECONDS)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status
        except (OSError, HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()

    def said(self, begun_after: float = 0.0) -> Counter[int | str]:
        return Counter(probe.said for probe in self.seen if probe.begun > begun_after)

    def slowest(self) -> float:
        return max(probe.ended - probe.begun for probe in self.seen)
