"""SASRec scores what it should from what it should, and its head is cut where edits go."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from persona.backbones import backbones
from persona.backbones.sasrec import SASRec
from persona.method.slots import base_tensors, edited_forward, make_slot

ITEMS, LENGTH, DIM = 50, 6, 16


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors run many times slower on several threads when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model() -> SASRec:
    """A model whose every parameter differs from its initial value, as after training."""
    torch.manual_seed(0)
    model = SASRec(ITEMS, length=LENGTH, dim=DIM).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def history(*items: int, length: int = LENGTH) -> Tensor:
    return torch.tensor([[0] * (length - len(items)) + list(items)])


def candidates(n: int = 1) -> Tensor:
    return torch.randint(1, ITEMS + 1, (n, 20), generator=torch.Generator().manual_seed(1))


def test_the_registry_knows_it_and_forward_is_head_after_trunk(model):
    inputs = model.example_inputs()
    assert backbones["sasrec"] is SASRec
    assert model(*inputs).shape == (1, 100)
    torch.testing.assert_close(model(*inputs), model.head(*model.trunk(*inputs)))


def test_later_items_do_not_change_earlier_states(model):
    one, other = history(3, 8, 4, 9, 2, 7), history(3, 8, 4, 9, 30, 31)
    first, second = model.trunk.states(one), model.trunk.states(other)
    torch.testing.assert_close(first[:, :4], second[:, :4], rtol=0, atol=0)
    assert (first[:, 4:] - second[:, 4:]).abs().amax(-1).min() > 0.01


def test_the_state_depends_on_every_item_it_sees(model):
    state = model.trunk.states(history(3, 8, 4, 9, 2, 7))[:, -1]
    for place in range(LENGTH):
        changed = history(3, 8, 4, 9, 2, 7)
        changed[0, place] = 40
        assert (model.trunk.states(changed)[:, -1] - state).abs().max() > 1e-3


def test_a_padded_history_scores_as_in_a_model_that_is_just_as_long(model):
    short = SASRec(ITEMS, length=3, dim=DIM).eval()
    weights = model.state_dict()
    weights["trunk.position"] = weights["trunk.position"][-3:]
    short.load_state_dict(weights)
    torch.testing.assert_close(
        short(history(5, 6, 7, length=3), candidates()), model(history(5, 6, 7), candidates())
    )


def test_scores_are_products_with_the_tied_embeddings_and_a_bias(model):
    state = model.trunk.states(history(1, 2, 3))[0, -1]
    first, last = model.head.user[0], model.head.user[2]
    user = state + last.weight @ (first.weight @ state + first.bias).clamp(min=0) + last.bias
    items = candidates()[0]
    expected = model.item_embeddings()[items] @ user + model.trunk.bias.weight[items, 0]
    torch.testing.assert_close(model(history(1, 2, 3), candidates())[0], expected)


def test_a_fresh_head_hardly_changes_the_state():
    torch.manual_seed(0)
    model = SASRec(ITEMS, length=LENGTH, dim=DIM).eval()
    state = model.trunk.states(history(1, 2, 3))[:, -1]
    assert model.head.user(state).norm() < 0.05 * state.norm()


def test_devices_with_their_own_edits_score_as_one_by_one(model):
    slots = tuple(
        make_slot(model.head, name.removeprefix("head."), **settings)
        for name, settings in model.default_slots().items()
    )
    generator = torch.Generator().manual_seed(3)
    change = {
        name: 0.3 * torch.randn(4, *base.shape, generator=generator)
        for name, base in base_tensors(model.head, slots).items()
    }
    histories = torch.randint(0, ITEMS + 1, (4, 5, LENGTH), generator=generator)
    asked = torch.randint(1, ITEMS + 1, (4, 5, 20), generator=generator)
    hidden = [
        h.unflatten(0, (4, 5)) for h in model.trunk(histories.flatten(0, 1), asked.flatten(0, 1))
    ]
    together = edited_forward(model.head, slots, change, tuple(hidden))
    for device in range(4):
        alone = {
            f"head.{name}": model.get_parameter(f"head.{name}") + tensor[device]
            for name, tensor in change.items()
        }
        expected = torch.func.functional_call(model, alone, (histories[device], asked[device]))
        torch.testing.assert_close(together[device], expected)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="width = 16 and heads = 3"):
        SASRec(ITEMS, dim=16, heads=3)


def test_it_learns_which_item_follows_which():
    torch.manual_seed(0)
    model = SASRec(ITEMS, length=LENGTH, dim=DIM)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(4)
    everything = torch.arange(1, ITEMS + 1)[None].expand(64, -1)
    for _ in range(150):
        past = torch.randint(1, ITEMS + 1, (64, LENGTH), generator=generator)
        loss = torch.nn.functional.cross_entropy(model(past, everything), past[:, -1] % ITEMS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    past = torch.randint(1, ITEMS + 1, (64, LENGTH), generator=generator)
    right = model.eval()(past, everything).argmax(1) == past[:, -1] % ITEMS
    assert right.float().mean() > 0.9
