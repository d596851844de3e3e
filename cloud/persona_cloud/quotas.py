"""Who may ask how often: quotas by device and by address, shared through Redis where there is one.

Counts by `limits`, the library under Flask-Limiter (docs/decisions say why not that itself). While
Redis is away every process counts for itself, and asks for Redis again after a few seconds.
"""

import ipaddress
import logging
import math
import threading
import time

from limits import RateLimitItem, parse
from limits.errors import StorageError
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter

from persona_cloud.config import Quotas
from persona_cloud.problems import Problem

_REDIS_SECONDS = 0.5
_AWAY_SECONDS = 5.0
_IPV6_NETWORK = 64
"""Bits of an IPv6 address that a provider gives to one customer at least."""

_log = logging.getLogger(__name__)


class QuotaKeeper:
    """Counts requests. Safe to use from several threads, and in new processes after a fork."""

    def __init__(self, quotas: Quotas) -> None:
        """Raises ValueError where a quota is not such as `120/minute`."""
        self.requests = _parse(quotas.requests_per_address)
        self.enrolments = _parse(quotas.enrolments_per_address)
        self.edits = _parse(quotas.edits_per_device)
        waits = {"socket_timeout": _REDIS_SECONDS, "socket_connect_timeout": _REDIS_SECONDS}
        options = {} if quotas.storage.startswith("memory:") else waits
        shared = storage_from_string(quotas.storage, wrap_exceptions=True, **options)
        self._shared = SlidingWindowCounterRateLimiter(shared)
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._away_until = 0.0
        self._lock = threading.Lock()

    def spend(self, quota: RateLimitItem | None, kind: str, who: str) -> None:
        """Count one request of `who`. Raises Problem `request.too_many` where it is one too many.

        quota: None counts nothing.
        """
        if quota is None:
            return
        if time.monotonic() < self._away_until:
            self._spend(self._own, quota, kind, who)
            return
        try:
            self._spend(self._shared, quota, kind, who)
        except StorageError as error:
            with self._lock:
                self._away_until = time.monotonic() + _AWAY_SECONDS
            _log.error("quotas are counted by each process alone: %s", type(error.storage_error))
            self._spend(self._own, quota, kind, who)

    @staticmethod
    def _spend(
        limiter: SlidingWindowCounterRateLimiter, quota: RateLimitItem, kind: str, who: str
    ) -> None:
        if limiter.hit(quota, kind, who):
            return
        reset = limiter.get_window_stats(quota, kind, who).reset_time
        seconds = max(1, math.ceil(reset - time.time()))
        raise Problem(
            "request.too_many",
            f"At most {quota.amount} {kind} per {quota.multiples} {quota.GRANULARITY.name}",
            headers={"Retry-After": str(seconds)},
        )


def _parse(quota: str | None) -> RateLimitItem | None:
    return None if quota is None else parse(quota)


def address_group(address: str | None) -> str:
    """Who counts as one: an IPv4 address, or the network that an IPv6 customer has."""
    try:
        known = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(known, ipaddress.IPv6Address):
        if known.ipv4_mapped is not None:
            return str(known.ipv4_mapped)
        return str(ipaddress.ip_network((known, _IPV6_NETWORK), strict=False))
    return str(known)
