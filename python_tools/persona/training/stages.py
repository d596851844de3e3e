"""The stages of training, each chosen on devices that it was not trained on.

backbone, to convergence → adapter on the frozen backbone → prototypes from its codes → group
edits → the device-side choice among them.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional as F

from persona.backbones import Backbone
from persona.data import Dataset
from persona.method.adapter import Adapter
from persona.method.encoders import CLAMP
from persona.method.prototypes import PrototypeBank
from persona.method.slots import Edit, compose
from persona.training.config import AdapterConfig, BackboneConfig, PrototypeConfig
from persona.training.devices import Devices, losses, together

Progress = Callable[[int, int], None]
"""Called with steps done and steps in all."""


class TrainingError(RuntimeError):
    """A training that cannot be used; the message says what to change."""


@dataclass(frozen=True)
class Curve:
    """Loss on held-out devices after so many steps; the report shows it as proof of convergence."""

    steps: tuple[int, ...]
    loss: tuple[float, ...]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage is trained, and how often it is checked."""

    steps: int
    learning_rate: float
    weight_decay: float
    checks: int

    @classmethod
    def of(cls, config: BackboneConfig | AdapterConfig) -> "Schedule":
        """As a stage's configuration says."""
        return cls(config.steps, config.learning_rate, config.weight_decay, config.checks)


def minimise(
    module: nn.Module,
    loss: Callable[[], Tensor],
    check: Callable[[], float],
    schedule: Schedule,
    progress: Progress,
) -> Curve:
    """AdamW with a cosine schedule after a short warm-up; leaves the best checked state.

    Without steps the state stays, and is checked once.
    """
    steps, checks = schedule.steps, schedule.checks
    if steps == 0:
        module.eval()
        with torch.no_grad():
            return Curve((0,), (check(),))
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    warm_up = max(1, steps // 10)
    pace = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min(1.0, (step + 1) / warm_up) * (1 + math.cos(math.pi * step / steps)) / 2,
    )
    best, state = math.inf, copy.deepcopy(module.state_dict())
    seen: list[tuple[int, float]] = []
    checked = {round(steps * (i + 1) / checks) for i in range(checks)}
    for step in range(1, steps + 1):
        module.train()
        optimiser.zero_grad()
        value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        pace.step()
        if step in checked:
            module.eval()
            with torch.no_grad():
                score = check()
            if math.isfinite(score):
                seen.append((step, score))
            if score < best:
                best, state = score, copy.deepcopy(module.state_dict())
        progress(step, steps)
    if not math.isfinite(best):
        raise TrainingError(
            f"the loss on held-out devices was never a number in {steps} steps; lower "
            f"learning_rate ({schedule.learning_rate:g}) or look for NaN in the data"
        )
    module.load_state_dict(state)
    module.eval()
    return Curve(tuple(s for s, _ in seen), tuple(v for _, v in seen))


def train_backbone(
    backbone: Backbone, data: Dataset, config: BackboneConfig, seed: int, progress: Progress
) -> Curve:
    """Train on data pooled over all backbone devices, keep the best state on held-out ones."""
    rng = np.random.default_rng(seed)
    held_inputs, held_targets = _tensors(*data.held_out())

    def loss() -> Tensor:
        inputs, targets = _tensors(*data.batch(rng, config.batch))
        return F.cross_entropy(backbone(*inputs), targets)

    def check() -> float:
        chunks = zip(*(h.split(512) for h in (*held_inputs, held_targets)), strict=True)
        total = sum(
            float(F.cross_entropy(backbone(*inputs), targets, reduction="sum"))
            for *inputs, targets in chunks
        )
        return total / len(held_targets)

    curve = minimise(
        backbone,
        loss,
        check,
        Schedule.of(config),
        progress,
    )
    backbone.requires_grad_(False)
    return curve


def _tensors(
    inputs: tuple[np.ndarray, ...], targets: np.ndarray
) -> tuple[tuple[Tensor, ...], Tensor]:
    return tuple(torch.from_numpy(x) for x in inputs), torch.from_numpy(targets)


