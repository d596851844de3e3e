"""The next-item lesson: the loss that it says, and an encoder that knows what comes next."""

import pytest
import torch
from torch.nn import functional as F

from persona.method.encoders import ItemsEncoder
from persona.training.config import AdapterConfig
from persona.training.next_item_lesson import NextItem, teach_next_item
from persona.training.stages import TrainingError

ITEMS, DIM, LENGTH = 12, 6, 7
CONFIG = AdapterConfig(hidden=16, latent=4, batch=16, encoder_steps=200, learning_rate=1e-2)


def encoder() -> ItemsEncoder:
    torch.manual_seed(2)
    return ItemsEncoder(torch.randn(ITEMS + 1, DIM), CONFIG.latent, CONFIG.hidden, dropout=0.0)


def rounds(count: int, seed: int) -> torch.Tensor:
    """Windows that go round through the items, from anywhere, of two items or more."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(ITEMS, (count, 1), generator=generator)
    windows = (first + torch.arange(LENGTH)) % ITEMS + 1
    lengths = torch.randint(2, LENGTH + 1, (count, 1), generator=generator)
    return torch.where(torch.arange(LENGTH) >= LENGTH - lengths, windows, 0)


def silent(_done: int, _all: int) -> None:
    pass


def test_the_loss_is_that_of_foreseeing_each_next_item():
    """A loop of the GRU's cell over each window; a window of two items has one question."""
    lesson = NextItem(encoder()).eval()
    window = torch.tensor([[0, 0, 0, 0, 0, 3, 8]])
    cell = torch.nn.GRUCell(CONFIG.hidden, CONFIG.hidden)
    gru = lesson.encoder.gru.state_dict()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in gru.items()})
    with torch.no_grad():
        state = cell(lesson.encoder.widen(lesson.encoder.table[3:4]))
        user = state @ lesson.readout.weight.T + lesson.readout.bias
        scores = (user * lesson.encoder.table[1:]).sum(1) + lesson.bias[1:]
        expected = F.cross_entropy(scores[None], torch.tensor([8 - 1]))
        empty_too = torch.cat([window, torch.tensor([[0] * 6 + [5]]), torch.zeros_like(window)])
        found = lesson.loss(empty_too, 3, torch.Generator().manual_seed(0))
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_all_items_but_the_last_are_asked_about():
    """From equal scores, the bias rises for the items that follow another, and for no other."""
    lesson = NextItem(encoder())
    torch.nn.init.zeros_(lesson.readout.weight)
    torch.nn.init.zeros_(lesson.readout.bias)
    window = torch.tensor([[1, 2, 3, 4, 5, 6, 7]])
    lesson.loss(window, 400, torch.Generator().manual_seed(1)).backward()
    right = lesson.bias.grad < 0
    assert right[2:8].all()
    assert not right[:2].any()
    assert not right[8:].any()


def test_after_the_lesson_the_states_tell_the_next_item():
    """On windows never seen, from chance to near certainty; the same bits again."""
    taught = encoder()
    table = taught.table.clone()
    curve = teach_next_item(taught, rounds(400, 0), rounds(60, 1), CONFIG, 3, silent)
    assert curve.loss[-1] < 0.2 < curve.loss[0]
    assert torch.equal(taught.table, table)
    again = encoder()
    teach_next_item(again, rounds(400, 0), rounds(60, 1), CONFIG, 3, silent)
    assert all(
        torch.equal(a, b)
        for a, b in zip(taught.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_windows_of_one_item_teach_nothing_and_say_so():
    single = torch.zeros(20, LENGTH, dtype=torch.long)
    single[:, -1] = 3
    with pytest.raises(TrainingError, match="never a number"):
        teach_next_item(encoder(), single, single, CONFIG, 0, silent)
