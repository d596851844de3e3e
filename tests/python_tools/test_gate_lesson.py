"""The gate learns from the streams of hardening whose edits do not pay, and from no others."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from persona.data.streams import streams
from persona.formats.slots import SlotKind, SlotSpec
from persona.runs import load_run, save_run
from persona.training import pipeline
from persona.training.devices import DeviceTensors, to_tensors
from persona.training.gate_lesson import pays
from persona.training.pipeline import Trained, observe_devices, train, train_editing


def silent(_stage: str):
    return lambda _done, _all: None


@pytest.mark.parametrize(
    ("share", "paid"),
    [(1.0, True), (0.7, True), (0.5, False), (0.6, False), (0.0, False)],
)
def test_edits_pay_where_they_surely_lower_the_loss(share, paid):
    """Devices whose edit makes class 1 likelier, of which a share wants class 1.

    Break-even is .573: of 200, .6 gains on average, though by less than two standard errors.
    """
    devices = 200
    targets = (torch.arange(devices) < round(share * devices)).long()[:, None]
    none = torch.zeros(devices, 1)
    fleet = DeviceTensors(none, none, (torch.ones(devices, 1, 1),), targets)
    assert pays(Always(), TwoLogits(), fleet) is paid


class TwoLogits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


class Always(nn.Module):
    """Gives every device the same edit."""

    slots = (SlotSpec("head", SlotKind.DENSE, 2, 1, 0, True, 0.5, 3.0),)

    def forward(self, observations: torch.Tensor):
        bias = torch.tensor([-0.3, 0.3]).expand(len(observations), 2)
        return {"head.weight": torch.zeros(len(observations), 2, 1), "head.bias": bias}, None


@pytest.fixture(scope="module")
def gated(config):
    """Short windows are of no use to the tiny system; the gate is taught to refuse them."""
    adapter = replace(
        config.adapter,
        hardening=("mixed", "short"),
        hardening_share=0.5,
        familiarity=0.95,
        exposure=True,
    )
    return replace(config, adapter=adapter)


@pytest.fixture(scope="module")
def taught(gated, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "pays", lambda *_: False)
        return train(gated, data, None, silent)


@pytest.fixture(scope="module")
def unseen_and_short(taught: Trained, data) -> tuple[DeviceTensors, DeviceTensors]:
    devices = data.devices("test", 60, 5)
    short = streams["short"]().spoil(devices, np.random.default_rng(1))
    parts = taught.backbone, taught.slots, taught.observation
    return to_tensors(*parts, devices), to_tensors(*parts, short)


def test_a_taught_gate_refuses_what_it_was_shown_and_lets_the_rest_pass(taught, unseen_and_short):
    usual, short = (taught.adapter.familiarity(d.vectors).mean() for d in unseen_and_short)
    assert usual > 0.7
    assert short < 0.2
    assert min(taught.curves["gate"].loss) < taught.curves["gate"].loss[0]


def test_a_refused_window_gets_no_edit_also_after_saving(taught, unseen_and_short, data, tmp_path):
    save_run(taught, data.backbone_settings(), tmp_path / "run", None)
    loaded = load_run(tmp_path / "run").adapter
    _, short = unseen_and_short
    with torch.no_grad():
        edit, _ = loaded(short.observations)
        expected, _ = taught.adapter(short.observations)
    passed = taught.adapter.familiarity(short.vectors) > 0
    for name, value in edit.items():
        assert torch.equal(value, expected[name])
        assert not value[~passed].any()
        assert value[passed].flatten(1).any(1).all()


@pytest.mark.parametrize("paying", [(), ("mixed",), ("mixed", "short")])
def test_only_streams_that_do_not_pay_are_shown(gated, data, taught, monkeypatch, paying):
    parts = taught.backbone, taught.slots, taught.observation
    observed = observe_devices(gated, data, *parts, silent)
    held = dict(zip(gated.adapter.hardening, observed.held_hardened, strict=True))
    spoilt = dict(zip(gated.adapter.hardening, observed.hardened, strict=True))
    monkeypatch.setattr(
        pipeline, "pays", lambda _a, _m, devices: any(devices is held[name] for name in paying)
    )
    shown = []

    def noted(_familiarity, train, validation, spoilt, _seed, _progress):
        assert train is observed.train.vectors
        assert validation is observed.validation.tensors.vectors
        shown.extend(spoilt)

    monkeypatch.setattr(pipeline, "expose", noted)
    found = train_editing(gated, *parts, observed, None, silent)
    expected = [n for n in gated.adapter.hardening if n not in paying]
    assert len(shown) == len(expected)
    for (theirs, held_out), name in zip(shown, expected, strict=True):
        assert theirs is spoilt[name].vectors
        assert held_out is held[name].vectors
    assert ("gate" in found.curves) is bool(expected)


def test_whether_a_stream_pays_is_judged_without_the_gates_limits(gated, data, taught, monkeypatch):
    """Or what familiarity refuses would seem not to pay."""
    limits = []
    monkeypatch.setattr(
        pipeline, "pays", lambda adapter, *_: limits.append(adapter.familiarity.limits.clone())
    )
    parts = taught.backbone, taught.slots, taught.observation
    train_editing(gated, *parts, observe_devices(gated, data, *parts, silent), None, silent)
    assert len(limits) == 2
    assert all(found.isinf().all() for found in limits)
