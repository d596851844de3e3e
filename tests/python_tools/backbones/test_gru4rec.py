"""GRU4Rec is PyTorch's own GRU over the items that are there, and only over those."""

import pytest
import torch
from torch import Tensor, nn

from persona.backbones.gru4rec import GRU4Rec

ITEMS, LENGTH, DIM = 50, 6, 16


@pytest.fixture
def model() -> GRU4Rec:
    torch.manual_seed(0)
    model = GRU4Rec(ITEMS, length=LENGTH, dim=DIM).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def torch_gru(model: GRU4Rec) -> nn.GRU:
    """PyTorch's recurrent unit with the same weights; its gates have the same order."""
    gru = nn.GRU(DIM, DIM, batch_first=True)
    trunk = model.trunk
    gru.load_state_dict(
        {
            "weight_ih_l0": trunk.input.weight,
            "bias_ih_l0": trunk.input.bias,
            "weight_hh_l0": trunk.recurrent.weight,
            "bias_hh_l0": trunk.recurrent.bias,
        }
    )
    return gru


def padded(items: list[int], length: int = LENGTH) -> Tensor:
    return torch.tensor([[0] * (length - len(items)) + items])


@pytest.mark.parametrize("items", [[7], [3, 8], [3, 8, 4, 9, 2, 7]])
def test_the_state_is_that_of_torch_over_the_unpadded_history(model, items):
    _, last = torch_gru(model)(model.item_embeddings()[torch.tensor([items])])
    torch.testing.assert_close(model.trunk.state(padded(items)), last[0])


def test_scores_are_products_with_the_tied_embeddings_and_a_bias(model):
    items = torch.arange(1, ITEMS + 1)
    table, head = model.item_embeddings(), model.head.user
    h = torch.zeros(DIM)
    w, b = model.trunk.input.weight, model.trunk.input.bias
    u, c = model.trunk.recurrent.weight, model.trunk.recurrent.bias
    for item in (5, 31, 2):
        x = table[item]
        gate = [slice(k * DIM, (k + 1) * DIM) for k in range(3)]
        r = 1 / (1 + torch.exp(-(w[gate[0]] @ x + b[gate[0]] + u[gate[0]] @ h + c[gate[0]])))
        z = 1 / (1 + torch.exp(-(w[gate[1]] @ x + b[gate[1]] + u[gate[1]] @ h + c[gate[1]])))
        n = torch.tanh(w[gate[2]] @ x + b[gate[2]] + r * (u[gate[2]] @ h + c[gate[2]]))
        h = (1 - z) * n + z * h
    user = h + head[2].weight @ (head[0].weight @ h + head[0].bias).clamp(min=0) + head[2].bias
    expected = table[items] @ user + model.trunk.bias.weight[items, 0]
    torch.testing.assert_close(model(padded([5, 31, 2]), items[None])[0], expected)


@pytest.mark.parametrize("length", [3, 10, 40])
def test_any_amount_of_padding_gives_the_same_scores(model, length):
    other = GRU4Rec(ITEMS, length=length, dim=DIM).eval()
    other.load_state_dict(model.state_dict())
    asked = torch.arange(1, 21)[None]
    torch.testing.assert_close(
        other(padded([5, 6, 7], length), asked), model(padded([5, 6, 7]), asked), rtol=0, atol=1e-6
    )


def test_an_empty_history_leaves_the_state_at_its_start(model):
    with torch.no_grad():
        model.trunk.items.weight[0] = 1.0
    assert not model.trunk.state(padded([])).any()


def test_the_order_of_the_history_matters(model):
    asked = torch.arange(1, 21)[None]
    assert (model(padded([5, 6, 7]), asked) - model(padded([7, 6, 5]), asked)).abs().max() > 0.01


def test_it_learns_which_item_follows_which():
    torch.manual_seed(0)
    model = GRU4Rec(ITEMS, length=LENGTH, dim=DIM)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(4)
    everything = torch.arange(1, ITEMS + 1)[None].expand(64, -1)
    for _ in range(250):
        past = torch.randint(1, ITEMS + 1, (64, LENGTH), generator=generator)
        loss = nn.functional.cross_entropy(model(past, everything), past[:, -1] % ITEMS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    past = torch.randint(1, ITEMS + 1, (64, LENGTH), generator=generator)
    right = model.eval()(past, everything).argmax(1) == past[:, -1] % ITEMS
    assert right.float().mean() > 0.9
