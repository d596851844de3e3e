"""What each way costs: all that it uses, nothing that it does not, once a window and a query."""

import time

import pytest
import torch
from torch import Tensor

from persona.baselines import Rival, Setting
from persona.baselines.prior_correction import PriorCorrection
from persona.evaluation import cost
from persona.evaluation.protocol import TEST_SEED, make_setting
from persona.training import devices as observing
from persona.training.devices import Fleet

ADAPTING, ASKING, OBSERVING = 0.03, 0.001, 0.02
"""Seconds that the stand-ins compute."""


def busy(seconds: float) -> None:
    """Compute for so long, however long the machine lets us wait meanwhile."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


class Worker(Rival):
    """Takes a known time once and for each query, and looks at nothing."""

    def outputs(self, setting: Setting, fleet: Fleet) -> Tensor:
        busy(ADAPTING + ASKING * len(fleet.devices[0].targets))
        return setting.static_outputs(fleet.tensors)


@pytest.fixture(scope="module")
def setting(run, data) -> Setting:
    return make_setting(run, data)


@pytest.fixture
def costs(setting, run, data):
    devices = data.devices("test", 3, TEST_SEED)
    return lambda **rivals: cost.costs(setting, run.rule, devices, rivals)


def test_the_work_for_a_window_and_for_a_query_are_told_apart(costs):
    found = costs(worker=Worker())["worker"]
    assert found.adaptation_ms == pytest.approx(1e3 * ADAPTING, rel=0.25)
    assert found.query_ms == pytest.approx(1e3 * ASKING, rel=0.25)


def test_observing_the_window_is_charged_to_those_that_look_at_it(costs, monkeypatch):
    observe = observing.observe

    def slow(*given):
        busy(OBSERVING)
        return observe(*given)

    monkeypatch.setattr(observing, "observe", slow)
    found = costs(prior=PriorCorrection(), worker=Worker())
    for name in ("edited", "prototype_only", "prior"):
        assert found[name].adaptation_ms > 900 * OBSERVING, name
    assert found["worker"].adaptation_ms < 1e3 * (ADAPTING + OBSERVING)


def test_a_static_model_looks_at_no_window(setting, run, data, monkeypatch):
    """What it took without queries is charged to nobody, and so must hold no observing."""
    looked = []
    monkeypatch.setattr(observing, "observe", lambda *given: looked.append(given))
    ours = cost._ours
    monkeypatch.setattr(cost, "_ours", lambda *given: {"static": ours(*given)["static"]})
    cost.costs(setting, run.rule, data.devices("test", 1, TEST_SEED), {})
    assert not looked


def test_a_device_with_very_many_queries_of_its_own_is_timed_too(setting, run, data):
    (device,) = data.devices("test", 1, TEST_SEED)
    device = cost._asked(device, 2 * cost.MOST_QUERIES)
    found = cost.costs(setting, run.rule, [device], {"worker": Worker()})
    assert found["worker"].query_ms == pytest.approx(1e3 * ASKING, rel=0.25)


def test_every_query_pays_for_the_whole_model(costs, setting):
    """Edits lie in the head, and every answer runs through the trunk before it."""
    trunk = setting.backbone.trunk
    hook = trunk.register_forward_pre_hook(lambda _trunk, given: busy(1e-3 * len(given[0])))
    try:
        found = costs(prior=PriorCorrection())
    finally:
        hook.remove()
    for name in ("static", "edited", "prototype_only", "prior"):
        assert found[name].query_ms == pytest.approx(1, rel=0.25), name


def test_what_is_timed_answers_as_the_protocol_does(setting, run, data, monkeypatch):
    """The same outputs for the device's own queries, from a model with its edit written in."""
    (device,) = data.devices("test", 1, TEST_SEED)
    fleet = setting.fleet([device])
    personaliser = setting.personaliser
    with torch.no_grad():
        made = personaliser(fleet.tensors.observations)
        own = personaliser.change(made.prototype, made.edit)
        expected = {
            "static": setting.static_outputs(fleet.tensors),
            "edited": setting.outputs(own, fleet.tensors),
        }
    said: dict[str, list[Tensor]] = {name: [] for name in expected}
    ours = cost._ours

    def noting(*given):
        ways = ours(*given)

        def noted(name, way):
            return lambda alone, fleet: said[name].append(way(alone, fleet))

        return {name: noted(name, ways[name]) for name in expected}

    monkeypatch.setattr(cost, "_ours", noting)
    cost.costs(setting, run.rule, [device], {})
    for name, outputs in expected.items():
        assert said[name]
        for found in said[name]:
            assert torch.allclose(found[:, : outputs.shape[1]], outputs, atol=1e-5), name
    assert not torch.allclose(expected["static"], expected["edited"])
