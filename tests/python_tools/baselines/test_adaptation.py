"""Adaptation to a window, each computed a second time, literally and device by device."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from persona.backbones import Backbone
from persona.baselines import batch_norm_statistics, device_norms, fine_tuning, lame, t3a, tent
from persona.baselines.base import Setting
from persona.baselines.validation_choice import best
from persona.data import DataError

from .conftest import unseen


def literal_batch_norms(backbone: Backbone, window: torch.Tensor, strength: float) -> Backbone:
    """A copy whose running statistics are mixed with the window's, layer after layer."""
    copied = copy.deepcopy(backbone)
    for name, layer in list(copied.named_modules()):
        if not isinstance(layer, nn.BatchNorm2d):
            continue
        taken = []
        hook = copied.get_submodule(name).register_forward_pre_hook(
            lambda _layer, given, taken=taken: taken.append(given[0])
        )
        with torch.no_grad():
            copied(window)
        hook.remove()
        x, n = taken[0].transpose(0, 1).flatten(1), len(window)
        mean = (strength * layer.running_mean + n * x.mean(1)) / (strength + n)
        variance = (strength * layer.running_var + n * x.var(1, correction=0)) / (strength + n)
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)
    return copied


@pytest.mark.parametrize("strength", [0.0, 16.0])
def test_batch_norm_statistics_follow_the_formula_of_schneider_et_al(images: Setting, strength):
    fleet = unseen(images)
    rival = batch_norm_statistics.BatchNormStatistics()
    rival.strength = strength
    found = rival.outputs(images, fleet)
    for device, said in zip(fleet.devices, found, strict=True):
        copied = literal_batch_norms(images.backbone, torch.from_numpy(device.window[0]), strength)
        with torch.no_grad():
            expected = copied(torch.from_numpy(device.queries[0]))
        assert torch.allclose(said, expected, atol=1e-4)


def test_much_trust_in_the_source_is_the_static_model(images: Setting):
    fleet = unseen(images)
    rival = batch_norm_statistics.BatchNormStatistics()
    rival.strength = 1e12
    assert torch.allclose(
        rival.outputs(images, fleet), images.static_outputs(fleet.tensors), atol=1e-4
    )


def test_tent_takes_the_step_that_adam_takes_on_the_entropy(images: Setting):
    """With statistics of the window alone: what PyTorch's training mode normalises by."""
    rate, fleet = 1e-2, unseen(images)
    found = tent.adapted(images, fleet.devices, (1, 2), rate, 0.0)[2]
    for device, said in zip(fleet.devices[:3], found, strict=False):
        copied = copy.deepcopy(images.backbone).train()
        norms = [m for m in copied.modules() if isinstance(m, nn.BatchNorm2d)]
        parts = [p for m in norms for p in (m.weight, m.bias)]
        for part in parts:
            part.requires_grad_(True)
        window = torch.from_numpy(device.window[0])
        moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parts]
        for step in (1, 2):
            p = copied(window).softmax(1)
            entropy = -(p * p.log()).sum(1).mean()
            for part, (m, v), g in zip(
                parts, moments, torch.autograd.grad(entropy, parts), strict=True
            ):
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                move = (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
                part.data -= rate * move
        copied = literal_batch_norms(copied.eval(), window, 0.0)
        with torch.no_grad():
            expected = copied(torch.from_numpy(device.queries[0]))
        assert torch.allclose(said, expected, atol=1e-3)


def test_layer_and_group_normalisation_get_their_own_affine_part_for_each_device():
    class Normed(Backbone):
        task = "classification"

        def __init__(self):
            super().__init__()
            self.trunk = nn.Sequential(nn.Conv1d(4, 4, 1), nn.GroupNorm(2, 4), nn.Flatten())
            self.head = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 3))

    torch.manual_seed(0)
    backbone = Normed().eval().requires_grad_(False)
    inputs = torch.randn(2, 5, 4, 3)
    affine = device_norms.shared_affine(backbone, 2)
    for value in affine.values():
        value[1] += torch.randn(value[1].shape)
    found = device_norms.DeviceNorms(backbone, 0.0, affine).queries((inputs,))
    for device in (0, 1):
        copied = copy.deepcopy(backbone)
        for name, value in affine.items():
            copied.get_parameter(name).data.copy_(value[device])
        assert torch.allclose(found[device], copied(inputs[device]), atol=1e-5)


