"""The protocol: unseen devices, the same result twice, and controls that are what they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from persona.baselines import Setting
from persona.data import DataError
from persona.evaluation import protocol
from persona.evaluation.metrics import accuracy
from persona.evaluation.protocol import (
    TEST_SEED,
    edit_spread,
    evaluate,
    evaluate_devices,
    examine,
    make_setting,
    map_prototypes,
    prepare_rivals,
)
from persona.evaluation.provenance import code_digest
from persona.method.slots import applied
from persona.training.devices import to_tensors
from persona.training.pipeline import DEVICE_SEED, open_dataset

COUNT = 10


def silent(_name: str):
    return lambda _done, _all: None


@pytest.fixture(scope="module")
def devices(data):
    return data.devices("test", COUNT, TEST_SEED)


@pytest.fixture(scope="module")
def evaluated(run, data, devices):
    return evaluate_devices(run, data, devices)


def change_of(run, device) -> dict[str, torch.Tensor]:
    """The whole change for one device, made without the protocol."""
    observed = to_tensors(run.backbone, run.record.slots, run.record.observation, [device])
    personaliser = run.personaliser()
    with torch.no_grad():
        made = personaliser(observed.observations)
        change = personaliser.change(made.prototype, made.edit)
    return {name: value[0] for name, value in change.items()}


def score_in_place(run, change, device) -> float:
    """Accuracy on the device's queries of the backbone edited in place."""
    with applied(run.backbone, run.record.slots, change), torch.no_grad():
        logits = run.backbone(torch.from_numpy(device.queries[0]))
    return float((logits.argmax(1).numpy() == device.targets).mean())


@pytest.mark.parametrize("which", ["run", "far_apart"])
def test_every_column_is_the_accuracy_of_a_backbone_edited_in_place(request, data, devices, which):
    run = request.getfixturevalue(which)
    personaliser = run.personaliser()
    evaluated = evaluate_devices(run, data, devices)
    for index, (device, found) in enumerate(zip(devices, evaluated.devices, strict=True)):
        own, other = change_of(run, device), change_of(run, devices[index - 1])
        observed = to_tensors(run.backbone, run.record.slots, run.record.observation, [device])
        chosen = run.rule.assign(observed.vectors)
        group = {n: v[0] for n, v in personaliser.bank.chosen(chosen).items()}
        nothing = {n: torch.zeros_like(v) for n, v in own.items()}
        expected = [score_in_place(run, c, device) for c in (nothing, group, own, other)]
        columns = (found.static, found.prototype_only, found.edited, found.other_device_control)
        assert columns == pytest.approx(expected, abs=1e-6), device.name
        assert found.name == device.name


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_other_device_control_gives_no_device_its_own_edit(run, data, monkeypatch, count):
    """What is scored is compared with the edits themselves, device by device."""
    scored = []
    outputs = Setting.outputs

    def note(setting, change, devices):
        scored.append({name: value.clone() for name, value in change.items()})
        return outputs(setting, change, devices)

    monkeypatch.setattr("persona.baselines.base.Setting.outputs", note)
    setting = make_setting(run, data)
    examine(setting, run.rule, setting.fleet(data.devices("test", count, TEST_SEED)), {})
    _, own, _, other = scored
    flat = [torch.cat([v.flatten(1) for v in c.values()], 1) for c in (own, other)]
    same = (flat[1][:, None] == flat[0][None]).all(-1)
    assert (same.sum(0) == 1).all(), "each edit is given once"
    assert (same.sum(1) == 1).all(), "each device gets one"
    assert not same.diagonal().any(), "and never its own"


def test_test_devices_share_no_image_with_those_that_anything_was_trained_on(config):
    """Unshifted images can be told by their pixels; the split does not depend on the shift."""
    settings = config.data.settings | {"rotation": 0.0, "contrast": (1.0, 1.0), "noise": 0.0}
    data = open_dataset(replace(config, data=replace(config.data, settings=settings)), None)

    def images(split: str, seed: int) -> set[bytes]:
        found = data.devices(split, 60, seed)
        arrays = np.concatenate([a for d in found for a in (*d.window, *d.queries)])
        return {a.round(3).tobytes() for a in arrays}

    test = images("test", TEST_SEED) | images("test", TEST_SEED + 1)
    (pooled,), _ = data.batch(np.random.default_rng(0), 4000)
    (held,), _ = data.held_out()
    trained = {a.round(3).tobytes() for a in np.concatenate([pooled, held])}
    assert not test & trained
    assert not test & images("adapter", DEVICE_SEED)
    assert not test & images("validation", DEVICE_SEED)


def test_the_same_seed_gives_bit_equal_results(run, data):
    one, two = (evaluate(run, data, 5, (0, 1), silent) for _ in range(2))
    for name in ("devices", "rivals", "edit_spread", "prototype_map", "edited_minus_static"):
        assert getattr(one, name) == getattr(two, name), name


