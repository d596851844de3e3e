"""What the dashboard shows, asked of the database: counts over time, a map of latents, latencies.

Nothing here grows with the fleet: days are counted by the database, and of latents and measurements
the newest few thousand are read.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, String, cast, func, select
from sqlalchemy.orm import InstrumentedAttribute

from persona_cloud.charts import Point, Series
from persona_cloud.store import Store
from persona_cloud.tables import (
    Device,
    IssuedEdit,
    Outcome,
    RolloutEvent,
    StoredMeasurement,
)

MOST_LATENTS = 2000
MOST_MEASUREMENTS = 5000
MOST_ROWS = 50
MOST_TARGETS = 8


@dataclass(frozen=True)
class Span:
    """The time until now that is looked at, in hours where it is a day, else in days (UTC)."""

    days: int
    now: datetime

    @property
    def since(self) -> datetime:
        """Its beginning: that of the first bucket."""
        if self.days == 1:
            return self.now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=23)
        midnight = self.now.replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight - timedelta(days=self.days - 1)

    @property
    def _letters(self) -> int:
        return 13 if self.days == 1 else 10

    def bucket(self, column: InstrumentedAttribute[datetime]) -> ColumnElement[str]:
        """In SQL: the bucket of a moment, as `YYYY-MM-DD` or `YYYY-MM-DD HH`."""
        return func.substr(cast(column, String), 1, self._letters)

    def bucket_of(self, moment: datetime) -> str:
        """The same here."""
        return moment.isoformat(sep=" ")[: self._letters]

    def buckets(self) -> list[str]:
        """All of them, the oldest first."""
        step = timedelta(hours=1) if self.days == 1 else timedelta(days=1)
        count = 24 if self.days == 1 else self.days
        return [self.bucket_of(self.since + i * step) for i in range(count)]

    def labels(self) -> list[str]:
        """The buckets, short: `14:00` or `3 Nov`."""
        if self.days == 1:
            return [f"{bucket[11:]}:00" for bucket in self.buckets()]
        days = (datetime.fromisoformat(bucket) for bucket in self.buckets())
        return [f"{day.day} {day:%b}" for day in days]


@dataclass(frozen=True)
class Overview:
    """The fleet in a span: in all, and by bucket."""

    devices: int
    active: int
    edits: int
    failures: int
    new_devices: list[int]
    edits_by_bucket: list[int]
    by_prototype: list[tuple[str, int]]


@dataclass(frozen=True)
class Map:
    """Latents in two dimensions. groups: edits shown by prototype. explained: of their variance."""

    points: list[Point]
    groups: list[tuple[str, int]]
    explained: float


@dataclass(frozen=True)
class LatencyRow:
    """Medians over the reports of one kind of device and one program, in microseconds."""

    target: str
    precision: str
    host: str
    reports: int
    devices: int
    base_us: float
    edited_us: float
    p90_us: float
    ratio: float


@dataclass(frozen=True)
class Latency:
    """series: the median over the reports of each bucket, by target, in milliseconds."""

    rows: list[LatencyRow]
    series: list[Series]
    reports: int


@dataclass(frozen=True)
class Failure:
    """What a device reported."""

    at: datetime
    device: str
    platform: str
    bundle: str
    code: str


@dataclass(frozen=True)
class Failures:
    """by_code: failures by bundle and code."""

    by_bucket: list[int]
    by_code: list[tuple[str, str, int]]
    newest: list[Failure]


class Figures:
    """Questions to one database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def overview(self, span: Span) -> Overview:
        """Devices and edits."""
        in_span = IssuedEdit.issued_at >= span.since
        with self._store.reading() as session:
            by_prototype = session.execute(
                select(IssuedEdit.prototype, func.count())
                .where(in_span)
                .group_by(IssuedEdit.prototype)
            ).all()
            active = select(func.count(func.distinct(IssuedEdit.device))).where(in_span)
            return Overview(
                devices=session.scalar(select(func.count()).select_from(Device)) or 0,
                active=session.scalar(active) or 0,
                edits=sum(count for _, count in by_prototype),
                failures=sum(self._counts(Outcome.received_at, span, Outcome.code.is_not(None))),
                new_devices=self._counts(Device.enrolled_at, span),
                edits_by_bucket=self._counts(IssuedEdit.issued_at, span),
                by_prototype=_by_prototype(dict(row.tuple() for row in by_prototype)),
            )

    def latent_map(self, bundle: str, span: Span) -> Map:
        """The newest latents of a version, along the two directions in which they differ most."""
        query = (
            select(IssuedEdit.prototype, IssuedEdit.latent)
            .where(IssuedEdit.bundle == bundle, IssuedEdit.issued_at >= span.since)
            .order_by(IssuedEdit.id.desc())
            .limit(MOST_LATENTS)
        )
        with self._store.reading() as session:
            rows = session.execute(query).all()
        counted = Counter(prototype for prototype, _ in rows)
        groups = _by_prototype(counted)
        if len(rows) < 3:
            return Map([], groups, 0.0)
        order = {name: index for index, (name, _) in enumerate(groups)}
        placed, explained = principal_plane([np.frombuffer(latent, "<f4") for _, latent in rows])
        points = [
            Point(float(x), float(y), order[_prototype_name(prototype)])
            for (prototype, _), (x, y) in zip(rows, placed, strict=True)
        ]
        return Map(points, groups, explained)

    def latency(self, span: Span) -> Latency:
        """What devices measured."""
        query = (
            select(StoredMeasurement)
            .where(StoredMeasurement.received_at >= span.since)
            .order_by(StoredMeasurement.id.desc())
            .limit(MOST_MEASUREMENTS)
        )
        with self._store.reading() as session:
            found = list(session.scalars(query))
        kinds: dict[tuple[str, str, str], list[StoredMeasurement]] = defaultdict(list)
        over_time: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for one in found:
            host = one.document["host"]
            kinds[one.target, one.precision, f"{host['system']} {host['machine']}"].append(one)
            bucket = span.bucket_of(one.received_at)
            over_time[one.target][bucket].append(one.document["edited"]["p50_us"] / 1e3)
        rows = [_latency_row(*kind, of_kind) for kind, of_kind in sorted(kinds.items())]
        most = sorted(over_time, key=lambda t: -sum(map(len, over_time[t].values())))
        series = [
            Series(t, [median(v) if (v := over_time[t].get(b)) else None for b in span.buckets()])
            for t in sorted(most[:MOST_TARGETS])
        ]
        return Latency(rows, series, len(found))

    def failures(self, span: Span) -> Failures:
        """What did not work on devices."""
        failed = Outcome.code.is_not(None)
        in_span = Outcome.received_at >= span.since
        with self._store.reading() as session:
            by_code = session.execute(
                select(Outcome.bundle, Outcome.code, func.count())
                .where(failed, in_span)
                .group_by(Outcome.bundle, Outcome.code)
                .order_by(func.count().desc())
            ).all()
            newest = session.execute(
                select(Outcome, Device.platform)
                .join(Device, Device.id == Outcome.device)
                .where(failed, in_span)
                .order_by(Outcome.received_at.desc())
                .limit(MOST_ROWS)
            ).all()
        return Failures(
            self._counts(Outcome.received_at, span, failed),
            [(bundle, str(code), count) for bundle, code, count in by_code],
            [
                Failure(o.received_at, o.device, platform, o.bundle, str(o.code))
                for o, platform in newest
            ],
        )

    def events(self, line: str) -> list[RolloutEvent]:
        """The newest changes of a rollout."""
        query = select(RolloutEvent).filter_by(line=line).order_by(RolloutEvent.id.desc())
        with self._store.reading() as session:
            return list(session.scalars(query.limit(MOST_ROWS)))

    def _counts(
        self,
        column: InstrumentedAttribute[datetime],
        span: Span,
        *conditions: ColumnElement[bool],
    ) -> list[int]:
        bucket = span.bucket(column)
        query = select(bucket, func.count()).where(column >= span.since, *conditions)
        with self._store.reading() as session:
            found = dict(row.tuple() for row in session.execute(query.group_by(bucket)))
        return [found.get(name, 0) for name in span.buckets()]


