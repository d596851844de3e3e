"""The gate: strange windows get no edit, and the statistics are those of the literature."""

import numpy as np
import pytest
import torch
from scipy.special import erf

from persona.formats.slots import SlotKind, SlotSpec
from persona.method.adapter import Adapter, scaled
from persona.method.encoders import PooledEncoder
from persona.method.gate import EXPLAINED, Familiarity, Strength
from persona.training.gate_lesson import expose
from persona.training.stages import Curve

WIDTH, LATENT = 12, 4
DENSE = SlotSpec("head.0", SlotKind.DENSE, 3, 5, 0, True, 0.5, 3.0)
LOW_RANK = SlotSpec("head.2", SlotKind.LOW_RANK, 3, 5, 2, False, 0.5, 0.0)


@pytest.fixture
def observations() -> torch.Tensor:
    """Three directions of variation in twelve dimensions, and a little noise."""
    generator = torch.Generator().manual_seed(3)
    inside = torch.randn(500, 3, generator=generator) @ torch.randn(3, WIDTH, generator=generator)
    return inside + 0.05 * torch.randn(500, WIDTH, generator=generator) + 2


@pytest.fixture
def familiarity(observations: torch.Tensor) -> Familiarity:
    found = Familiarity(WIDTH, exposed=False)
    found.fit(observations[:400])
    found.limit(observations[400:], 0.95)
    return found


@pytest.fixture
def spoilt(observations: torch.Tensor) -> torch.Tensor:
    """Ordinary observations but for a small offset of one value: inside every limit of the rest."""
    offset = torch.zeros(WIDTH)
    offset[5] = 0.2
    return observations + offset


def exposed_to(observations: torch.Tensor, spoilt: torch.Tensor) -> tuple[Familiarity, Curve]:
    torch.manual_seed(0)
    found = Familiarity(WIDTH, exposed=True)
    found.fit(observations[:400])
    curve = expose(
        found,
        observations[:400],
        observations[400:],
        [(spoilt[:100], spoilt[400:450]), (spoilt[100:200], spoilt[450:])],
        0,
        lambda _done, _all: None,
    )
    found.limit(observations[400:], 0.95)
    return found, curve


def test_everything_is_familiar_before_calibration():
    far = torch.full((2, WIDTH), 1e6)
    assert Familiarity(WIDTH, exposed=False)(far).tolist() == [1, 1]
    assert Familiarity(WIDTH, exposed=True)(far).tolist() == [1, 1]


def test_a_classifier_that_was_never_taught_refuses_nobody(familiarity, observations):
    untaught = Familiarity(WIDTH, exposed=True)
    untaught.fit(observations[:400])
    untaught.limit(observations[400:], 0.95)
    assert untaught(observations).tolist() == familiarity(observations).tolist()


def test_exposure_knows_spoilt_windows_that_lie_within_every_other_limit(
    familiarity, observations, spoilt
):
    assert familiarity(spoilt[200:400]).mean() > 0.8
    exposed, curve = exposed_to(observations, spoilt)
    assert exposed(spoilt[200:400]).mean() < 0.1
    assert exposed(observations[400:]).mean() > 0.85
    assert min(curve.loss) < curve.loss[0] / 3


def test_the_state_of_the_classifier_is_chosen_on_held_devices(observations, spoilt):
    """Held devices on which sound and spoilt are exchanged: each step makes it worse there."""
    torch.manual_seed(0)
    found = Familiarity(WIDTH, exposed=True)
    found.fit(observations[:400])
    exchanged = [(spoilt[:200], observations[400:])]
    curve = expose(found, observations[:400], spoilt[400:], exchanged, 0, lambda _done, _all: None)
    assert min(curve.loss) == curve.loss[0]
    assert curve.loss[-1] > 2 * curve.loss[0]
    with torch.no_grad():
        assert (
            found.suspicion(spoilt[200:400]) - found.suspicion(observations[200:400])
        ).mean() < 1


