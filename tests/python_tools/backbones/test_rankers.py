"""What holds for every ranker of next items: its candidates, its padding, its slots."""

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

from persona.backbones import backbones
from persona.backbones.next_item import NextItemRanker
from persona.method.slots import applied, make_slot

ITEMS, LENGTH, DIM = 50, 6, 16


NARROW = {"width": 10}
"""The state of DIN is a sum of items, and so as wide as they are."""


@pytest.fixture(
    params=[("sasrec", {}), ("sasrec", NARROW), ("gru4rec", {}), ("gru4rec", NARROW), ("din", {})],
    ids=lambda kind: "-".join([kind[0], *kind[1]]),
)
def kind(request):
    return request.param


@pytest.fixture
def width(kind) -> int:
    """Of the state: as the items, or narrower."""
    return kind[1].get("width", DIM)


@pytest.fixture
def fresh(kind) -> NextItemRanker:
    torch.manual_seed(0)
    name, settings = kind
    return backbones[name](ITEMS, length=LENGTH, dim=DIM, **settings).eval()


@pytest.fixture
def model(fresh) -> NextItemRanker:
    """A model whose every parameter differs from its initial value, as after training."""
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return fresh


def history(*items: int) -> Tensor:
    return torch.tensor([[0] * (LENGTH - len(items)) + list(items)])


def candidates() -> Tensor:
    return torch.randint(1, ITEMS + 1, (1, 20), generator=torch.Generator().manual_seed(1))


def test_forward_is_head_after_trunk(model):
    inputs = model.example_inputs()
    assert model(*inputs).shape == (1, 100)
    torch.testing.assert_close(model(*inputs), model.head(*model.trunk(*inputs)))


@pytest.mark.parametrize("items", [(5,), (5, 6, 7)])
def test_what_padding_holds_does_not_change_scores(model, items):
    before = model(history(*items), candidates())
    with torch.no_grad():
        model.trunk.items.weight[0] += torch.randn(DIM)
    torch.testing.assert_close(model(history(*items), candidates()), before, rtol=0, atol=0)


def test_every_item_of_the_history_matters(model):
    scores = model(history(3, 8, 4, 9, 2, 7), candidates())
    for place in range(LENGTH):
        changed = history(3, 8, 4, 9, 2, 7)
        changed[0, place] = 40
        assert (model(changed, candidates()) - scores).abs().max() > 1e-4


def test_the_order_of_candidates_only_orders_the_scores(model):
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    scores = model(history(1, 2, 3), candidates())
    torch.testing.assert_close(model(history(1, 2, 3), candidates()[:, order]), scores[:, order])


def test_a_candidate_scores_the_same_alone(model):
    together = model(history(1, 2, 3), candidates())
    alone = [model(history(1, 2, 3), candidates()[:, [i]]) for i in range(20)]
    torch.testing.assert_close(torch.cat(alone, 1), together)


def test_samples_of_a_batch_do_not_see_each_other(model):
    histories = torch.cat([history(1, 2, 3), history(), history(9, 8, 7, 6, 5, 4)])
    together = model(histories, candidates().expand(3, -1))
    alone = torch.cat([model(h[None], candidates()) for h in histories])
    torch.testing.assert_close(together, alone)


def test_an_empty_history_gives_finite_scores_in_half_precision_too(model):
    empty = torch.zeros(1, LENGTH, dtype=torch.int64)
    assert model(empty, candidates()).isfinite().all()
    half = model.half()
    assert half(empty, candidates()).isfinite().all()
    assert half(history(5, 6), candidates()).isfinite().all()


def test_fresh_slot_layers_hardly_change_what_the_trunk_found(fresh):
    inputs = (history(1, 2, 3), candidates())
    found = fresh.trunk(*inputs)[0]
    assert found.norm() > 0.01
    assert fresh.head.user(found).norm() < 0.05 * found.norm() + 0.05
    scores = fresh(*inputs)
    with torch.no_grad():
        fresh.head.user[2].weight.zero_()
    assert (fresh(*inputs) - scores).abs().max() < 0.2 * scores.std()


def test_gradients_reach_every_parameter(model):
    asked = torch.randint(1, ITEMS + 1, (8, 20), generator=torch.Generator().manual_seed(3))
    past = torch.randint(1, ITEMS + 1, (8, LENGTH), generator=torch.Generator().manual_seed(4))
    nn.functional.cross_entropy(model(past, asked), torch.arange(8)).backward()
    # A key's bias adds the same to every attention score of a query, so softmax drops it.
    without_effect = {n for n, _ in model.named_parameters() if n.endswith("key.bias")}
    for parameter_name, parameter in model.named_parameters():
        if parameter_name not in without_effect:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.abs().max() > 0, parameter_name
    assert not model.trunk.items.weight.grad[0].any(), "padding is not learned"


