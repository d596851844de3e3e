"""A device: it checks its bundle, observes, asks, verifies, swaps, and falls back when offline.

It may be left to itself: then it asks only where its gate finds that it is worth it.

Fallback: last edit, then the prototype that the device chooses itself, then the base.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.bundles import Bundle
from persona.device.client import CloudClient, CloudError, Enrolment, OfflineError, SignedEdit
from persona.device.gate import Ask, LastTold, Stay, decide
from persona.device.learned_keys import LearnedKeys
from persona.device.live import LiveModel, OnBase, OnEdit, State
from persona.device.store import DeviceStore
from persona.durable import PlaceError
from persona.formats import container
from persona.formats.edit import Edit, parse_info
from persona.formats.errors import Code, FormatError
from persona.formats.observation import (
    Envelope,
    ItemsObservation,
    ItemsSpec,
    Observation,
    check_observation,
    observation_vector,
    pool,
)
from persona.formats.verify import Signature, verify_edit

STALE_TOKEN = ("token.unknown", "token.expired")
"""Answers of the cloud that another token cures."""

_CLOCK = (Code.EXPIRED, Code.FROM_FUTURE)
"""Verdicts that a clock set right may turn; the edit is kept for then, and does not run."""


@dataclass(frozen=True)
class Personalisation:
    """What came of asking for an edit.

    state: what runs now. problem: why it is not a new edit, or None.
    edit_bytes: size of the edit file. edit_to_active_ms: from its bytes in hand to the probe
    passed, verification included. round_trip_ms: observation sent to edit received.
    wanted: digest of the version that the cloud wants this device to have, where it said.
    """

    state: State
    problem: str | None
    edit_bytes: int | None
    edit_to_active_ms: float | None
    round_trip_ms: float | None
    wanted: str | None = None


class Device:
    """One phone's worth of Persona, in a folder of its own."""

    def __init__(self, bundle: Bundle, folder: Path, pinned: Sequence[bytes] | None = None) -> None:
        """Check the golden vectors and go on with the last edit, if it is still good.

        pinned: public bundle keys that the app names; see `LearnedKeys`.
        """
        self.bundle, self.pinned = bundle, pinned
        self.live = LiveModel(bundle)
        self.store = DeviceStore(folder, bundle.digest)
        self.keys = LearnedKeys(folder, bundle, pinned)
        self._told = LastTold(folder, bundle.digest)
        self._reported = ""
        self._lock = threading.RLock()
        self._restore()

    def _restore(self) -> None:
        stored, sequence = self.store.active(), self.store.state.edit
        if stored is None or sequence is None:
            return
        try:
            self.live.use_edit(self._verify(*stored, newer_than=sequence - 1))
        except FormatError as error:
            if error.code in _CLOCK:
                self._use_group(parse_info(container.decode(stored[0])[1]).prototype)
                return
            with suppress(PlaceError):
                self.store.deactivate()

    def predict(self, inputs: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """One sample's inputs -> output [1, outputs], with whatever edit is active."""
        self._retire_expired()
        return self.live.predict(inputs)

    def _retire_expired(self) -> None:
        """An edit past its time gives way to the prototype that it was made around."""
        with self._lock:
            state = self.live.state
            if isinstance(state, OnEdit) and state.edit.info.expires_at <= datetime.now(UTC):
                self.live.resume(OnBase())
                self._use_group(state.edit.info.prototype)

    def _use_group(self, index: int | None) -> None:
        """Run a prototype, if there is that one and it holds on this processor."""
        if index is not None and index < self.bundle.manifest.prototype_count:
            with suppress(FormatError):
                self.live.use_prototype(index)

    def observe(self, window: Sequence[NDArray[Any]]) -> Observation:
        """Make the observation of a window: unlabelled inputs [w, ...], or item ids [w]."""
        spec = self.bundle.manifest.observation
        if isinstance(spec, ItemsSpec):
            observation = ItemsObservation(window[0][-spec.max_count :])
            check_observation(spec, observation)
            return observation
        newest = [x[-spec.max_count :] for x in window]
        return pool(spec, *self.live.engine.observe(newest))

    def enrol(self, cloud: CloudClient) -> None:
        """Become known to the cloud, once."""
        if not self.store.state.token:
            enrolment = cloud.enrol()
            self.store.enrolled(enrolment.device, enrolment.token)

    def _ask(self, cloud: CloudClient, envelope: Envelope) -> SignedEdit:
        """Ask for an edit; where the cloud no longer takes our token, get another and ask again.

        An expired token is renewed, and we stay who we are; otherwise we enrol anew.
        """
        try:
            return cloud.request_edit(self.store.state.token, envelope)
        except CloudError as error:
            if error.code not in STALE_TOKEN:
                raise
        if not self._renewed(cloud):
            self._told.forget()
            self.store.forget_token()
            self.enrol(cloud)
        return cloud.request_edit(self.store.state.token, envelope)

    def _renewed(self, cloud: CloudClient) -> bool:
        """Whether the cloud gave another token for the one that we have."""
        state = self.store.state
        try:
            renewed = cloud.renew(Enrolment(state.device, state.token))
        except CloudError:
            return False
        self.store.enrolled(renewed.device, renewed.token)
        return True

    def personalise(self, cloud: CloudClient, window: Sequence[NDArray[Any]]) -> Personalisation:
        """Ask for an edit and activate it; on any failure fall back, and say why."""
        try:
            observation = self.observe(window)
        except FormatError as error:
            return self._nothing_new(error)
        return self._personalise(cloud, observation)

    def personalise_if_drifted(
        self, cloud: CloudClient, window: Sequence[NDArray[Any]]
    ) -> Personalisation | Stay:
        """The same, but only where the gate finds that it is worth it, else `Stay`."""
        try:
            observation = self.observe(window)
        except FormatError as error:
            return self._nothing_new(error)
        decision = self.gate(observation)
        return decision if isinstance(decision, Stay) else self._personalise(cloud, observation)

    def gate(self, observation: Observation) -> Ask | Stay:
        """Whether it is worth asking the cloud about this observation."""
        with self._lock:
            self._retire_expired()
            spec, state = self.bundle.manifest.observation, self.live.state
            running = state.edit.info if isinstance(state, OnEdit) else None
            kept = self.store.state.edit is not None
            told = self._told.read(spec)
            return decide(spec, told, observation, running, kept, datetime.now(UTC))

    def _nothing_new(self, why: Exception, wanted: str | None = None) -> Personalisation:
        return Personalisation(self.live.state, str(why), None, None, None, wanted)

    def _personalise(self, cloud: CloudClient, observation: Observation) -> Personalisation:
        envelope = Envelope(self.bundle.digest, observation)
        wanted = None
        try:
            self.enrol(cloud)
            sent = time.perf_counter()
            answer = self._ask(cloud, envelope)
            received = time.perf_counter()
            wanted = answer.wanted
            self._told.keep(envelope)
            if answer.keys > self.keys.sequence:
                self.learn_keys(cloud)
            active_ms = self._try(cloud, answer)
        except (OfflineError, CloudError, FormatError, PlaceError) as error:
            if isinstance(error, CloudError):
                wanted = error.bundle
            self.fall_back(observation)
            return self._nothing_new(error, wanted)
        return Personalisation(
            self.live.state, None, len(answer.data), active_ms, (received - sent) * 1e3, wanted
        )

    def learn_keys(self, cloud: CloudClient) -> None:
        """Trust what the cloud's key documents say, as far as they can be had and hold.

        An edit whose key is no longer trusted gives way to the prototype that it was made around.
        """
        with suppress(OfflineError, CloudError, FormatError, PlaceError):
            self.keys.catch_up(cloud, datetime.now(UTC))
        with self._lock:
            stored, state = self.store.active(), self.live.state
            if stored is None or not isinstance(state, OnEdit):
                return
            if not self.keys.edit_keys(datetime.now(UTC)).knows(stored[1].key_id):
                self.live.resume(OnBase())
                self._use_group(state.edit.info.prototype)
                with suppress(PlaceError):
                    self.store.deactivate()

    def _try(self, cloud: CloudClient, answer: SignedEdit) -> float:
        """Accept an edit and tell the cloud, once, whether this version works here."""
        try:
            active_ms = self.accept(answer.data, answer.signature)
        except FormatError as error:
            if error.code in (Code.PROBE_MISMATCH, Code.PROBE_NO_EFFECT):
                self._report(cloud, answer, str(error.code))
            raise
        self._report(cloud, answer, "ok")
        return active_ms

    def _report(self, cloud: CloudClient, answer: SignedEdit, outcome: str) -> None:
        if answer.wanted is None or outcome == self._reported:
            return
        with suppress(OfflineError, CloudError):
            cloud.report(self.store.state.token, self.bundle.digest, outcome)
            self._reported = outcome

    def accept(self, data: bytes, signature: Signature) -> float:
        """Verify, swap, probe and keep an edit. Returns milliseconds until it was active.

        Raises FormatError with a stable code, or PlaceError where the edit cannot be kept; then
        nothing has changed.
        """
        with self._lock:
            return self._accept(data, signature)

    def _accept(self, data: bytes, signature: Signature) -> float:
        before = self.live.state
        start = time.perf_counter()
        edit = self._verify(data, signature, newer_than=self.store.state.sequence)
        try:
            self.live.use_edit(edit)
        except FormatError:
            with suppress(PlaceError):
                self.store.refused(edit.info.sequence)
            raise
        active_ms = (time.perf_counter() - start) * 1e3
        try:
            self.store.activate(data, signature, edit.info.sequence)
        except PlaceError:
            self.live.resume(before)
            raise
        return active_ms

    def _verify(self, data: bytes, signature: Signature, newer_than: int) -> Edit:
        expected = self.bundle.expectation(self.store.state.device, newer_than)
        now = datetime.now(UTC)
        return verify_edit(data, signature, self.keys.edit_keys(now), expected, now)

    def fall_back(self, observation: Observation) -> None:
        """Without the cloud: the last edit while it is good, else a prototype, else the base.

        A prototype that fails its golden output on this processor is not used.
        """
        with self._lock:
            self._retire_expired()
            if isinstance(self.live.state, OnEdit) or not self.bundle.manifest.prototype_count:
                return
            vector = observation_vector(self.bundle.manifest.observation, observation)
            self._use_group(self.bundle.prototypes.assign(vector))

    def roll_back(self) -> None:
        """Take the edit back: the base runs again, bit for bit, now and after a restart."""
        with self._lock:
            self.live.resume(OnBase())
            self.store.deactivate()