def test_suspicion_beyond_its_quantile_alone_is_strange(observations, spoilt):
    """Against the network worked out with numpy."""
    exposed, _ = exposed_to(observations, spoilt)
    weights = [p.detach().double().numpy() for p in exposed.classifier.parameters()]
    train = observations[:400].double().numpy()

    def spoilt_odds(rows: torch.Tensor) -> np.ndarray:
        standard = (rows.double().numpy() - train.mean(0)) / train.std(0, ddof=1)
        hidden = np.clip(standard, -6, 6) @ weights[0].T + weights[1]
        bent = hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))
        return 1 / (1 + np.exp(-(bent @ weights[2].T + weights[3])[:, 0]))

    limit = np.quantile(spoilt_odds(observations[400:]), 0.95)
    both = torch.cat([observations, spoilt])
    # Without the other two statistics the third decides alone.
    exposed.limits[:2] = torch.inf
    found = exposed.strangeness(both).detach().numpy()
    np.testing.assert_allclose(found, spoilt_odds(both) / limit, rtol=1e-3)


def test_exposure_teaches_the_classifier_and_leaves_the_subspace(observations, spoilt):
    fitted = Familiarity(WIDTH, exposed=True)
    fitted.fit(observations[:400])
    exposed, _ = exposed_to(observations, spoilt)
    torch.testing.assert_close(exposed.components, fitted.components)
    torch.testing.assert_close(exposed.variances, fitted.variances)


def test_statistics_are_hotellings_and_the_residual_worked_out_with_numpy(
    familiarity, observations
):
    train, held = observations[:400].double().numpy(), observations[400:].double().numpy()
    mean, deviation = train.mean(0), train.std(0, ddof=1)
    standard = np.clip((train - mean) / deviation, -6, 6)
    values, vectors = np.linalg.eigh(standard.T @ standard / len(standard))
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = int((np.cumsum(values) / values.sum() < EXPLAINED).sum()) + 1
    own = np.clip((held - mean) / deviation, -6, 6)
    inside = own @ vectors[:, :kept]
    within = (inside**2 / values[:kept]).sum(1)
    beside = ((own - inside @ vectors[:, :kept].T) ** 2).sum(1)
    expected = np.maximum(within / np.quantile(within, 0.95), beside / np.quantile(beside, 0.95))
    found = familiarity.strangeness(observations[400:]).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_about_the_quantile_of_familiar_devices_passes(familiarity, observations):
    assert familiarity(observations[400:]).mean().item() == pytest.approx(0.93, abs=0.04)


def test_what_leaves_the_subspace_is_strange_although_each_value_is_ordinary(
    familiarity, observations
):
    shuffled = torch.stack(
        [
            column[torch.randperm(500, generator=torch.Generator().manual_seed(i))]
            for i, column in enumerate(observations.T)
        ],
        1,
    )
    assert familiarity(shuffled).mean() < 0.05


def test_strength_begins_near_one_and_stays_between_zero_and_one():
    strength = Strength(LATENT)
    assert (strength(torch.randn(9, LATENT)) > 0.9).all()
    with torch.no_grad():
        for parameter in strength.parameters():
            parameter.mul_(50)
    found = strength(torch.randn(99, LATENT))
    assert ((found >= 0) & (found <= 1)).all()


def test_scaling_scales_the_product_of_low_rank_factors_once():
    edit = {
        "head.0.weight": torch.ones(2, 3, 5),
        "head.0.bias": torch.ones(2, 3),
        "head.2.a": torch.randn(2, 2, 5),
        "head.2.b": torch.randn(2, 3, 2),
    }
    half = scaled((DENSE, LOW_RANK), edit, torch.tensor([0.5, 0.0]))
    assert half["head.0.weight"][0].unique().tolist() == [0.5]
    assert not half["head.0.bias"][1].any()
    product = half["head.2.b"] @ half["head.2.a"]
    torch.testing.assert_close(product[0], 0.5 * edit["head.2.b"][0] @ edit["head.2.a"][0])
    assert not product[1].any()


def test_a_strange_device_gets_no_edit_and_its_neighbours_keep_theirs(familiarity, observations):
    torch.manual_seed(0)
    adapter = Adapter(
        (DENSE,),
        PooledEncoder(WIDTH, LATENT, 8, 0.0),
        LATENT,
        cross_layer=True,
        prior=None,
        strength=None,
        familiarity=familiarity,
        output_std=0.1,
    ).eval()
    familiar = observations[:400][familiarity(observations[:400]) > 0][:2]
    strange = torch.full((1, WIDTH), 500.0) * torch.tensor([1.0, -1.0] * 6)
    with torch.no_grad():
        alone, _ = adapter(familiar)
        together, _ = adapter(torch.cat([familiar, strange]))
    assert not together["head.0.weight"][2].any()
    torch.testing.assert_close(together["head.0.weight"][:2], alone["head.0.weight"])
    assert alone["head.0.weight"].abs().sum() > 0
