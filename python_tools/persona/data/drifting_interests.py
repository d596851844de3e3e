"""A generated interaction log: users whose interests drift, and a catalogue with a long tail.

At step t user u meets item i, not met before, with probability proportional to
exp(a_u(t)[cluster(i)] + log popularity(i) + chain · [i follows the last item]).
The interests a_u(t) are a stationary random walk, so an old history still tells something.
"""

from pathlib import Path
from typing import Any

import numpy as np

from persona.data.base import datasets
from persona.data.interaction_log import Log
from persona.data.next_item import NextItem, Scenario


def generate(
    users: int,
    items: int,
    clusters: int,
    events: int,
    interest: float,
    drift: float,
    chain: float,
    seed: int,
) -> Log:
    """Draw a log. Item i belongs to cluster i mod `clusters`; each item has one successor there.

    events: of the most active user; the least active has half as many. interest: deviation of the
    interests. drift: share of their variance that is renewed in a step. chain: log odds that an
    item's successor gains right after it.
    """
    rng = np.random.default_rng(seed)
    cluster = np.arange(items) % clusters
    popularity = -0.8 * np.log1p(rng.permutation(items))
    follower = np.arange(clusters, items + clusters) % items
    interests = rng.normal(0, interest, (users, clusters))
    met = np.zeros((users, items), bool)
    met_items = np.zeros((users, events), np.int64)
    everyone = np.arange(users)
    for step in range(events):
        appeal = interests[:, cluster] + popularity
        if step:
            appeal[everyone, follower[met_items[:, step - 1]]] += chain
        appeal += rng.gumbel(size=appeal.shape)
        appeal[met] = -np.inf
        met_items[:, step] = appeal.argmax(1)
        met[everyone, met_items[:, step]] = True
        renewed = rng.normal(0, interest, interests.shape)
        interests = np.sqrt(1 - drift) * interests + np.sqrt(drift) * renewed
    active = np.arange(events) < rng.integers(events // 2, events + 1, users)[:, None]
    user, step_of = np.nonzero(active)
    return Log(
        user.astype(np.int64),
        met_items[active] + 1,
        step_of.astype(np.float64),
        tuple(f"user-{u}" for u in range(users)),
        tuple(f"item-{i}" for i in range(items)),
    )


@datasets.register("drifting-interests")
class DriftingInterests(NextItem):
    """A generated log with drifting interests and a long tail: next-item ranking with no files.

    users, items, clusters, events, interest, drift, chain: see `generate`; `generator_seed` fixes
    it. Further settings are those of `Scenario`.
    """

    needs_root = False

    def __init__(
        self,
        root: Path | None = None,  # noqa: ARG002
        *,
        users: int = 2000,
        items: int = 400,
        clusters: int = 16,
        events: int = 40,
        interest: float = 2.5,
        drift: float = 0.005,
        chain: float = 1.0,
        generator_seed: int = 0,
        **scenario: Any,
    ) -> None:
        log = generate(users, items, clusters, events, interest, drift, chain, generator_seed)
        super().__init__(log, Scenario(**scenario))
