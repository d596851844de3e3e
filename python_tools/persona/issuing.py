"""Making edits: observations become signed edit files. The cloud and `persona edit make` use it."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import torch
from numpy.typing import NDArray

from persona.bundles import Bundle
from persona.formats.edit import EditInfo, encode_edit, quantise
from persona.formats.observation import Observation
from persona.formats.slots import Array
from persona.formats.verify import Signature
from persona.runs import Run
from persona.signing import SigningKey
from persona.training.devices import edited_part, encoder_input, hidden_of


class OtherModelError(ValueError):
    """A bundle that was not exported from this run."""


class KeyNotInBundleError(ValueError):
    """A bundle that does not name the key which signs edits here: devices would refuse them."""


@dataclass(frozen=True)
class Request:
    """One device's wish: its observation, and the sequence number that its edit shall have."""

    device: str
    sequence: int
    observation: Observation


@dataclass(frozen=True)
class Issued:
    """A signed edit, and the latent that may be kept for refining prototypes."""

    data: bytes
    signature: Signature
    info: EditInfo
    latent: Array


@dataclass(frozen=True)
class Computed:
    """What the adapter makes of an observation: an edit that lacks whom it is for."""

    observation: Observation
    prototype: int
    tensors: Mapping[str, NDArray[np.float16]]
    probe: Array
    latent: Array


class Issuer:
    """Answers observations with signed edits for one bundle. Safe to call from several threads."""

    def __init__(
        self,
        run: Run,
        bundle: Bundle,
        lifetime: timedelta = timedelta(days=7),
        signer: Callable[[], SigningKey] | None = None,
    ) -> None:
        """signer: the key of the moment, where keys change; devices must know it.

        Raises OtherModelError or KeyNotInBundleError.
        """
        if bundle.manifest.model != run.model:
            raise OtherModelError(
                f"{bundle.path} was exported from {bundle.manifest.model}, {run.path} is "
                f"{run.model}; export this run again with `persona export`"
            )
        self.run, self.bundle, self.lifetime = run, bundle, lifetime
        self._signer = signer or _own_signer(run, bundle)
        self._personaliser = run.personaliser()
        self._lock = threading.Lock()
        slots = bundle.manifest.slots
        probed = (bundle.golden.inputs[0][port.name] for port in bundle.manifest.inputs)
        queries = tuple(torch.from_numpy(values[None].copy()) for values in probed)
        self._edited, _ = edited_part(run.backbone, slots)
        self._probe_inputs = tuple(x[0] for x in hidden_of(run.backbone, slots, queries))

    def issue(self, requests: Sequence[Request], now: datetime | None = None) -> list[Issued]:
        """One forward for all requests; the answers in the same order."""
        made, key = self.compute([request.observation for request in requests]), self.key()
        return [
            self.sign(computed, key, request.device, request.sequence, now)
            for request, computed in zip(requests, made, strict=True)
        ]

    def key(self) -> SigningKey:
        """The key that signs at this moment."""
        return self._signer()

    def compute(self, observations: Sequence[Observation]) -> list[Computed]:
        """One forward for all observations; the answers in the same order."""
        manifest = self.bundle.manifest
        rows = [encoder_input(manifest.observation, observation) for observation in observations]
        with self._lock, torch.inference_mode():
            made = self._personaliser(torch.from_numpy(np.stack(rows)))
            edit = {name: value.numpy() for name, value in made.edit.items()}
            rounded = quantise(manifest.slots, edit)
            as_sent = {
                name: torch.from_numpy(value.astype(np.float32)) for name, value in rounded.items()
            }
            probes = self._personaliser.probe(
                self._edited, made.prototype, as_sent, self._probe_inputs
            ).numpy()
        return [
            Computed(
                observation,
                int(made.prototype[i]),
                {name: value[i] for name, value in rounded.items()},
                probes[i],
                made.codes[i].flatten().numpy(),
            )
            for i, observation in enumerate(observations)
        ]

    def sign(
        self,
        computed: Computed,
        key: SigningKey,
        device: str,
        sequence: int,
        now: datetime | None = None,
    ) -> Issued:
        """The edit for a device, with the sequence number that it was given."""
        issued_at = (now or datetime.now(UTC)).replace(microsecond=0)
        info = EditInfo(
            model=self.bundle.manifest.model,
            bundle=self.bundle.digest,
            device=device,
            sequence=sequence,
            prototype=computed.prototype,
            issued_at=issued_at,
            expires_at=issued_at + self.lifetime,
        )
        data = encode_edit(info, computed.tensors, computed.probe)
        return Issued(data, key.sign(data), info, computed.latent)


def _own_signer(run: Run, bundle: Bundle) -> Callable[[], SigningKey]:
    key = run.edit_key()
    check_named(key, bundle)
    return lambda: key


def check_named(key: SigningKey, bundle: Bundle) -> None:
    """Raises KeyNotInBundleError where the bundle does not name a key that signs edits for it."""
    if not bundle.edit_keys().knows(key.id):
        raise KeyNotInBundleError(
            f"edits are signed with key {key.id}, which {bundle.path} does not name; restore the "
            "run's keys folder, or export the bundle again"
        )