def index_batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of indices, each index once an epoch."""
    size = min(size, count)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from (order[i : i + size] for i in range(0, count - size + 1, size))


def train_adapter(
    adapter: Adapter,
    module: nn.Module,
    train: Devices,
    validation: Devices,
    config: AdapterConfig,
    seed: int,
    progress: Progress,
) -> Curve:
    """Train every parameter of the adapter through the frozen model's loss on edited devices."""
    batches = index_batches(len(train), config.batch, torch.Generator().manual_seed(seed))

    def loss() -> Tensor:
        devices = train.subset(next(batches))
        edit, _ = adapter(devices.observations)
        return losses(module, adapter.slots, edit, devices).mean()

    def check() -> float:
        edit, _ = adapter(validation.observations)
        return float(losses(module, adapter.slots, edit, validation).mean())

    return minimise(
        adapter,
        loss,
        check,
        Schedule.of(config),
        progress,
    )


def train_prototypes(
    bank: PrototypeBank,
    adapter: Adapter,
    module: nn.Module,
    train: Devices,
    validation: Devices,
    config: PrototypeConfig,
    seed: int,
    progress: Progress,
) -> Curve:
    """Cluster the codes, begin each group edit as its members' mean, then fit it to the group."""
    with torch.no_grad():
        edit, codes = adapter(train.observations)
        own, _ = adapter(validation.observations)
    clusters = KMeans(bank.count, n_init=4, random_state=seed).fit(codes.flatten(1).numpy())
    bank.centres.copy_(torch.from_numpy(clusters.cluster_centers_))
    members = torch.from_numpy(clusters.labels_).long()
    for index in members.unique().tolist():
        mine = members == index
        bank.set_group(index, {name: value[mine].mean(0) for name, value in edit.items()})
    return fit_groups(bank, members, own, module, train, validation, config, seed, progress)


def fit_groups(
    bank: PrototypeBank,
    members: Tensor,
    own: Edit,
    module: nn.Module,
    train: Devices,
    validation: Devices,
    config: PrototypeConfig,
    seed: int,
    progress: Progress,
) -> Curve:
    """Fit each group edit, from where it is, to the loss of its members.

    members: the group of each training device [D]. own: the validation devices' whole edits, from
    which each is smallest for one prototype; the state that serves them best is kept.
    """
    batches = index_batches(len(train), config.batch, torch.Generator().manual_seed(seed))

    def loss() -> Tensor:
        index = next(batches)
        change = bank.chosen(members[index])
        return losses(module, bank.slots, change, train.subset(index)).mean()

    def check() -> float:
        change = bank.chosen(bank.assign(own))
        return float(losses(module, bank.slots, change, validation).mean())

    return minimise(
        bank,
        loss,
        check,
        Schedule(config.steps, config.learning_rate, weight_decay=0.0, checks=4),
        progress,
    )


@dataclass(frozen=True)
class DeviceRule:
    """How a device chooses a prototype by itself: argmax of a linear map of its observation.

    mean, deviation [width] standardise the vector, clamped to ±6; weight [K, width], bias [K].
    """

    mean: Tensor
    deviation: Tensor
    weight: Tensor
    bias: Tensor

    def standard(self, vectors: Tensor) -> Tensor:
        """Vectors [D, width] standardised on the training devices and clamped."""
        return ((vectors - self.mean) / self.deviation).clamp(-CLAMP, CLAMP)

    def assign(self, vectors: Tensor) -> Tensor:
        """Vectors [D, width] -> prototypes [D]."""
        return (self.standard(vectors) @ self.weight.T + self.bias).argmax(1)

    def linear(self) -> nn.Linear:
        """The map as a module that can be trained."""
        count, width = self.weight.shape
        module = nn.Linear(width, count)
        with torch.no_grad():
            module.weight.copy_(self.weight)
            module.bias.copy_(self.bias)
        return module

    def with_map(self, linear: nn.Linear) -> "DeviceRule":
        """The same statistics with a trained map."""
        return replace(self, weight=linear.weight.detach(), bias=linear.bias.detach())