def penultimate(backbone: Backbone, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        hidden = backbone.head[:-1](backbone.trunk(torch.from_numpy(x)))
        return hidden.double().numpy(), backbone.head[-1](hidden).double().numpy()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


@pytest.mark.parametrize("most", [1, 3, 100])
def test_t3a_is_the_loop_over_samples_and_classes_of_its_paper(images: Setting, most):
    fleet = unseen(images)
    found = t3a.adjusted(images, fleet.devices, (most,))[most].numpy()
    last = images.backbone.head[-1]
    weight, bias = last.weight.double().numpy(), last.bias.double().numpy()
    for device, said in zip(fleet.devices, found, strict=True):
        features, logits = penultimate(images.backbone, device.window[0])
        support = {k: [(row, weight @ row + bias)] for k, row in enumerate(weight)}
        for z, logit in zip(features, logits, strict=True):
            support[int(logit.argmax())].append((z, logit))
        centres = []
        for members in support.values():
            surest = sorted(members, key=lambda m: -sum(p * math.log(p) for p in softmax(m[1])))
            total = sum(z / np.linalg.norm(z) for z, _ in surest[:most])
            centres.append(total / np.linalg.norm(total))
        queries, _ = penultimate(images.backbone, device.queries[0])
        assert said == pytest.approx(queries @ np.stack(centres).T, abs=1e-4)


def test_lame_is_the_fixed_point_over_nearest_neighbours(images: Setting):
    k, fleet = 3, unseen(images)
    found = lame.smoothed(images, fleet.devices, k)
    for device, said in zip(fleet.devices, found, strict=True):
        features, logits = penultimate(images.backbone, device.window[0])
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        posterior = np.stack([softmax(row) for row in logits])
        z = posterior
        for _ in range(200):
            rows = []
            for i in range(len(unit)):
                others = sorted(
                    (j for j in range(len(unit)) if j != i), key=lambda j: -unit[i] @ unit[j]
                )
                rows.append(softmax(np.log(posterior[i]) + sum(z[j] for j in others[:k])))
            z = np.stack(rows)
        queries, asked = penultimate(images.backbone, device.queries[0])
        for query, logit, answer in zip(queries, asked, said, strict=True):
            near = np.argsort(-(unit @ query))[:k]
            expected = softmax(np.log(softmax(logit)) + z[near].sum(0))
            assert answer.softmax(0).numpy() == pytest.approx(expected, abs=1e-3)


def test_fine_tuning_takes_adams_steps_on_the_labelled_window(images: Setting):
    fleet = unseen(images)
    found = fine_tuning.tuned(images, fleet, (1, 3), 1e-2)[3]
    for device, said in zip(fleet.devices, found, strict=True):
        copied = copy.deepcopy(images.backbone)
        copied.head.requires_grad_(True)
        optimiser = torch.optim.Adam(copied.head.parameters(), lr=1e-2)
        for _ in range(3):
            optimiser.zero_grad()
            logits = copied(torch.from_numpy(device.window[0]))
            nn.functional.cross_entropy(logits, torch.from_numpy(device.window_targets)).backward()
            optimiser.step()
        with torch.no_grad():
            expected = copied(torch.from_numpy(device.queries[0]))
        assert torch.allclose(said, expected, atol=1e-3)


def test_fine_tuning_says_which_device_has_no_labels(images: Setting):
    device = replace(unseen(images).devices[0], window_targets=None)
    with pytest.raises(DataError, match=f"{device.name} has no window_targets"):
        fine_tuning.tuned(images, images.fleet([device]), (1,), 1e-2)


def test_settings_are_chosen_by_validation_devices_and_of_equals_the_first(images: Setting):
    targets = images.validation.tensors.targets
    right = nn.functional.one_hot(targets, 10).float()
    answers = [("wrong", right.roll(1, 2)), ("right", right), ("as right", 2 * right)]
    assert best(images, answers) == "right"


def test_fine_tuning_learns_what_only_labels_tell(images: Setting):
    """Where each device names the classes its own way, labels help and their absence does not."""
    rng = np.random.default_rng(0)
    devices = []
    for device in unseen(images).devices:
        names = rng.permutation(10)
        devices.append(
            type(device)(
                device.name,
                device.window,
                device.window,
                names[device.window_targets],
                names[device.window_targets],
            )
        )
    fleet = images.fleet(devices)
    tuned = fine_tuning.tuned(images, fleet, (30,), 1e-1)[30]
    static = images.static_outputs(fleet.tensors)
    right = [(x.argmax(2) == fleet.tensors.targets).float().mean() for x in (tuned, static)]
    assert right[0] > right[1] + 0.2


def test_next_item_examples_come_from_inside_the_window(rankings: Setting):
    fleet = unseen(rankings)
    for device in fleet.devices:
        items = device.window[0].tolist()
        asked = fine_tuning._labelled(rankings, device)
        histories, candidates = asked.queries
        for history, row, target in zip(histories, candidates, asked.targets, strict=True):
            place = items.index(row[target])
            before = [0, 0, 0, *items[:place]][-2:]
            assert history.tolist() == [0, *before]
            assert not set(np.delete(row, target)) & set(items)
