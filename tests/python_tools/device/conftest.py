"""A cloud over real HTTP, devices' windows, and edits signed with the cloud's key, good or bad."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from persona.bundles import Bundle
from persona.device.device import Device
from persona.formats.edit import EditInfo, encode_edit
from persona.formats.slots import SlotSpec
from persona.formats.verify import Edit, Signature, verify_edit
from persona.runs import Run
from persona.training.pipeline import open_dataset
from persona_cloud import CloudConfig, create_app
from persona_cloud.serving import running

Change = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Issue:
    """Signs edits as the cloud does; the probe comes from eager PyTorch edited by hand."""

    run: Run
    bundle: Bundle
    by_hand: Callable[..., nn.Module]

    @property
    def slots(self) -> tuple[SlotSpec, ...]:
        return self.run.record.slots

    def change(self, seed: int = 0, share: float = 0.5) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        return {
            f"{slot.name}.{suffix}": (
                random.uniform(-share, share, shape) * slot.limits()[suffix]
            ).astype(np.float32)
            for slot in self.slots
            for suffix, shape in slot.tensors().items()
        }

    def output(self, change: Change, inputs: Mapping[str, np.ndarray], prototype: int | None):
        """What eager PyTorch makes of inputs under a change beside a prototype."""
        group = [] if prototype is None else [self.bundle.prototypes.changes[prototype]]
        model = self.by_hand(self.run.backbone, self.slots, change, *group)
        with torch.no_grad():
            return model(*(torch.from_numpy(x.copy()) for x in inputs.values())).numpy()

    def __call__(
        self,
        device: str,
        change: Change | None = None,
        probe: np.ndarray | None = None,
        **info: Any,
    ) -> tuple[bytes, Signature]:
        """A good edit for `device`, unless told otherwise."""
        change = self.change() if change is None else change
        now = datetime.now(UTC)
        said = {
            "model": self.run.model,
            "bundle": self.bundle.digest,
            "device": device,
            "sequence": 1,
            "prototype": None,
            "issued_at": now,
            "expires_at": now + timedelta(days=7),
        } | info
        if probe is None:
            probe = self.output(change, self.bundle.golden.inputs[0], said["prototype"])
        data = encode_edit(EditInfo(**said), change, probe)
        return data, self.run.edit_key().sign(data)

    def verified(self, **changes: Any) -> Edit:
        """The same, as verification returns it."""
        data, signature = self("me", **changes)
        expected = self.bundle.expectation("me", 0)
        return verify_edit(data, signature, self.bundle.edit_keys(), expected, datetime.now(UTC))


@pytest.fixture(scope="session")
def issue(digits_run: Run, digits_bundle: Bundle, edited_by_hand) -> Issue:
    return Issue(digits_run, digits_bundle, edited_by_hand)


@pytest.fixture(scope="session")
def sasrec_issue(sasrec_run: Run, sasrec_bundle: Bundle, edited_by_hand) -> Issue:
    return Issue(sasrec_run, sasrec_bundle, edited_by_hand)


@pytest.fixture(scope="session")
def cloud_url(digits_run: Run, digits_bundle: Bundle, tmp_path_factory) -> Iterator[str]:
    database = tmp_path_factory.mktemp("cloud") / "cloud.sqlite"
    config = CloudConfig(digits_run.path, digits_bundle.path, f"sqlite:///{database}")
    with running(create_app(config)) as url:
        yield url


@pytest.fixture(scope="session")
def windows(digits_run: Run) -> list[tuple[np.ndarray, ...]]:
    """What three unseen devices saw."""
    devices = open_dataset(digits_run.record.config, None).devices("test", 3, 0)
    return [device.window for device in devices]


@pytest.fixture
def phone(digits_bundle: Bundle, tmp_path: Path) -> Device:
    """A device that the cloud knows as `me`, with no edit."""
    device = Device(digits_bundle, tmp_path / "phone")
    device.store.enrolled("me", "secret")
    return device
