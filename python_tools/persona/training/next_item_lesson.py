"""What an items encoder learns first: to foresee, after each item of a window, the next one.

    min −Σ_t log softmax(E·(W h_t + c) + β)[i_{t+1}],   h_t = GRU(E[i_1 … i_t])

A window asks as many questions as it has items, where the loss of an edit asks a handful for a
device. The GRU begins the adapter's training from there; W, c and β are left behind. E is the
frozen backbone's item table. Ours; the papers train the encoder through the edits alone.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from persona.method.encoders import ItemsEncoder
from persona.training.config import AdapterConfig
from persona.training.stages import Curve, Progress, Schedule, index_batches, minimise

_PLACES = 8
"""Items of each window that a step asks about."""

_HELD_PLACES = 16
"""Items of each validation window that are asked about, always the same."""


class NextItem(nn.Module):
    """An items encoder with a readout over all items."""

    def __init__(self, encoder: ItemsEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        items, dim = encoder.table.shape
        self.readout = nn.Linear(encoder.gru.hidden_size, dim)
        self.bias = nn.Parameter(torch.zeros(items))

    def logits(self, states: Tensor) -> Tensor:
        """States [..., hidden] -> a logit for each item [..., items + 1]; never the padding's."""
        found = self.readout(states) @ self.encoder.table.T + self.bias
        return found.index_fill(-1, torch.zeros(1, dtype=torch.long), -1e9)

    def loss(self, windows: Tensor, places: int, generator: torch.Generator) -> Tensor:
        """Mean over random places of the windows [D, length] that have two items or more."""
        windows = windows[(windows > 0).sum(1) > 1]
        states, items, counts = self.encoder.states(windows)
        drawn = torch.rand(len(windows), places, generator=generator)
        place = (drawn * (counts - 1)[:, None]).long()
        chosen = states.gather(1, place[..., None].expand(-1, -1, states.shape[-1]))
        return F.cross_entropy(
            self.logits(chosen).flatten(0, 1), items.gather(1, place + 1).flatten()
        )


def teach_next_item(
    encoder: ItemsEncoder,
    windows: Tensor,
    held: Tensor,
    config: AdapterConfig,
    seed: int,
    progress: Progress,
) -> Curve:
    """Teach the encoder for `encoder_steps` on windows [D, length], keep the best state on `held`.

    Raises TrainingError where no window has two items.
    """
    lesson = NextItem(encoder)
    generator = torch.Generator().manual_seed(seed)
    batches = index_batches(len(windows), config.batch, generator)

    def loss() -> Tensor:
        return lesson.loss(windows[next(batches)], _PLACES, generator)

    def check() -> float:
        return float(lesson.loss(held, _HELD_PLACES, torch.Generator().manual_seed(seed)))

    schedule = Schedule(
        config.encoder_steps, config.learning_rate, config.weight_decay, config.checks
    )
    return minimise(lesson, loss, check, schedule, progress)
