"""Stages keep their best state, leave the backbone alone, and do the same twice."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from persona.backbones import Backbone
from persona.data.streams import streams
from persona.formats.observation import pool
from persona.method.slots import applied, compose, make_slot
from persona.training.config import AdapterConfig, BackboneConfig, ConfigError, PrototypeConfig
from persona.training.devices import (
    DeviceTensors,
    edited_part,
    encoder_input,
    losses,
    observe,
    to_tensors,
)
from persona.training.pipeline import (
    DEVICE_SEED,
    build_backbone,
    build_observation,
    build_slots,
    check_windows,
    observe_devices,
    train,
)
from persona.training.stages import refine_jointly, train_adapter, train_backbone


def silent(_done: int, _all: int) -> None:
    pass


class Preference(Backbone):
    """Two logits and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Identity()
        self.head = nn.Linear(1, 2)


class Opposite:
    """Training wants class 1, held-out devices want class 0: every step makes it worse."""

    def batch(self, _rng, size: int):
        return (np.ones((size, 1), np.float32),), np.ones(size, np.int64)

    def held_out(self):
        return (np.ones((700, 1), np.float32),), np.zeros(700, np.int64)


def held_out_loss(backbone: Backbone, data) -> float:
    (inputs,), targets = data.held_out()
    with torch.no_grad():
        return float(F.cross_entropy(backbone(torch.from_numpy(inputs)), torch.from_numpy(targets)))


def test_a_rising_curve_does_not_spoil_the_best_state():
    torch.manual_seed(0)
    backbone = Preference()
    config = BackboneConfig("", steps=60, batch=8, learning_rate=0.1, checks=6)
    curve = train_backbone(backbone, Opposite(), config, 0, silent)
    assert curve.steps == (10, 20, 30, 40, 50, 60)
    assert list(curve.loss) == sorted(curve.loss)
    assert curve.loss[-1] > 1.5 * curve.loss[0]
    assert held_out_loss(backbone, Opposite()) == pytest.approx(curve.loss[0], rel=1e-6)


def test_a_falling_curve_ends_with_its_last_state():
    class Agreeing(Opposite):
        def held_out(self):
            return (np.ones((700, 1), np.float32),), np.ones(700, np.int64)

    backbone = Preference()
    config = BackboneConfig("", steps=60, batch=8, learning_rate=0.1, checks=6)
    curve = train_backbone(backbone, Agreeing(), config, 0, silent)
    assert held_out_loss(backbone, Agreeing()) == pytest.approx(curve.loss[-1], rel=1e-6)
    assert curve.loss[-1] < 0.5 * curve.loss[0]


