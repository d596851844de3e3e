"""Prototypes follow a drift and are fitted to it, and a table shows both beside the old bank."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from persona.baselines import rivals
from persona.baselines.base import Setting
from persona.data.streams import streams
from persona.training.devices import edited_part, losses

from .conftest import prepared, unseen

NAMES = ("followed-prototypes", "refitted-prototypes")


@pytest.fixture(scope="module")
def drifting(images: Setting) -> Setting:
    """With centres at random devices' latents, and group edits that serve nobody."""
    evaluation = replace(images.config.evaluation, drift="stripes")
    fitting = replace(images.config.prototypes, steps=20)
    config = replace(images.config, evaluation=evaluation, prototypes=fitting)
    setting = replace(images, config=config)
    personaliser = setting.personaliser
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(8)
        codes = personaliser.adapter.codes(setting.train.observations).flatten(1)
        personaliser.bank.centres.copy_(codes[:2])
        for value in personaliser.bank.raw.values():
            value.uniform_(-0.4, 0.4)
    return setting


def striped(setting: Setting, split: str, seed: int = 0):
    devices = setting.data.devices(split, 24, seed)
    return setting.fleet(streams["stripes"]().spoil(devices, np.random.default_rng(1)))


def spread(setting: Setting, centres: torch.Tensor) -> float:
    """Mean squared distance of drifted latents from their nearest centre, of devices not seen."""
    seen = striped(setting, "test", 5).tensors.observations
    with torch.no_grad():
        latents = setting.personaliser.adapter.codes(seen).flatten(1).double().numpy()
    far = ((latents[:, None] - centres.double().numpy()[None]) ** 2).sum(2)
    return float(far.min(1).mean())


def test_without_a_drift_there_is_nothing_to_follow(images, drifting):
    assert not any(rivals[name]().applies(images) for name in NAMES)
    assert all(rivals[name]().applies(drifting) for name in NAMES)


def test_centres_come_nearer_to_drifted_devices(drifting):
    followed = prepared("followed-prototypes", drifting)
    old = drifting.personaliser.bank.centres
    assert spread(drifting, followed.bank.centres) < spread(drifting, old)


def test_the_bank_of_the_run_stays_as_it_was(drifting):
    before = {k: v.clone() for k, v in drifting.personaliser.state_dict().items()}
    prepared("refitted-prototypes", drifting)
    after = drifting.personaliser.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_each_device_gets_the_group_edit_of_the_nearest_followed_centre(drifting):
    rival, fleet = prepared("followed-prototypes", drifting), unseen(drifting)
    found = rival.outputs(drifting, fleet)
    adapter = drifting.personaliser.adapter
    for d, device in enumerate(fleet.devices):
        alone = drifting.fleet([device])
        with torch.no_grad():
            latent = adapter.codes(alone.tensors.observations).flatten(1)
        k = int((rival.bank.centres - latent).square().sum(1).argmin())
        edit = {name: value[k : k + 1] for name, value in rival.bank.edits().items()}
        assert torch.allclose(drifting.outputs(edit, alone.tensors)[0], found[d], atol=1e-5)


def test_fitting_lowers_the_loss_of_drifted_devices(drifting):
    """On the devices that it is chosen on: group edits that do not gain there stay."""
    module, _ = edited_part(drifting.backbone, drifting.slots)
    held = drifting.validation.devices
    rng = np.random.default_rng(3)
    tensors = drifting.fleet(streams["stripes"]().spoil(held, rng)).tensors

    def loss(name: str) -> float:
        bank = prepared(name, drifting).bank
        with torch.no_grad():
            own, _ = drifting.personaliser.adapter(tensors.observations)
            change = bank.chosen(bank.assign(own))
            return float(losses(module, drifting.slots, change, tensors).mean())

    assert loss("refitted-prototypes") < loss("followed-prototypes")