def test_default_slots_are_the_two_small_layers_of_the_head(model, width):
    assert list(model.default_slots()) == ["head.user.0", "head.user.2"]
    for (slot_name, settings), out in zip(model.default_slots().items(), (width, DIM), strict=True):
        slot = make_slot(model, slot_name, **settings)
        assert (slot.out, slot.in_, slot.bound, slot.bias) == (out, width, 0.5, True)


def test_a_narrow_state_is_widened_before_it_meets_the_candidates(model, width):
    state, embeddings, bias = model.trunk(history(1, 2, 3), candidates())
    assert state.shape[-1] == width
    user = model.head.user(state)
    user += state if width == DIM else state @ model.head.up.weight.T + model.head.up.bias
    if user.dim() == 2:  # one for all candidates; DIN has one for each
        user = user[:, None]
    expected = (embeddings * user).sum(-1) + bias
    torch.testing.assert_close(model(history(1, 2, 3), candidates()), expected)


def test_an_affine_slot_scales_and_shifts_what_its_layer_gives(model):
    slot = make_slot(model, "head.user.2", "affine")
    generator = torch.Generator().manual_seed(5)
    scale, shift = 0.3 * torch.randn(2, DIM, generator=generator)
    change = {"head.user.2.scale": scale, "head.user.2.shift": shift}
    inputs = (history(1, 2, 3), candidates())
    before = model(*inputs)
    with applied(model, (slot,), change):
        edited = model(*inputs)
    hook = model.head.user[2].register_forward_hook(lambda _m, _i, y: y * (1 + scale) + shift)
    torch.testing.assert_close(edited, model(*inputs))
    hook.remove()
    assert (edited - before).abs().max() > 0.01


@pytest.mark.parametrize("count", [1, 20, 100])
def test_one_exported_program_takes_any_number_of_candidates(model, count):
    dims = ((None, {1: Dim("candidates", min=1, max=100)}),)
    program = export(model, model.example_inputs(dynamic=20), dynamic_shapes=dims).module()
    inputs = model.example_inputs(seed=count, dynamic=count)
    torch.testing.assert_close(program(*inputs), model(*inputs))


def test_inputs_stay_below_their_vocabulary(model):
    assert model.vocabulary_of("history") == model.vocabulary_of("candidates") == ITEMS + 1
    assert model.item_embeddings().shape == (ITEMS + 1, DIM)
    assert not model.item_embeddings().requires_grad
    with pytest.raises(NotImplementedError, match="takes no integers as 'image'"):
        model.vocabulary_of("image")


def test_a_table_that_was_taken_scores_and_stays_as_it_is(fresh):
    table = torch.randn(ITEMS + 1, DIM, generator=torch.Generator().manual_seed(6))
    biases = torch.randn(ITEMS + 1, generator=torch.Generator().manual_seed(7))
    fresh.take_items(table, biases)
    asked = candidates()
    _, embeddings, bias = fresh.trunk(history(1, 2, 3), asked)
    torch.testing.assert_close(embeddings, table[asked])
    torch.testing.assert_close(bias, biases[asked])
    scores = fresh(history(1, 2, 3), asked)
    nn.functional.cross_entropy(scores, torch.tensor([4])).backward()
    assert fresh.trunk.items.weight.grad is None
    assert fresh.trunk.bias.weight.grad is not None
    assert torch.equal(fresh.item_embeddings(), table)


def test_a_table_of_another_width_is_refused_in_words(fresh):
    before = fresh.item_embeddings().clone()
    with pytest.raises(
        ValueError, match=r"\[51, 16\], .* the one to take is \[51, 9\]: set dim = 9"
    ):
        fresh.take_items(torch.zeros(ITEMS + 1, 9), torch.zeros(ITEMS + 1))
    assert torch.equal(fresh.item_embeddings(), before)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        *((n, s) for n in ("sasrec", "gru4rec", "din") for s in ("items", "length", "dim")),
        *(("sasrec", "width"), ("gru4rec", "width"), ("din", "hidden")),
    ],
)
def test_settings_below_one_are_refused(name, setting):
    with pytest.raises(ValueError, match=f"{setting} must be 1 or more, got 0"):
        backbones[name](**{"items": ITEMS, "length": LENGTH, "dim": DIM, setting: 0})
