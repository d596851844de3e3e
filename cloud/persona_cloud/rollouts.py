"""Versions and rollouts in the database: published, rolled out, stopped, rolled back.

Every change is one transaction that holds the line's row, so that of two at once one comes after
the other and sees what it did.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from persona_cloud.rollout import KnownVersion, Line, RolloutError, fails_too_often
from persona_cloud.store import Store
from persona_cloud.tables import Outcome, Rollout, RolloutEvent, Version


@dataclass(frozen=True)
class Outcomes:
    """How many devices reported on a version, and how many of them a failure."""

    reported: int
    failed: int


class Rollouts:
    """The rollout of one line. Safe to use from several threads and processes."""

    def __init__(self, store: Store, line: str) -> None:
        self._store, self._name = store, line

    def line(self) -> Line:
        """The line as it is now."""
        with self._store.reading() as session:
            rollout = session.get_one(Rollout, self._name)
            query = select(Version).filter_by(line=self._name).order_by(Version.published_at)
            versions = {row.bundle: _known(row) for row in session.scalars(query)}
        return Line(
            name=self._name,
            versions=versions,
            stable=rollout.stable,
            candidate=rollout.candidate,
            percent=rollout.percent,
            max_failure_rate=rollout.max_failure_rate,
            min_reports=rollout.min_reports,
            revision=rollout.revision,
            stopped_because=rollout.stopped_because,
            changed_at=rollout.changed_at,
        )

    def publish(self, version: Version) -> bool:
        """Register a version that no device shall have yet; whether it was not known."""
        try:
            with self._store.writing() as session:
                if session.get(Version, version.bundle) is not None:
                    return False
                session.add(version)
                session.flush()
                session.add(_event(version.line, version.published_by, "published", version.bundle))
        except IntegrityError:
            return False
        return True

    def begin_with(self, version: Version) -> None:
        """What a server is started with is stable at once, where the database does not know it."""
        bundle, now = version.bundle, version.published_at
        if not self.publish(version):
            return
        with self._store.writing() as session:
            rollout = session.get(Rollout, self._name, with_for_update=True)
            if rollout is None:
                session.add(Rollout(self._name, bundle, now))
                session.add(_event(self._name, None, "started", bundle, 100.0))
                return
            _withdraw_candidate(session, rollout)
            _make_stable(session, rollout, bundle, now)
            _changed(session, rollout, None, "started", bundle, 100.0)

    def start(
        self,
        bundle: str,
        percent: float,
        max_failure_rate: float,
        min_reports: int,
        *,
        by: str,
        revision: int | None,
    ) -> None:
        """Roll a version out to a percentage of devices. Raises RolloutError.

        What devices reported on it before no longer counts.
        """

        def change(session: Session, rollout: Rollout) -> None:
            version = session.get(Version, bundle)
            if version is None or version.line != self._name:
                raise RolloutError("version.unknown", f"There is no version {bundle!r:.100}")
            if bundle == rollout.stable:
                raise RolloutError(
                    "rollout.refused", f"{bundle[:12]}… is what all devices shall have already"
                )
            if rollout.candidate not in (None, bundle):
                raise RolloutError(
                    "rollout.refused",
                    f"{rollout.candidate:.12}… is being rolled out; promote it or roll it back",
                )
            session.execute(delete(Outcome).where(Outcome.bundle == bundle))
            version.withdrawn, version.retired_at = False, None
            rollout.candidate, rollout.percent = bundle, percent
            rollout.max_failure_rate, rollout.min_reports = max_failure_rate, min_reports
            rollout.stopped_because = None
            _changed(session, rollout, by, "rollout started", bundle, percent)

        self._change(change, revision)

    def resize(self, percent: float, *, by: str, revision: int | None) -> None:
        """Change the percentage of the candidate. Raises RolloutError."""

        def change(session: Session, rollout: Rollout) -> None:
            candidate = _candidate(rollout)
            rollout.percent = percent
            _changed(session, rollout, by, "percentage changed", candidate, percent)

        self._change(change, revision)

    def promote(self, *, by: str, revision: int | None) -> None:
        """The candidate becomes what all devices shall have. Raises RolloutError."""

        def change(session: Session, rollout: Rollout) -> None:
            candidate = _candidate(rollout)
            _make_stable(session, rollout, candidate, datetime.now(UTC))
            rollout.candidate, rollout.percent = None, 0.0
            _changed(session, rollout, by, "promoted", candidate, 100.0)

        self._change(change, revision)

    def roll_back(self, *, by: str, revision: int | None) -> None:
        """Withdraw the candidate or, where there is none, the stable version. Raises RolloutError.

        Devices that have it are sent to the one before.
        """

        def change(session: Session, rollout: Rollout) -> None:
            if rollout.candidate is not None:
                withdrawn = _withdraw_candidate(session, rollout)
            else:
                if rollout.previous is None:
                    raise RolloutError(
                        "rollout.refused", "There is no version before the stable one"
                    )
                withdrawn = rollout.stable
                before = session.get_one(Version, rollout.previous)
                before.retired_at = None
                session.get_one(Version, withdrawn).withdrawn = True
                rollout.stable, rollout.previous = before.bundle, None
            _changed(session, rollout, by, "rolled back", withdrawn, 0.0)

        self._change(change, revision)

    def report(self, device: str, bundle: str, code: str | None) -> bool:
        """Remember what a device found. Whether that stopped the candidate.

        Raises RolloutError `version.unknown`.
        """
        with self._store.writing() as session:
            rollout = session.get_one(Rollout, self._name, with_for_update=True)
            version = session.get(Version, bundle)
            if version is None or version.line != self._name:
                raise RolloutError("version.unknown", f"There is no version {bundle!r:.100}")
            known = session.get(Outcome, (device, bundle))
            if known is None:
                session.add(Outcome(device, bundle, code, datetime.now(UTC)))
            elif known.code is None and code is not None:
                known.code, known.received_at = code, datetime.now(UTC)
            session.flush()
            if bundle != rollout.candidate:
                return False
            found = _outcomes(session, bundle)
            rate, reports = rollout.max_failure_rate, rollout.min_reports
            if not fails_too_often(found.failed, found.reported, rate, reports):
                return False
            _withdraw_candidate(session, rollout)
            rollout.stopped_because = (
                f"{found.failed} of {found.reported} devices reported a failure of {bundle[:12]}…; "
                f"at most {rate:.1%} may"
            )
            _changed(session, rollout, None, "stopped", bundle, 0.0)
            return True

    def outcomes(self, bundle: str) -> Outcomes:
        """What devices reported on a version."""
        with self._store.reading() as session:
            return _outcomes(session, bundle)

    def failed_on(self, device: str, bundle: str) -> bool:
        """Whether this device reported a failure of this version."""
        with self._store.reading() as session:
            known = session.get(Outcome, (device, bundle))
            return known is not None and known.code is not None

    def _change(self, change: Callable[[Session, Rollout], None], revision: int | None) -> None:
        with self._store.writing() as session:
            rollout = session.get_one(Rollout, self._name, with_for_update=True)
            if revision is not None and revision != rollout.revision:
                raise RolloutError(
                    "rollout.changed",
                    f"Expected revision {revision} of the rollout, it is at {rollout.revision}",
                )
            change(session, rollout)


def _known(row: Version) -> KnownVersion:
    return KnownVersion(
        row.bundle, row.model, row.run, row.path, row.published_at, row.retired_at, row.withdrawn
    )


def _candidate(rollout: Rollout) -> str:
    if rollout.candidate is None:
        raise RolloutError("rollout.refused", "No version is being rolled out")
    return rollout.candidate


def _withdraw_candidate(session: Session, rollout: Rollout) -> str:
    """There is no candidate any more; returns what it was, or nothing."""
    withdrawn, rollout.candidate, rollout.percent = rollout.candidate, None, 0.0
    if withdrawn is None:
        return ""
    session.get_one(Version, withdrawn).withdrawn = True
    return withdrawn


def _make_stable(session: Session, rollout: Rollout, bundle: str, now: datetime) -> None:
    session.get_one(Version, rollout.stable).retired_at = now
    rollout.previous, rollout.stable = rollout.stable, bundle


def _outcomes(session: Session, bundle: str) -> Outcomes:
    counts = select(func.count(), func.count(Outcome.code)).where(Outcome.bundle == bundle)
    reported, failed = session.execute(counts).one()
    return Outcomes(reported, failed)


def _changed(
    session: Session, rollout: Rollout, by: str | None, what: str, bundle: str, percent: float
) -> None:
    rollout.revision += 1
    rollout.changed_at = datetime.now(UTC)
    session.add(_event(rollout.line, by, what, bundle, percent))


def _event(line: str, by: str | None, what: str, bundle: str, percent: float = 0.0) -> RolloutEvent:
    return RolloutEvent(line, datetime.now(UTC), by, what, bundle, percent)
