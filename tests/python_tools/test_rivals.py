"""Each rival does what its paper or name says, computed a second time in another way."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from persona.baselines import rivals
from persona.baselines.base import Setting
from persona.evaluation.metrics import accuracy
from persona.evaluation.protocol import make_setting
from persona.formats.observation import ItemsSpec
from persona.method.slots import applied
from persona.training.devices import Fleet


@pytest.fixture(scope="module")
def setting(run, data) -> Setting:
    return make_setting(run, data)


@pytest.fixture(scope="module")
def fleet(setting, data) -> Fleet:
    return setting.fleet(data.devices("test", 12, 5))


def accuracy_of(run, device, change) -> float:
    with applied(run.backbone, run.record.slots, change), torch.no_grad():
        logits = run.backbone(torch.from_numpy(device.queries[0])).numpy()
    return float((logits.argmax(1) == device.targets).mean())


def scores(name: str, setting: Setting, fleet: Fleet) -> list[float]:
    rival = rivals[name]()
    rival.fit(setting)
    return accuracy(rival.outputs(setting, fleet), fleet.tensors.targets).tolist()


def test_a_change_of_zeros_is_the_static_model(run, setting, fleet):
    found = setting.static_outputs(fleet.tensors)
    with torch.no_grad():
        expected = [run.backbone(torch.from_numpy(d.queries[0])) for d in fleet.devices]
    assert torch.allclose(found, torch.stack(expected), atol=1e-4)


def test_the_constant_edit_is_the_mean_edit_of_the_training_devices(run, setting, fleet):
    with torch.no_grad():
        edits = [run.adapter(o[None])[0] for o in setting.train.observations]
    mean = {
        name: torch.from_numpy(np.mean([e[name][0].double().numpy() for e in edits], 0)).float()
        for name in edits[0]
    }
    expected = [accuracy_of(run, device, mean) for device in fleet.devices]
    assert scores("constant-edit", setting, fleet) == pytest.approx(expected, abs=1e-6)


def test_nearest_centre_gives_the_group_edit_whose_centre_is_nearest(far_apart, data, fleet):
    run, setting = far_apart, make_setting(far_apart, data)
    with torch.no_grad():
        codes = run.adapter.codes(fleet.tensors.observations).flatten(1).numpy()
    groups, centres = run.bank.edits(), run.bank.centres.numpy()
    expected = []
    for device, code in zip(fleet.devices, codes, strict=True):
        nearest = int(np.linalg.norm(centres - code, axis=1).argmin())
        change = {name: value[nearest].detach() for name, value in groups.items()}
        expected.append(accuracy_of(run, device, change))
    assert scores("nearest-centre", setting, fleet) == pytest.approx(expected, abs=1e-6)


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


def test_prior_correction_is_that_of_saerens_latinne_and_decaestecker(run, setting, fleet):
    trained = np.array(run.record.observation.training_mass)
    found, expected = scores("prior-correction", setting, fleet), []
    for device in fleet.devices:
        with torch.no_grad():
            window = run.backbone(torch.from_numpy(device.window[0])).softmax(1).double().numpy()
            queries = run.backbone(torch.from_numpy(device.queries[0])).double().numpy()
        corrected = queries + np.log(estimated_mix(window, trained) / trained)
        expected.append((corrected.argmax(1) == device.targets).mean())
    assert found == pytest.approx(expected, abs=1e-6)


def test_prior_correction_without_habits_to_find_changes_nothing(setting, fleet):
    """A window whose class mix is that of training leaves the static outputs."""
    spec = setting.observation
    vectors = fleet.tensors.vectors.clone()
    vectors[:, spec.prior_columns] = torch.tensor(spec.training_mass)
    same = Fleet(fleet.devices, replace(fleet.tensors, vectors=vectors))
    found = rivals["prior-correction"]().outputs(setting, same)
    assert torch.allclose(found, setting.static_outputs(fleet.tensors), atol=1e-4)


def test_a_rival_that_the_task_lacks_is_left_out(setting):
    ranking = replace(setting, observation=ItemsSpec("items", 30, 1, 8))
    assert not rivals["prior-correction"]().applies(ranking)
    for name in ("constant-edit", "nearest-centre"):
        assert rivals[name]().applies(ranking)
