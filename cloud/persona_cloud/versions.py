"""Versions in a process: which device shall have which, and each one loaded when it is needed.

What the database says of the rollout is asked for again after `FRESH_SECONDS`; while the database
is away the last answer holds. A version is loaded from the server's disk, checked as at
publication, and kept in memory as long as it is among the last few in use.
"""

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from persona.bundles import Bundle, open_bundle
from persona.formats.errors import FormatError
from persona.formats.observation import Observation
from persona.issuing import Computed, Issuer, OtherModelError
from persona.runs import Run, RunError, load_run
from persona.signing import PublicKeys
from persona_cloud.config import CloudConfig
from persona_cloud.problems import Problem
from persona_cloud.rollout import Line
from persona_cloud.rollouts import Rollouts
from persona_cloud.signing_keys import SigningKeys
from persona_cloud.store import AWAY, Store
from persona_cloud.tables import Version

FRESH_SECONDS = 1.0
"""After so long every process knows of a change."""

IN_MEMORY = 4
"""Versions that a process holds at most: stable, candidate, and what stragglers have."""

_TRY_AGAIN_SECONDS = 5.0

_log = logging.getLogger(__name__)


class OtherInterfaceError(ValueError):
    """A version that apps of this line could not use: other inputs, outputs or another task."""


@dataclass(frozen=True)
class Observed:
    """What a device observed, and who makes edits for the version that it has."""

    observation: Observation
    issuer: Issuer


def compute(requests: Sequence[Observed]) -> list[Computed]:
    """One forward for each version among the requests; the answers in the same order."""
    answers: dict[int, Computed] = {}
    for issuer in {id(request.issuer): request.issuer for request in requests}.values():
        mine = [i for i, request in enumerate(requests) if request.issuer is issuer]
        made = issuer.compute([requests[i].observation for i in mine])
        answers.update(zip(mine, made, strict=True))
    return [answers[i] for i in range(len(requests))]


