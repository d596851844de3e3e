"""Refining prototypes: latents since the last version become an updated bank, with a report.

    c_k → c'_k     minibatch k-means, begun at c_k, each c_k weighing as the devices it was made of
    P_k → P'_k     moved with its centre (`method/evolution.py`), then, where labelled devices are
                   at hand, fitted to those near c'_k

Adapter and backbone stay: edits of devices are made as before, and are as large or small as the
prototype beside them leaves to do.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import silhouette_score
from torch import Tensor, nn

from persona.method.adapter import Adapter
from persona.method.evolution import follow, nearest
from persona.method.prototypes import PrototypeBank
from persona.training.config import PrototypeConfig
from persona.training.devices import Devices, losses
from persona.training.stages import Curve, DeviceRule, Progress, fit_groups, train_device_rule

Latents = NDArray[np.float32]

_PASSES = 5
_BATCH = 1024
_SILHOUETTE_DEVICES = 2_000


@dataclass(frozen=True)
class Stability:
    """What moved. Distances are in deviations: the root mean square distance of latents from
    their mean.

    devices: whose latents were used. moved: how far each centre went. changed: share of devices
    that are nearest to another centre than before. share_before, share_after: of devices, by
    nearest centre. drift: distance between the mean latents of the older and the newer half of the
    devices. drift_by_chance: what that distance would be without any drift (the square root of its
    expected square). explained_before, explained_after: share of the latents' variance that the
    centres explain; below 0 where they fit worse than one mean would. silhouette_before,
    silhouette_after: Rousseeuw's, of at most 2,000 devices; None where all are in one group.
    """

    devices: int
    moved: tuple[float, ...]
    changed: float
    share_before: tuple[float, ...]
    share_after: tuple[float, ...]
    drift: float
    drift_by_chance: float
    explained_before: float
    explained_after: float
    silhouette_before: float | None
    silhouette_after: float | None


def followed_centres(centres: Tensor, latents: Tensor, weight: float, seed: int) -> Tensor:
    """Centres c' [K, width] after latents [D, width].

    weight: devices that each present centre stands for, so that a few new ones move it little.
    """
    means = MiniBatchKMeans(
        len(centres),
        init=centres.numpy(),
        n_init=1,
        batch_size=_BATCH,
        reassignment_ratio=0.0,
        random_state=seed,
    )
    means.partial_fit(centres.numpy(), sample_weight=np.full(len(centres), weight * _PASSES))
    order = np.random.default_rng(seed)
    for _ in range(_PASSES):
        shuffled = latents.numpy()[order.permutation(len(latents))]
        for start in range(0, len(shuffled), _BATCH):
            means.partial_fit(shuffled[start : start + _BATCH])
    return torch.from_numpy(means.cluster_centers_.astype(np.float32))


def followed(
    bank: PrototypeBank, adapter: Adapter, latents: Tensor, weight: float, seed: int
) -> PrototypeBank:
    """The bank after latents [D, width]: its centres, and each group edit with its own."""
    centres = followed_centres(bank.centres, latents, weight, seed)
    moved = follow(bank, adapter, centres)
    moved.round_to_half()
    return moved


def stability(before: Tensor, after: Tensor, latents: Tensor, seed: int) -> Stability:
    """What became of centres [K, width], seen by latents [D, width], the oldest first."""
    count = len(before)
    mean = latents.mean(0)
    variance = float((latents - mean).square().sum(1).mean())
    deviation = variance**0.5
    older, newer = latents[: len(latents) // 2], latents[len(latents) // 2 :]
    was, now = nearest(before, latents), nearest(after, latents)

    def shares(members: Tensor) -> tuple[float, ...]:
        return tuple((torch.bincount(members, minlength=count) / len(members)).tolist())

    def explained(centres: Tensor, members: Tensor) -> float:
        return 1 - float((latents - centres[members]).square().sum(1).mean()) / variance

    def silhouette(members: Tensor) -> float | None:
        some = np.random.default_rng(seed).permutation(len(latents))[:_SILHOUETTE_DEVICES]
        groups = members.numpy()[some]
        if not 1 < len(np.unique(groups)) < len(groups):
            return None
        return float(silhouette_score(latents.numpy()[some], groups))

    return Stability(
        devices=len(latents),
        moved=tuple(((after - before).norm(dim=1) / deviation).tolist()),
        changed=float((was != now).float().mean()),
        share_before=shares(was),
        share_after=shares(now),
        drift=float((newer.mean(0) - older.mean(0)).norm()) / deviation,
        drift_by_chance=(1 / len(older) + 1 / len(newer)) ** 0.5,
        explained_before=explained(before, was),
        explained_after=explained(after, now),
        silhouette_before=silhouette(was),
        silhouette_after=silhouette(now),
    )


@dataclass(frozen=True)
class Refined:
    """An updated bank with the device's rule, and how its fit went, where there was one."""

    bank: PrototypeBank
    rule: DeviceRule
    stability: Stability
    curve: Curve | None


def refine_from_latents(
    bank: PrototypeBank,
    adapter: Adapter,
    rule: DeviceRule,
    latents: Latents,
    weight: float,
    seed: int,
) -> Refined:
    """Let centres and group edits follow latents [D, width], the oldest first; no labels needed.

    The device's rule stays: it reads observations, which are not stored.
    """
    seen = torch.from_numpy(latents)
    moved = followed(bank, adapter, seen, weight, seed)
    return Refined(moved, rule, stability(bank.centres, moved.centres, seen, seed), None)


def refit(
    refined: Refined,
    adapter: Adapter,
    module: nn.Module,
    train: Devices,
    validation: Devices,
    config: PrototypeConfig,
    seed: int,
    progress: Callable[[str], Progress],
) -> Refined:
    """Fit the group edits to labelled devices near their centres, then the device's rule."""
    stage = (module, train, validation, config, seed)
    fitting = progress("fitting group edits")
    bank, curve = refitted(refined.bank, adapter, *stage, fitting)
    rule = train_device_rule(bank, *stage, progress("fitting the device's rule"))
    bank.round_to_half()
    return replace(refined, bank=bank, rule=rule, curve=curve)


def refitted(
    followed: PrototypeBank,
    adapter: Adapter,
    module: nn.Module,
    train: Devices,
    validation: Devices,
    config: PrototypeConfig,
    seed: int,
    progress: Progress,
) -> tuple[PrototypeBank, Curve]:
    """The bank with group edits fitted to the devices near their centres, and how that went.

    Group edits that do not become better on validation devices stay as they followed.
    """
    bank = PrototypeBank(followed.slots, followed.count, followed.centres.shape[1])
    bank.load_state_dict(followed.state_dict())
    with torch.no_grad():
        members = nearest(bank.centres, adapter.codes(train.observations).flatten(1))
        own, _ = adapter(validation.observations)
        change = followed.chosen(followed.assign(own))
        before = float(losses(module, bank.slots, change, validation).mean())
    curve = fit_groups(bank, members, own, module, train, validation, config, seed, progress)
    if min(curve.loss) > before:
        bank = followed
    return bank, Curve((0, *curve.steps), (before, *curve.loss))