def test_more_seeds_are_more_devices(run, data):
    both = evaluate(run, data, 4, (0, 3), silent)
    alone = [evaluate(run, data, 4, (seed,), silent) for seed in (0, 3)]
    assert both.devices == alone[0].devices + alone[1].devices
    assert len({d.name for d in both.devices}) == 8
    assert both.edited.mean == pytest.approx(np.mean([a.edited.mean for a in alone]))
    for name, estimate in both.rivals.items():
        assert estimate.mean == pytest.approx(np.mean([a.rivals[name].mean for a in alone]))


def test_results_say_what_was_measured_and_what_made_them(run, data):
    found = evaluate(run, data, 3, (2,), silent)
    assert (found.metric, found.window, found.queries) == ("accuracy", 20, 10)
    assert (found.model, found.seeds) == (run.model, (2,))
    assert found.made_by["data_fingerprint"] == data.fingerprint()
    assert found.made_by["config"]["adapter"]["steps"] == run.record.config.adapter.steps
    assert {"constant-edit", "nearest-centre", "prior-correction"} <= set(found.rivals)
    assert found.made_by["code"] == code_digest()
    rows = found.table.rows
    assert rows["edited"].cost.adaptation_ms > 0
    assert rows["other_device_control"].cost is None


def test_without_labels_in_the_window_only_what_reads_those_is_left_out(run, data):
    """An oracle reads the queries' answers, and they are there."""
    setting = make_setting(run, data)
    devices = [replace(d, window_targets=None) for d in data.devices("test", 3, TEST_SEED)]
    prepared = prepare_rivals(setting, with_training=False, progress=silent)
    scored = examine(setting, run.rule, setting.fleet(devices), prepared).scored
    assert {"fine-tuning", "oracle-prototype"} <= set(prepared)
    assert set(prepared) - set(scored) == {"fine-tuning"}


def test_an_evaluation_computes_on_one_thread_whatever_there_were(run, data, monkeypatch):
    """Sums on several threads round otherwise, and two runs would differ in bits."""
    found = []
    make = protocol.make_setting

    def noting(*given):
        found.append(torch.get_num_threads())
        return make(*given)

    monkeypatch.setattr(protocol, "make_setting", noting)
    torch.set_num_threads(2)
    try:
        results = evaluate(run, data, 2, (0,), silent)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert found == [1]
    assert results.made_by["machine"]["threads"] == 1


def test_a_test_device_that_was_trained_on_stops_an_evaluation(run, data, monkeypatch):
    devices = type(data).devices

    def leaking(self, split, count, seed):
        return devices(self, "adapter" if split == "test" else split, count, seed)

    monkeypatch.setattr(type(data), "devices", leaking)
    with pytest.raises(DataError, match="also in the training device"):
        evaluate(run, data, 5, (0,), silent)


def test_images_of_the_backbone_on_a_test_device_stop_an_evaluation(run, config, monkeypatch):
    data = open_dataset(config, None)
    monkeypatch.setitem(data.pools, "test", data.pools["held-out"])
    with pytest.raises(DataError, match="also in the held-out data of the backbone"):
        evaluate(run, data, 5, (0,), silent)


def test_the_static_column_is_the_backbones_accuracy(run, devices, evaluated):
    images = torch.from_numpy(np.stack([d.queries[0] for d in devices]))
    targets = torch.from_numpy(np.stack([d.targets for d in devices]))
    with torch.no_grad():
        logits = run.backbone(images.flatten(0, 1)).unflatten(0, targets.shape)
    expected = accuracy(logits, targets).tolist()
    assert [d.static for d in evaluated.devices] == pytest.approx(expected, abs=1e-6)


def test_the_spread_of_edits_is_0_for_one_edit_for_all_and_1_without_a_mean():
    torch.manual_seed(0)
    constant = {"a": torch.randn(1, 4, 3).expand(20, 4, 3)}
    assert edit_spread(constant) == pytest.approx(0, abs=1e-6)
    assert edit_spread({"a": torch.randn(2000, 4, 3)}) == pytest.approx(1, abs=0.02)
    assert edit_spread({"a": torch.zeros(5, 2)}) == 0


def test_the_map_shows_the_latents_from_their_widest_side():
    rng = np.random.default_rng(0)
    codes = (rng.standard_normal((40, 6)) * [5, 3, 0.5, 0.2, 0.1, 0.1]).astype(np.float32)
    centres = codes[:3]
    found = map_prototypes(*map(torch.from_numpy, (codes, np.arange(40) % 3, centres)))
    points = np.array(found.points)
    assert found.members == tuple(np.arange(40) % 3)
    np.testing.assert_allclose(found.centres, points[:3], atol=1e-5)
    deviation = np.sqrt(np.linalg.eigvalsh(np.cov(codes.T))[::-1][:2])
    np.testing.assert_allclose(points.std(0, ddof=1), deviation, rtol=1e-4)
    share = PCA(2).fit(codes).explained_variance_ratio_.sum()
    assert found.explained == pytest.approx(share, rel=1e-5)


def test_data_that_the_run_did_not_train_on_are_refused(run, data, monkeypatch):
    """Else the report would name the training data beside scores on others."""
    monkeypatch.setattr(type(data), "fingerprint", lambda _self: "0" * 64)
    with pytest.raises(DataError, match="pass the data that it trained on"):
        evaluate(run, data, COUNT, (0,), silent)
