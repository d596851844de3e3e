"""DIN's attention is the paper's on four joined vectors, and each candidate has its own."""

import pytest
import torch
from torch import Tensor, nn

from persona.backbones.din import DIN

ITEMS, LENGTH, DIM, HIDDEN = 50, 6, 16, 12


@pytest.fixture
def model() -> DIN:
    torch.manual_seed(0)
    model = DIN(ITEMS, length=LENGTH, dim=DIM, hidden=HIDDEN).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def padded(items: list[int], length: int = LENGTH) -> Tensor:
    return torch.tensor([[0] * (length - len(items)) + items])


def joined_weight(model: DIN, difference: Tensor) -> Tensor:
    """A W [hidden, 4 · dim] of the paper's that is this model's, for any W₃ = `difference`."""
    a = model.trunk.attention
    parts = [a.history.weight - difference, a.candidate.weight + difference, difference]
    return torch.cat([*parts, a.product.weight], 1)


@pytest.mark.parametrize("items", [[7], [3, 8, 4], [3, 8, 4, 9, 2, 7]])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_scores_are_the_papers_computed_one_pair_at_a_time(model, items, spread):
    table, attention, head = model.item_embeddings(), model.trunk.attention, model.head.user
    generator = torch.Generator().manual_seed(1)
    joined = joined_weight(model, spread * torch.randn(HIDDEN, DIM, generator=generator))
    expected = []
    for candidate in range(1, 21):
        e_c, interest = table[candidate], torch.zeros(DIM)
        for item in items:
            e_h = table[item]
            four = torch.cat([e_h, e_c, e_h - e_c, e_h * e_c])
            hidden = (joined @ four + attention.history.bias).clamp(min=0)
            interest = interest + e_h * (attention.weight.weight[0] @ hidden)
            interest = interest + e_h * attention.weight.bias[0]
        refined = head[2].weight @ (head[0].weight @ interest + head[0].bias).clamp(min=0)
        user = interest + refined + head[2].bias
        expected.append(user @ e_c + model.trunk.bias.weight[candidate, 0])
    scores = model(padded(items), torch.arange(1, 21)[None])[0]
    torch.testing.assert_close(scores, torch.stack(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [3, 10, 40])
def test_any_amount_of_padding_gives_the_same_scores(model, length):
    other = DIN(ITEMS, length=length, dim=DIM, hidden=HIDDEN).eval()
    other.load_state_dict(model.state_dict())
    asked = torch.arange(1, 21)[None]
    torch.testing.assert_close(
        other(padded([5, 6, 7], length), asked), model(padded([5, 6, 7]), asked)
    )


def test_interests_of_two_candidates_differ(model):
    interests, _, _ = model.trunk(padded([3, 8, 4]), torch.tensor([[1, 2]]))
    assert (interests[0, 0] - interests[0, 1]).abs().max() > 1e-3


def test_an_empty_history_holds_no_interest(model):
    with torch.no_grad():
        model.trunk.items.weight[0] = 1.0
    interests, _, _ = model.trunk(padded([]), torch.arange(1, 21)[None])
    assert not interests.any()


def test_the_order_of_the_history_does_not_matter(model):
    asked = torch.arange(1, 21)[None]
    torch.testing.assert_close(model(padded([5, 6, 7]), asked), model(padded([7, 5, 6]), asked))


def test_an_attention_without_units_is_refused():
    with pytest.raises(ValueError, match="hidden must be 1 or more, got 0"):
        DIN(ITEMS, hidden=0)


def test_it_finds_the_one_item_of_the_history_that_a_candidate_follows():
    torch.manual_seed(0)
    model = DIN(ITEMS, length=LENGTH, dim=DIM, dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(4)
    half = ITEMS // 2

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        """Six of 25 items; one right candidate follows one of them, others follow none."""
        order = torch.rand(128, half, generator=generator).argsort(1) + 1
        asked = torch.cat([order[:, :1], order[:, LENGTH : LENGTH + 9]], 1) + half
        shuffled = torch.rand(128, LENGTH, generator=generator).argsort(1)
        return order[:, :LENGTH].gather(1, shuffled), asked, torch.zeros(128, dtype=torch.int64)

    for _ in range(200):
        past, asked, target = batch()
        loss = nn.functional.cross_entropy(model(past, asked), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    past, asked, _ = batch()
    assert (model.eval()(past, asked).argmax(1) == 0).float().mean() > 0.9
