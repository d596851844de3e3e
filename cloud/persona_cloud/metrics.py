"""What Prometheus is told, of one process or, with PROMETHEUS_MULTIPROC_DIR, of all workers."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one app. No label holds anything that a client chooses freely."""

    def __init__(self) -> None:
        own = CollectorRegistry()
        self._registry = own
        self.requests = Counter(
            "persona_requests",
            "Requests by route and status",
            ("method", "route", "status"),
            registry=own,
        )
        self.seconds = Histogram(
            "persona_request_seconds",
            "From a request's headers to its answer",
            ("route",),
            registry=own,
            buckets=_SECONDS,
        )
        self.problems = Counter(
            "persona_problems", "Errors answered, by their code", ("code",), registry=own
        )
        self.edits = Counter(
            "persona_edits", "Edits issued, by prototype", ("prototype",), registry=own
        )
        self.batch = Histogram(
            "persona_batch_size", "Observations in a forward", registry=own, buckets=_BATCHES
        )
        self.adapter_seconds = Histogram(
            "persona_adapter_seconds",
            "A forward with its probes",
            registry=own,
            buckets=_SECONDS,
        )
        self.outcomes = Counter(
            "persona_outcomes",
            "What devices found when they tried a version, `ok` or the code of a failure",
            ("outcome",),
            registry=own,
        )
        self.waiting = Gauge(
            "persona_edits_waiting",
            "Edits being made or waiting to be",
            registry=own,
            multiprocess_mode="livesum",
        )

    def exposition(self) -> bytes:
        """All of it in Prometheus's text format."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        gathered = CollectorRegistry()
        MultiProcessCollector(gathered)
        return generate_latest(gathered)