@pytest.mark.parametrize("checks", [1, 4, 10])
@pytest.mark.parametrize("steps", [1, 2, 7, 10])
def test_however_few_the_steps_the_last_is_checked(steps, checks):
    backbone, seen = Preference(), []
    before = copy.deepcopy(backbone.state_dict())
    config = BackboneConfig("", steps=steps, batch=4, checks=checks)
    curve = train_backbone(
        backbone, Opposite(), config, 0, lambda done, total: seen.append((done, total))
    )
    assert seen == [(i + 1, steps) for i in range(steps)]
    assert curve.steps[-1] == steps
    assert len(curve.steps) == len(curve.loss) == min(steps, checks)
    assert any(not torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_without_steps_the_state_stays_and_is_checked_once():
    backbone = Preference()
    before = copy.deepcopy(backbone.state_dict())
    curve = train_backbone(backbone, Opposite(), BackboneConfig("", steps=0), 0, silent)
    assert curve.steps == (0,)
    assert curve.loss[0] == pytest.approx(held_out_loss(backbone, Opposite()), rel=1e-6)
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    assert not any(p.requires_grad for p in backbone.parameters())


def test_the_trained_backbone_is_frozen_and_in_evaluation_mode(trained):
    assert not any(p.requires_grad for p in trained.backbone.parameters())
    for module in (trained.backbone, trained.adapter, trained.bank):
        assert not any(m.training for m in module.modules())


def test_each_stage_leaves_the_state_with_the_least_loss_on_its_curve(trained, data):
    """The losses recomputed from the saved state, on the devices that chose it."""
    curves = trained.curves
    assert held_out_loss(trained.backbone, data) == pytest.approx(
        min(curves["backbone"].loss), rel=1e-5
    )
    devices = data.devices(
        "validation", trained.config.adapter.validation_devices, DEVICE_SEED + trained.config.seed
    )
    tensors = to_tensors(trained.backbone, trained.slots, trained.observation, devices)
    module, _ = edited_part(trained.backbone, trained.slots)
    with torch.no_grad():
        edit, _ = trained.adapter(tensors.observations)
        own = losses(module, trained.slots, edit, tensors).mean()
        groups = trained.bank.chosen(trained.bank.assign(edit))
        shared = losses(module, trained.slots, groups, tensors).mean()
    assert own.item() == pytest.approx(min(curves["adapter"].loss), rel=1e-4)
    assert shared.item() == pytest.approx(min(curves["prototypes"].loss), rel=1e-2)


def small(config):
    return replace(
        config,
        backbone=replace(config.backbone, steps=10, checks=2),
        adapter=replace(config.adapter, devices=20, validation_devices=8, steps=4, checks=2),
        prototypes=PrototypeConfig(count=2, steps=4),
    )


def state_of(trained) -> dict[str, Tensor]:
    parts = {"backbone": trained.backbone, "adapter": trained.adapter, "bank": trained.bank}
    found = {f"{n}.{k}": v for n, part in parts.items() for k, v in part.state_dict().items()}
    return found | {f"rule.{k}": v for k, v in vars(trained.rule).items()}


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_all_stages_work_with_few_steps_and_the_same_seed_gives_the_same_run(config, data, steps):
    wanted = small(config)
    wanted = replace(wanted, adapter=replace(wanted.adapter, steps=steps))
    torch.manual_seed(99)
    one = train(wanted, data, None, lambda _: silent)
    torch.manual_seed(123)
    two = train(wanted, data, None, lambda _: silent)
    assert one.curves == two.curves
    again = state_of(two)
    assert all(torch.equal(value, again[name]) for name, value in state_of(one).items())
    assert all(torch.isfinite(v.float()).all() for v in again.values())


def test_another_seed_gives_another_run(config, data):
    wanted = small(config)
    one = train(wanted, data, None, lambda _: silent)
    two = train(replace(wanted, seed=1), data, None, lambda _: silent)
    other = state_of(two)
    assert all(
        not torch.equal(value, other[name])
        for name, value in state_of(one).items()
        if name.endswith("weight")
    )


def test_the_backbone_does_not_change_while_the_adapter_trains(trained, data):
    slots = (make_slot(trained.backbone, "trunk.project", "dense"), *trained.slots)
    tensors = to_tensors(
        trained.backbone, slots, trained.observation, data.devices("adapter", 12, 3)
    )
    module, head_only = edited_part(trained.backbone, slots)
    assert not head_only
    assert module is trained.backbone
    before = copy.deepcopy(trained.backbone.state_dict())

    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slots = slots
            self.edit = nn.ParameterDict(
                {
                    f"{s.name}.{x}".replace(".", "/"): nn.Parameter(torch.zeros(shape))
                    for s in slots
                    for x, shape in s.tensors().items()
                }
            )

        def forward(self, observations: Tensor):
            count = len(observations)
            return {
                name.replace("/", "."): value.expand(count, *value.shape)
                for name, value in self.edit.items()
            }, None

    config = AdapterConfig(steps=3, batch=6, checks=1)
    adapter = Constant()
    train_adapter(adapter, module, tensors, tensors, config, 0, silent)
    assert all(v.any() for v in adapter.edit.values())
    assert all(torch.equal(v, before[k]) for k, v in trained.backbone.state_dict().items())


def test_every_device_is_seen_once_an_epoch(trained, unseen):
    """An adapter that notes which devices each step brings."""
    count, batch = 12, 4

    class Noting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slots = trained.slots
            self.value = nn.Parameter(torch.zeros(()))
            self.seen: list[list[int]] = []

        def forward(self, observations: Tensor):
            if self.training:
                self.seen.append(observations.tolist())
            return {
                f"{s.name}.{x}": self.value.expand(len(observations), *shape)
                for s in self.slots
                for x, shape in s.tensors().items()
            }, None

    devices = replace(unseen, observations=torch.arange(count))
    adapter = Noting()
    module, _ = edited_part(trained.backbone, trained.slots)
    config = AdapterConfig(steps=9, batch=batch, checks=1)
    train_adapter(adapter, module, devices, devices, config, 0, silent)
    epochs = np.array(adapter.seen).reshape(3, count)
    assert (np.sort(epochs, axis=1) == np.arange(count)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 3, "in another order each time"


def test_devices_observed_together_tell_what_each_tells_alone(trained, data):
    devices = data.devices("test", 70, 6)
    together = observe(trained.backbone, trained.observation, devices)
    for device, found in list(zip(devices, together, strict=True))[::23]:
        with torch.no_grad():
            features, posterior = trained.backbone.features(torch.from_numpy(device.window[0]))
        alone = pool(trained.observation, features.numpy(), posterior.numpy())
        np.testing.assert_allclose(found.vector(), alone.vector(), rtol=1e-4, atol=1e-5)


def test_only_the_newest_samples_that_fit_are_observed(trained, data):
    spec = replace(trained.observation, max_count=5)
    (device,) = data.devices("test", 1, 6)
    newest = replace(device, window=(device.window[0][-5:],))
    found, expected = observe(trained.backbone, spec, [device, newest])
    assert found.count == 5
    np.testing.assert_array_equal(found.vector(), expected.vector())


def test_the_encoder_reads_the_vector_that_the_device_sent(trained, data):
    (device,) = data.devices("test", 1, 6)
    (found,) = observe(trained.backbone, trained.observation, [device])
    np.testing.assert_array_equal(encoder_input(trained.observation, found), found.vector())


def test_losses_through_head_and_whole_model_are_those_of_the_edited_backbone(trained, data):
    """The trunk computed once changes nothing: compared with editing in place, one by one."""
    devices = data.devices("test", 5, 8)
    slots, spec, backbone = trained.slots, trained.observation, trained.backbone
    head = to_tensors(backbone, slots, spec, devices)
    whole = DeviceTensors(
        head.observations,
        head.vectors,
        (torch.from_numpy(np.stack([d.queries[0] for d in devices])),),
        head.targets,
    )
    module, head_only = edited_part(backbone, slots)
    assert head_only
    with torch.no_grad():
        edit, _ = trained.adapter(head.observations)
        fast = losses(module, slots, edit, head)
        slow = losses(backbone, slots, edit, whole)
        for d, device in enumerate(devices):
            with applied(backbone, slots, {n: v[d] for n, v in edit.items()}):
                logits = backbone(torch.from_numpy(device.queries[0]))
            expected = F.cross_entropy(logits, torch.from_numpy(device.targets))
            torch.testing.assert_close(fast[d], expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(slow[d], expected, rtol=1e-4, atol=1e-5)


def test_the_devices_rule_is_a_clamped_linear_map(trained, unseen):
    rule = {name: value.double().numpy() for name, value in vars(trained.rule).items()}
    vectors = unseen.vectors.clone()
    vectors[0, 0] = 1e6
    standard = (vectors.double().numpy() - rule["mean"]) / rule["deviation"]
    scores = np.clip(standard, -6, 6) @ rule["weight"].T + rule["bias"]
    np.testing.assert_array_equal(trained.rule.assign(vectors).numpy(), scores.argmax(1))


def test_the_devices_rule_was_fitted_to_what_its_choices_cost(trained, data):
    """On its training devices it costs less than any one prototype for all."""
    config = trained.config
    devices = data.devices("adapter", config.adapter.devices, DEVICE_SEED + config.seed)
    tensors = to_tensors(trained.backbone, trained.slots, trained.observation, devices)
    module, _ = edited_part(trained.backbone, trained.slots)

    def cost(chosen: Tensor) -> float:
        with torch.no_grad():
            change = trained.bank.chosen(chosen)
            return float(losses(module, trained.slots, change, tensors).mean())

    fixed = [cost(torch.full((len(tensors),), k)) for k in range(trained.bank.count)]
    assert cost(trained.rule.assign(tensors.vectors)) < min(fixed)


# -- Refining bank, rule and adapter together


def expected_costs(bank, rule, adapter, module, devices: DeviceTensors) -> tuple[float, float]:
    """Mean loss under individual edits, and under the prototype that the rule chooses."""
    with torch.no_grad():
        edit, _ = adapter(devices.observations)
        k = bank.assign(edit)
        own = compose(bank.slots, bank.chosen(k), bank.relative(edit, k))
        individual = losses(module, bank.slots, own, devices).mean()
        grouped = losses(module, bank.slots, bank.chosen(rule.assign(devices.vectors)), devices)
    return float(individual), float(grouped.mean())


@pytest.mark.parametrize("learning_rate", [1e-3, 3.0])
def test_joint_refinement_is_better_on_validation_devices_or_changes_nothing(
    trained, data, learning_rate
):
    config = replace(trained.config.prototypes, joint_steps=30, joint_learning_rate=learning_rate)
    adapter, bank = copy.deepcopy(trained.adapter), copy.deepcopy(trained.bank)
    module, _ = edited_part(trained.backbone, trained.slots)
    seed = DEVICE_SEED + trained.config.seed
    train_devices, validation = (
        to_tensors(
            trained.backbone, trained.slots, trained.observation, data.devices(split, count, seed)
        )
        for split, count in (("adapter", 120), ("validation", 40))
    )
    before = expected_costs(bank, trained.rule, adapter, module, validation)
    rule, curve = refine_jointly(
        adapter, bank, trained.rule, module, train_devices, validation, config, 0, silent
    )
    after = expected_costs(bank, rule, adapter, module, validation)
    assert curve.loss[0] == pytest.approx(sum(before), rel=1e-5)
    assert sum(after) == pytest.approx(min(curve.loss), rel=1e-5)
    assert sum(after) <= sum(before) + 1e-6
    moved = not torch.equal(rule.weight, trained.rule.weight)
    assert moved == (min(curve.loss) < curve.loss[0])


def test_joint_refinement_is_taught_and_judged_on_spoilt_windows_too(trained, data):
    """Individual edits are judged on all windows; the prototypes alone on those in order."""
    config = replace(trained.config.prototypes, joint_steps=30, joint_learning_rate=1e-3)
    module, _ = edited_part(trained.backbone, trained.slots)
    seed = DEVICE_SEED + trained.config.seed
    found = data.devices("adapter", 40, seed), data.devices("validation", 40, seed)
    spoilt = [streams["short"]().spoil(devices, np.random.default_rng(0)) for devices in found]
    train_devices, validation, hardened, held = (
        to_tensors(trained.backbone, trained.slots, trained.observation, devices)
        for devices in (*found, *spoilt)
    )

    def refined(devices: DeviceTensors):
        adapter, bank = copy.deepcopy(trained.adapter), copy.deepcopy(trained.bank)
        _, curve = refine_jointly(
            *(adapter, bank, trained.rule, module, train_devices, validation, config, 0, silent),
            hardened=(devices,),
            held_hardened=(held,),
        )
        return curve

    curve = refined(hardened)
    _, grouped = expected_costs(trained.bank, trained.rule, trained.adapter, module, validation)
    every = [
        expected_costs(trained.bank, trained.rule, trained.adapter, module, devices)[0]
        for devices in (validation, held)
    ]
    assert curve.loss[0] == pytest.approx(np.mean(every) + grouped, rel=1e-5)
    wrong = replace(hardened, targets=(hardened.targets + 1) % 10)
    assert min(refined(wrong).loss[1:]) > min(curve.loss[1:])


def test_hardening_adds_a_share_of_the_devices_once_a_stream(config, data):
    hardened = replace(
        config, adapter=replace(config.adapter, hardening=("short", "mixed"), hardening_share=0.1)
    )
    trained_on = observe_devices(
        hardened,
        data,
        *built(hardened, data),
        lambda _: silent,
    )
    assert [len(d) for d in trained_on.hardened] == [30, 30]
    assert [len(d) for d in trained_on.held_hardened] == [4, 4]
    for spoilt in trained_on.hardened:
        assert torch.equal(spoilt.targets, trained_on.train.targets[:30])
        assert torch.equal(spoilt.hidden[0], trained_on.train.hidden[0][:30])
        assert not torch.equal(spoilt.observations, trained_on.train.observations[:30])


def built(config, data):
    backbone = build_backbone(config, data.backbone_settings(), None).eval()
    return backbone, build_slots(backbone, config), build_observation(backbone, data, config)


def test_a_window_shorter_than_the_adapter_asks_for_is_found_before_training(config, data):
    with pytest.raises(ConfigError, match=r"min_window is 21, but device .* has a window of 20"):
        check_windows(replace(config.adapter, min_window=21), data)
    check_windows(config.adapter, data)
