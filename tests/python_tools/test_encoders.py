"""Window encoders read what they should of a window, and nothing else."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from persona.method.cloud_ranker import DIM as STATE
from persona.method.cloud_ranker import CloudRanker
from persona.method.encoders import ItemsEncoder, PooledEncoder, RankerEncoder

WIDTH, ITEMS, DIM, LENGTH = 6, 20, 5, 8


@pytest.fixture
def pooled() -> PooledEncoder:
    torch.manual_seed(0)
    encoder = PooledEncoder(WIDTH, latent=4, hidden=8, dropout=0.2)
    encoder.calibrate(torch.randn(50, WIDTH) * 3 + 1)
    for _ in range(20):
        encoder(torch.randn(30, WIDTH) * 3 + 1)
    return encoder.eval()


@pytest.fixture
def items() -> ItemsEncoder:
    torch.manual_seed(0)
    encoder = ItemsEncoder(torch.randn(ITEMS + 1, DIM), latent=4, hidden=8, dropout=0.2)
    for _ in range(20):
        encoder(torch.randint(1, ITEMS + 1, (30, LENGTH)))
    return encoder.eval()


@pytest.fixture
def ranking() -> RankerEncoder:
    torch.manual_seed(1)
    encoder = RankerEncoder(CloudRanker(ITEMS), latent=4, dropout=0.2)
    for _ in range(20):
        encoder(torch.randint(1, ITEMS + 1, (30, LENGTH)))
    return encoder.eval()


@pytest.fixture(params=["items", "ranking"])
def histories_encoder(request) -> ItemsEncoder | RankerEncoder:
    return request.getfixturevalue(request.param)


def padded(*history: int, length: int = LENGTH) -> Tensor:
    return torch.tensor([[0] * (length - len(history)) + list(history)])


def test_statistics_are_standardised_on_the_training_devices(pooled):
    vectors = torch.randn(40, WIDTH) * torch.arange(1.0, WIDTH + 1) + 7
    pooled.calibrate(vectors)
    array = vectors.double().numpy()
    np.testing.assert_allclose(pooled.mean, array.mean(0), rtol=1e-5)
    np.testing.assert_allclose(pooled.deviation, array.std(0, ddof=1), rtol=1e-5)


def test_a_statistic_that_never_varied_does_not_blow_up(pooled):
    pooled.calibrate(torch.ones(10, WIDTH))
    assert torch.isfinite(pooled(torch.full((1, WIDTH), 1.001))).all()


def test_the_code_is_the_networks_of_the_standardised_statistics(pooled):
    """The layers written out in double precision."""
    vectors = torch.randn(5, WIDTH) * 3
    first, _, _, second, norm = pooled.net
    array = {n: t.detach().double().numpy() for n, t in pooled.state_dict().items()}
    standard = (vectors.double().numpy() - array["mean"]) / array["deviation"]
    hidden = standard @ array["net.0.weight"].T + array["net.0.bias"]
    hidden = nn.functional.gelu(torch.from_numpy(hidden)).numpy()
    raw = hidden @ array["net.3.weight"].T
    raw -= array["net.4.running_mean"]
    expected = raw / np.sqrt(array["net.4.running_var"] + norm.eps)
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    np.testing.assert_allclose(pooled(vectors).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("column", range(WIDTH))
@pytest.mark.parametrize("sign", [-1, 1])
def test_beyond_six_deviations_nothing_changes(pooled, column, sign):
    def code(deviations: float) -> Tensor:
        vector = pooled.mean.clone()
        vector[column] += sign * deviations * pooled.deviation[column]
        return pooled(vector[None])

    assert torch.equal(code(6.01), code(600))
    assert not torch.equal(code(5.9), code(6.01))


def test_each_code_is_normalised_across_devices_while_training(pooled):
    codes = pooled.train()(torch.randn(64, WIDTH) * 3)
    torch.testing.assert_close(codes.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(codes.std(0, correction=0), torch.ones(4), atol=1e-2, rtol=0)
    assert not list(pooled.net[-1].parameters()), "no scale that could shrink codes to a constant"


@pytest.mark.parametrize("count", range(1, LENGTH + 1))
def test_the_length_of_the_padding_does_not_matter(histories_encoder, count):
    history = list(range(3, 3 + count))
    short = histories_encoder(torch.tensor([history]))
    for length in range(count, LENGTH + 4):
        torch.testing.assert_close(histories_encoder(padded(*history, length=length)), short)


def test_padding_is_never_read(items):
    histories = torch.cat([padded(4), padded(7, 2, 9), padded(1, 2, 3, 4, 5, 6, 7, 8)])
    before = items(histories)
    with torch.no_grad():
        items.table[0] = float("nan")
    found = items(histories)
    assert torch.isfinite(found).all(), "padding reached the code"
    assert torch.equal(found, before)


def test_the_code_is_that_of_the_last_state_of_a_recurrence_over_the_items_alone(items):
    """The same items one at a time through a cell that shares the weights."""
    history = [5, 9, 2, 2, 17]
    cell = nn.GRUCell(8, 8)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in items.gru.state_dict().items()})
    state = torch.zeros(1, 8)
    for item in history:
        state = cell(items.widen(items.table[item][None]), state)
    torch.testing.assert_close(items(padded(*history)), items.project(state))


def test_every_item_and_its_place_matter(histories_encoder):
    history = [5, 9, 2, 17]
    code = histories_encoder(padded(*history))
    for place in range(4):
        other = [*history[:place], 11, *history[place + 1 :]]
        assert (histories_encoder(padded(*other)) - code).abs().max() > 1e-3
    assert (histories_encoder(padded(9, 5, 2, 17)) - code).abs().max() > 1e-3


def test_histories_of_different_lengths_do_not_mix(histories_encoder):
    histories = [(4,), (7, 2, 9), (1, 2, 3, 4, 5, 6, 7, 8)]
    together = histories_encoder(torch.cat([padded(*h) for h in histories]))
    alone = torch.cat([histories_encoder(padded(*h)) for h in histories])
    torch.testing.assert_close(together, alone)


def test_the_item_table_is_a_copy_that_training_leaves_alone():
    embedding = nn.Embedding(ITEMS + 1, DIM)
    encoder = ItemsEncoder(embedding.weight, latent=4, hidden=8, dropout=0.0)
    before = encoder.table.clone()
    with torch.no_grad():
        embedding.weight.zero_()
    encoder(torch.randint(1, ITEMS + 1, (6, LENGTH))).square().sum().backward()
    assert torch.equal(encoder.table, before)
    assert "table" not in dict(encoder.named_parameters())
    assert embedding.weight.grad is None


def test_a_rankers_code_is_its_state_after_the_newest_item(ranking):
    """Standardised as the projection says, one history at a time and without any padding."""
    history = [5, 9, 2, 2, 17]
    with torch.no_grad():
        state = ranking.ranker.users(torch.tensor([history]))[:, -1]
        first, _, linear, second = ranking.project
        expected = (state - first.running_mean) / (first.running_var + first.eps).sqrt()
        expected = (expected @ linear.weight.T - second.running_mean) / (
            second.running_var + second.eps
        ).sqrt()
        torch.testing.assert_close(ranking(padded(*history)), expected, rtol=1e-4, atol=1e-5)
    assert state.shape == (1, STATE)


def test_a_ranker_stays_as_it_was_taught_while_edits_are_learned(ranking):
    before = {name: value.clone() for name, value in ranking.ranker.state_dict().items()}
    windows = torch.randint(1, ITEMS + 1, (16, LENGTH))
    ranking.train()
    assert torch.equal(ranking.ranker.last_users(windows), ranking.ranker.last_users(windows))
    optimiser = torch.optim.AdamW(ranking.parameters(), lr=0.1, weight_decay=0.1)
    ranking(windows).square().sum().backward()
    optimiser.step()
    assert all(torch.equal(before[n], v) for n, v in ranking.ranker.state_dict().items())
    assert ranking.project[2].weight.grad.abs().max() > 0
