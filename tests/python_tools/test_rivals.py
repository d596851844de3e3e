"""Each rival does what its paper or name says, computed a second time in another way."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from persona.baselines import rivals
from persona.baselines.base import Setting
from persona.evaluation.protocol import make_setting, score_rivals
from persona.formats.observation import ItemsSpec
from persona.method.slots import applied


@pytest.fixture(scope="module")
def setting(run, data, unseen) -> Setting:
    return make_setting(run, data, unseen)


@pytest.fixture(scope="module")
def devices(data):
    return data.devices("test", 12, 5)


def accuracy_of(run, device, change) -> float:
    with applied(run.backbone, run.record.slots, change), torch.no_grad():
        logits = run.backbone(torch.from_numpy(device.queries[0])).numpy()
    return float((logits.argmax(1) == device.targets).mean())


def scores(name: str, setting: Setting) -> list[float]:
    return rivals[name]().scores(setting).tolist()


def test_a_change_of_zeros_is_the_static_model(run, setting, devices):
    found = setting.score(setting.nothing()).tolist()
    images = [torch.from_numpy(d.queries[0]) for d in devices]
    with torch.no_grad():
        expected = [
            float((run.backbone(x).argmax(1).numpy() == d.targets).mean())
            for x, d in zip(images, devices, strict=True)
        ]
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_constant_edit_is_the_mean_edit_of_the_training_devices(run, setting, devices):
    with torch.no_grad():
        edits = [run.adapter(o[None])[0] for o in setting.train.observations]
    mean = {
        name: torch.from_numpy(np.mean([e[name][0].double().numpy() for e in edits], 0)).float()
        for name in edits[0]
    }
    expected = [accuracy_of(run, device, mean) for device in devices]
    assert scores("constant-edit", setting) == pytest.approx(expected, abs=1e-6)


def test_nearest_centre_gives_the_group_edit_whose_centre_is_nearest(
    far_apart, data, unseen, devices
):
    run, setting = far_apart, make_setting(far_apart, data, unseen)
    with torch.no_grad():
        codes = run.adapter.codes(setting.test.observations).flatten(1).numpy()
    groups, centres = run.bank.edits(), run.bank.centres.numpy()
    expected = []
    for device, code in zip(devices, codes, strict=True):
        nearest = int(np.linalg.norm(centres - code, axis=1).argmin())
        change = {name: value[nearest].detach() for name, value in groups.items()}
        expected.append(accuracy_of(run, device, change))
    assert scores("nearest-centre", setting) == pytest.approx(expected, abs=1e-6)


def estimated_mix(posterior: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Expectation maximisation of Saerens et al. (2002), sample by sample."""
    mix = trained.copy()
    for _ in range(50):
        rows = []
        for row in posterior:
            weighted = [p * m / t for p, m, t in zip(row, mix, trained, strict=True)]
            rows.append([w / sum(weighted) for w in weighted])
        mix = np.maximum(np.mean(rows, axis=0), 1e-4)
        mix /= mix.sum()
    return mix


def test_prior_correction_is_that_of_saerens_latinne_and_decaestecker(run, setting, devices):
    trained = np.array(run.record.observation.training_mass)
    found, expected = scores("prior-correction", setting), []
    for device in devices:
        with torch.no_grad():
            window = run.backbone(torch.from_numpy(device.window[0])).softmax(1).double().numpy()
            queries = run.backbone(torch.from_numpy(device.queries[0])).double().numpy()
        corrected = queries + np.log(estimated_mix(window, trained) / trained)
        expected.append((corrected.argmax(1) == device.targets).mean())
    assert found == pytest.approx(expected, abs=1e-6)


def test_prior_correction_without_habits_to_find_changes_nothing(setting):
    """A window whose class mix is that of training leaves the static scores."""
    spec = setting.observation
    vectors = setting.test.vectors.clone()
    first = 2 * spec.features + spec.classes
    vectors[:, first : first + spec.classes] = torch.tensor(spec.training_mass)
    same = replace(setting, test=replace(setting.test, vectors=vectors))
    assert scores("prior-correction", same) == setting.score(setting.nothing()).tolist()


def test_no_rival_looks_at_the_targets_of_devices(setting):
    """With other targets, what each rival predicts is the same: only its score moves."""
    classes = setting.observation.classes
    total = dict.fromkeys(score_rivals(setting), 0.0)
    for shift in range(classes):
        targets = (setting.test.targets + shift) % classes
        moved = replace(setting, test=replace(setting.test, targets=targets))
        for name, found in score_rivals(moved).items():
            total[name] += float(np.mean(found))
    assert total == pytest.approx(dict.fromkeys(total, 1.0), abs=1e-5)


def test_a_rival_that_the_task_lacks_is_left_out(setting):
    ranking = replace(setting, observation=ItemsSpec("items", 30, 1, 8))
    assert not rivals["prior-correction"]().applies(ranking)
    for name in ("constant-edit", "nearest-centre"):
        assert rivals[name]().applies(ranking)
