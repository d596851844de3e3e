"""A ranker in the cloud: what encodes item histories, and what late fusion asks.

    h_t = GRU(E[i_1] … E[i_t]),   u_t = E[i_t] + W·h_t + b,   score(c) = u_t · E[c] + β_c
    min −Σ_t log softmax(score(i_{t+1}); i_{t+1} and negatives)

It has an item table of its own, which a device's model may take over. Ours; taught by
`training/ranker_lesson.py`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DIM = 64
DROPOUT = 0.2

_CHUNK = 64
"""Devices that are scored at once: the embeddings of all candidates need the memory."""


class CloudRanker(nn.Module):
    """Windows [D, length], 0 before the first item, and candidates [D, q, c] -> scores [D, q, c].

    items: the highest item id; row 0 of the table is padding.
    """

    def __init__(self, items: int) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, DIM, padding_idx=0)
        self.bias = nn.Embedding(items + 1, 1, padding_idx=0)
        self.gru = nn.GRU(DIM, DIM, batch_first=True)
        self.project = nn.Linear(DIM, DIM)
        self.dropout = nn.Dropout(DROPOUT)
        with torch.no_grad():
            self.items.weight[1:].normal_(std=DIM**-0.5)
            self.bias.weight.zero_()

    def last_users(self, windows: Tensor) -> Tensor:
        """u after the newest item of windows [D, length], [D, DIM]."""
        counts = (windows > 0).sum(1)
        return self.users(packed(windows))[torch.arange(len(windows)), counts - 1]

    def users(self, items: Tensor) -> Tensor:
        """u_t after each item of histories [D, length] that begin in the first column."""
        embedded = self.items(items)
        states, _ = self.gru(self.dropout(embedded))
        users: Tensor = embedded + self.project(self.dropout(states))
        return users

    def forward(self, windows: Tensor, candidates: Tensor) -> Tensor:
        users = self.last_users(windows)
        # A score for every item, of which the candidates' are taken.
        scores = users @ self.items.weight.T + self.bias.weight[:, 0]
        return scores.gather(1, candidates.flatten(1)).view_as(candidates)

    def loss(self, histories: Tensor, negatives: Tensor) -> Tensor:
        """Mean over the places of histories [D, length], as `users` takes them, but the last."""
        users, following = self.users(histories[:, :-1]), histories[:, 1:]
        own = (users * self.items(following)).sum(-1) + self.bias(following)[..., 0]
        others = users @ self.items(negatives).T + self.bias(negatives)[:, 0]
        held = torch.zeros(len(histories), self.items.num_embeddings, dtype=torch.bool)
        held.scatter_(1, histories, True)
        others = others.masked_fill(held[:, None, negatives], -torch.inf)
        scores = torch.cat([own[..., None], others], -1)[following > 0]
        return F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))

    def answers(self, windows: Tensor, candidates: Tensor) -> Tensor:
        """Scores without gradients."""
        chunks = [slice(begin, begin + _CHUNK) for begin in range(0, len(windows), _CHUNK)]
        with torch.inference_mode():
            return torch.cat([self(windows[chunk], candidates[chunk]) for chunk in chunks])


def packed(windows: Tensor) -> Tensor:
    """Histories [D, length] with the newest item last, shifted to begin in the first column."""
    length = windows.shape[1]
    place = torch.arange(length) + (windows == 0).sum(1)[:, None]
    return torch.where(place < length, windows.gather(1, place.clamp_max(length - 1)), 0)
