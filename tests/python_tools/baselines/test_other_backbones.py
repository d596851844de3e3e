"""Rivals with a backbone of their own answer what that backbone alone would."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from persona.baselines.base import Setting
from persona.training.pipeline import build_backbone
from persona.training.stages import train_backbone

from .conftest import prepared, unseen


def test_static_larger_is_the_configured_backbone_trained_alike(images: Setting):
    rival = prepared("static-larger", images)
    fleet = unseen(images)
    assert rival.backbone.trunk.stages[0].conv.out_channels == 3
    copied = copy.deepcopy(rival.backbone)
    for device, said in zip(fleet.devices, rival.outputs(images, fleet), strict=True):
        with torch.no_grad():
            assert torch.allclose(said, copied(torch.from_numpy(device.queries[0])), atol=1e-5)


def test_another_backbones_curve_shows_the_state_that_was_kept(images: Setting):
    rival = prepared("static-larger", images)
    assert rival.backbone_curve.steps[-1] == images.config.backbone.steps
    inputs, targets = images.data.held_out()
    with torch.no_grad():
        logits = rival.backbone(*map(torch.from_numpy, inputs))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets))
    assert min(rival.backbone_curve.loss) == pytest.approx(float(loss), rel=1e-4)


def test_static_gravity_aligned_answers_windows_turned_upright(motions: Setting):
    """Turned by scipy: about the axis across gravity and down, by the angle between them."""
    rival = prepared("static-gravity-aligned", motions)
    fleet = unseen(motions)
    copied = copy.deepcopy(rival.backbone)
    for device, said in zip(fleet.devices, rival.outputs(motions, fleet), strict=True):
        turned = np.stack([upright(window) for window in device.queries[0]])
        with torch.no_grad():
            assert torch.allclose(said, copied(torch.from_numpy(turned)), atol=1e-4)


def upright(window: np.ndarray) -> np.ndarray:
    mean = window[:3].mean(axis=1)
    across = np.cross(mean, [0, 0, -1])
    angle = np.arctan2(np.linalg.norm(across), -mean[2])
    turn = Rotation.from_rotvec(angle * across / np.linalg.norm(across)).as_matrix()
    return (turn @ window.reshape(2, 3, -1)).reshape(window.shape).astype(np.float32)


def test_static_gravity_aligned_was_trained_on_turned_windows(motions: Setting):
    """Bit for bit what training on data gives whose own setting turns the windows."""
    data = copy.copy(motions.data)
    data.scenario = replace(data.scenario, gravity_aligned=True)
    torch.manual_seed(motions.seed)
    expected = build_backbone(motions.config, data.backbone_settings(), None)
    train_backbone(expected, data, motions.config.backbone, motions.seed, lambda _done, _all: None)
    found = prepared("static-gravity-aligned", motions).backbone.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.state_dict().items())