class Versions:
    """The versions of one line, as a process knows them. Safe to use from several threads."""

    def __init__(self, config: CloudConfig, store: Store, keys: SigningKeys, run: Run) -> None:
        """run: of the version that the server is started with.

        Raises FormatError, OtherModelError or KeyNotInBundleError.
        """
        self._config, self._keys = config, keys
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._line: Line | None = None
        self._fresh_until, self._changes = -math.inf, 0
        self._failed: dict[str, tuple[float, str]] = {}
        first = self._open(run, config.bundle, keys.publishers_ever())
        self._loaded = OrderedDict({first.bundle.digest: first})
        self.name = first.run.record.config.name
        self.rollouts = Rollouts(store, self.name)
        self.rollouts.begin_with(self._row(first, None))
        self.line()

    def line(self) -> Line:
        """The rollout, as it is or was a moment ago."""
        with self._lock:
            known, changes = self._line, self._changes
            if known is not None and time.monotonic() < self._fresh_until:
                return known
            self._fresh_until = time.monotonic() + FRESH_SECONDS
        try:
            line = self.rollouts.line()
        except AWAY:
            if known is None:
                raise
            return known
        with self._lock:
            if changes != self._changes:
                return line
            if self._line is None or line.revision >= self._line.revision:
                self._line = line
            return self._line

    def look_again(self) -> None:
        """This process has changed the rollout: what it knows, or is reading, of it is old."""
        with self._lock:
            self._line, self._fresh_until = None, -math.inf
            self._changes += 1

    def of_model(self, model: str) -> Line:
        """The line, asked for by the model of any of its versions. Raises `model.unknown`."""
        line = self.line()
        models = {version.model: None for version in line.versions.values()}
        if model not in models:
            here = line.versions[line.stable].model
            raise Problem("model.unknown", f"There is no model {model!r:.100} here, but {here!r}")
        return line

    def wanted(self, device: str) -> str:
        """The version that a device shall have: not the candidate, where it failed there."""
        line = self.line()
        chosen = line.chosen(device)
        if chosen == line.candidate and self.rollouts.failed_on(device, chosen):
            return line.stable
        return chosen

    def serves(self, bundle: str) -> bool:
        """Whether edits are made for this version."""
        return self.line().serves(bundle, datetime.now(UTC), self._config.retention)

    def stable(self) -> Bundle:
        """The bundle of the stable version."""
        return self.issuer(self.line().stable).bundle

    def bundle(self, digest: str) -> Bundle:
        """The bundle of a version that is known. Raises `version.unknown` or `server.version`."""
        if digest not in self.line().versions:
            raise Problem("version.unknown", f"There is no version {digest!r:.100}")
        return self.issuer(digest).bundle

    def issuer(self, digest: str) -> Issuer:
        """Who makes edits for a version. Raises Problem `server.version` where it cannot load."""
        loaded = self.in_memory(digest)
        if loaded is not None:
            return loaded
        with self._loading:
            return self._load(digest)

    def in_memory(self, digest: str) -> Issuer | None:
        """Who makes edits for a version, where it is loaded already."""
        with self._lock:
            loaded = self._loaded.get(digest)
            if loaded is not None:
                self._loaded.move_to_end(digest)
            return loaded

    def check(self) -> None:
        """Whether what is rolled out can be served here. Raises Problem `server.version`."""
        line = self.line()
        for digest in (line.stable, line.candidate):
            if digest is not None:
                self.issuer(digest)
        self._keys.current()

    def publish(self, run: Path, bundle: Path, by: str) -> tuple[str, bool]:
        """Check a version on this disk and register it: its digest, and whether it is new.

        Raises RunError, FormatError, OtherModelError, KeyNotInBundleError or OtherInterfaceError;
        then nothing was registered.
        """
        issuer = self._open(load_run(run), bundle, self._keys.publishers())
        self._check_interface(issuer)
        new = self.rollouts.publish(self._row(issuer, by))
        self.look_again()
        return issuer.bundle.digest, new

    def _check_interface(self, issuer: Issuer) -> None:
        name = issuer.run.record.config.name
        if name != self.name:
            raise OtherInterfaceError(
                f"expected a run of {self.name!r}, got one of {name!r}; serve it by itself"
            )
        mine, other = (b.manifest for b in (self.stable(), issuer.bundle))
        for what in ("task", "inputs", "outputs"):
            if getattr(mine, what) != getattr(other, what):
                raise OtherInterfaceError(
                    f"other {what} than the stable version, so apps could not run it; "
                    "ship it with the app and serve it by itself"
                )

    def _load(self, digest: str) -> Issuer:
        with self._lock:
            if digest in self._loaded:
                return self._loaded[digest]
            since, said = self._failed.get(digest, (-math.inf, ""))
        if time.monotonic() >= since + _TRY_AGAIN_SECONDS:
            known = self.line().versions[digest]
            try:
                run = load_run(Path(known.run))
                issuer = self._open(run, Path(known.path), self._keys.publishers_ever())
                if issuer.bundle.digest != digest:
                    raise RunError(f"{known.path} holds another version now")
            except (RunError, FormatError, OtherModelError, OSError) as error:
                said = f"{error}"
                _log.error("version %s cannot be loaded: %s", digest[:12], said)
                with self._lock:
                    self._failed[digest] = (time.monotonic(), said)
            else:
                self._keep(digest, issuer)
                return issuer
        raise Problem(
            "server.version",
            f"This server cannot load version {digest[:12]}…",
            headers={"Retry-After": "5"},
        )

    def _keep(self, digest: str, issuer: Issuer) -> None:
        with self._lock:
            self._failed.pop(digest, None)
            self._loaded[digest] = issuer
            while len(self._loaded) > IN_MEMORY:
                self._loaded.popitem(last=False)

    def _open(self, run: Run, path: Path, publishers: PublicKeys) -> Issuer:
        bundle = open_bundle(path, publishers)
        _check_prototypes(run, bundle)
        self._keys.check_named_by(bundle)
        return Issuer(run, bundle, self._config.edit_lifetime, self._keys.current)

    def _row(self, issuer: Issuer, by: str | None) -> Version:
        return Version(
            bundle=issuer.bundle.digest,
            line=issuer.run.record.config.name,
            model=issuer.bundle.manifest.model,
            run=str(issuer.run.path.absolute()),
            path=str(issuer.bundle.path.absolute()),
            published_at=datetime.now(UTC),
            published_by=by,
        )


def _check_prototypes(run: Run, bundle: Bundle) -> None:
    """Edits are relative to prototypes: those of the bundle must be those of the run."""
    edits = run.bank.edits()
    for k, change in enumerate(bundle.prototypes.changes):
        for name, values in change.items():
            mine = edits[name][k].detach().numpy()
            if not np.array_equal(mine.astype(np.float16), values.astype(np.float16)):
                raise OtherModelError(
                    f"prototype {k} of {bundle.path} is not that of {run.path}; "
                    "export this run again with `persona export`"
                )