def _costs(bank: PrototypeBank, module: nn.Module, devices: Devices) -> Tensor:
    """Loss of each device under each prototype [D, K]."""
    columns = [
        losses(module, bank.slots, bank.chosen(torch.full((len(devices),), k)), devices)
        for k in range(bank.count)
    ]
    return torch.stack(columns, 1)


def train_device_rule(
    bank: PrototypeBank,
    module: nn.Module,
    train: Devices,
    validation: Devices,
    config: PrototypeConfig,
    seed: int,
    progress: Progress,
) -> DeviceRule:
    """Fit the linear map to the expected loss of the prototypes it chooses."""
    width = train.vectors.shape[1]
    deviation = train.vectors.std(0).clamp_min(1e-4)
    start = DeviceRule(
        train.vectors.mean(0), deviation, torch.zeros(bank.count, width), torch.zeros(bank.count)
    )
    linear = start.linear()
    with torch.no_grad():
        costs, held_costs = (_costs(bank, module, devices) for devices in (train, validation))
    vectors, held_vectors = (start.standard(d.vectors) for d in (train, validation))
    batches = index_batches(len(train), config.rule_batch, torch.Generator().manual_seed(seed))

    def loss() -> Tensor:
        index = next(batches)
        return (linear(vectors[index]).softmax(1) * costs[index]).sum(1).mean()

    def check() -> float:
        chosen = linear(held_vectors).argmax(1)
        return float(held_costs.gather(1, chosen[:, None]).mean())

    minimise(
        linear,
        loss,
        check,
        Schedule(config.rule_steps, config.rule_learning_rate, config.rule_weight_decay, 15),
        progress,
    )
    return start.with_map(linear)


def refine_jointly(
    adapter: Adapter,
    bank: PrototypeBank,
    rule: DeviceRule,
    module: nn.Module,
    train: Devices,
    validation: Devices,
    config: PrototypeConfig,
    seed: int,
    progress: Progress,
    *,
    hardened: tuple[Devices, ...] = (),
    held_hardened: tuple[Devices, ...] = (),
) -> tuple[DeviceRule, Curve]:
    """Refine group edits, the device's choice among them and individual edits together.

        L(P_k* + ΔW(z | k*)) + Σ_k softmax_k(rule(o)) · L(P_k)

    The first term is taken over the spoilt windows of `hardened` too, or the adapter would forget
    when to hold back. The second teaches each prototype on the devices that would choose it, and
    the rule which one to choose, so that both serve a device without a cloud. What does not become
    better on validation devices, and on `held_hardened`, stays as it was. Returns the refined rule.
    """
    linear = rule.linear()
    whole = nn.ModuleList([adapter, bank, linear])
    everyone = together(train, *hardened)
    held = together(validation, *held_hardened)
    generator = torch.Generator().manual_seed(seed)
    batches = index_batches(len(train), config.joint_batch, generator)
    all_batches = index_batches(len(everyone), config.joint_batch, generator)
    vectors, held_vectors = (rule.standard(d.vectors) for d in (train, validation))

    def individual(devices: Devices) -> Tensor:
        edit, _ = adapter(devices.observations)
        with torch.no_grad():
            assignment = bank.assign(edit)
        change = compose(bank.slots, bank.chosen(assignment), bank.relative(edit, assignment))
        return losses(module, bank.slots, change, devices)

    def loss() -> Tensor:
        index = next(batches)
        costs = _costs(bank, module, train.subset(index))
        choice = linear(vectors[index]).softmax(1)
        whole_edits = individual(everyone.subset(next(all_batches)))
        return whole_edits.mean() + (choice * costs).sum(1).mean()

    def check() -> float:
        chosen = bank.chosen(linear(held_vectors).argmax(1))
        grouped = losses(module, bank.slots, chosen, validation)
        return float(individual(held).mean() + grouped.mean())

    whole.eval()
    with torch.no_grad():
        before, start = check(), copy.deepcopy(whole.state_dict())
    schedule = Schedule(config.joint_steps, config.joint_learning_rate, weight_decay=0.0, checks=6)
    curve = minimise(whole, loss, check, schedule, progress)
    if min(curve.loss) > before:
        whole.load_state_dict(start)
    return rule.with_map(linear), Curve((0, *curve.steps), (before, *curve.loss))