def span_of(days: int) -> Span:
    """The days until now."""
    return Span(days, datetime.now(UTC))


def principal_plane(latents: Sequence[Any]) -> tuple[Any, float]:
    """Latents [n, d] -> [n, 2] on their first two principal axes, and the variance's share there.

    The sign of an axis is free; it is chosen so that its largest coordinate is positive.
    """
    matrix = np.stack(latents).astype(np.float64)
    centred = matrix - matrix.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    whole = float((sizes**2).sum())
    return centred @ axes.T, float((sizes[:2] ** 2).sum()) / whole if whole else 0.0


def _by_prototype(counted: dict[int | None, int]) -> list[tuple[str, int]]:
    ordered = sorted(counted.items(), key=lambda item: (item[0] is None, item[0]))
    return [(_prototype_name(prototype), count) for prototype, count in ordered]


def _prototype_name(prototype: int | None) -> str:
    return "none" if prototype is None else str(prototype)


def _latency_row(
    target: str, precision: str, host: str, found: Sequence[StoredMeasurement]
) -> LatencyRow:
    def middle(which: str, quantile: str) -> float:
        return median(one.document[which][quantile] for one in found)

    return LatencyRow(
        target=target,
        precision=precision,
        host=host,
        reports=len(found),
        devices=len({one.device for one in found}),
        base_us=middle("base", "p50_us"),
        edited_us=middle("edited", "p50_us"),
        p90_us=middle("edited", "p90_us"),
        ratio=median(one.document["ratio"] for one in found),
    )
