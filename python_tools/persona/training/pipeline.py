"""All stages in a row: data and a configuration become a trained run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from persona.backbones import Backbone
from persona.data import DataError, Dataset, datasets
from persona.formats.observation import ItemsSpec, ObservationSpec, PooledSpec
from persona.formats.slots import SlotKind, SlotSpec
from persona.method.adapter import Adapter, PriorSeed
from persona.method.encoders import ItemsEncoder, PooledEncoder
from persona.method.prototypes import PrototypeBank
from persona.method.slots import applied, make_slot
from persona.training.backbone_files import find_backbone
from persona.training.config import AdapterConfig, ConfigError, RunConfig
from persona.training.devices import edited_part, to_tensors
from persona.training.stages import (
    Curve,
    DeviceRule,
    Progress,
    train_adapter,
    train_backbone,
    train_device_rule,
    train_prototypes,
)

StageProgress = Callable[[str], Progress]
"""Called with a stage's name; returns what is called with steps done and steps in all."""

DEVICE_SEED = 1_000
"""Devices that train and validate the adapter come from seeds from here on."""

_MASS_SAMPLES = 5_000
"""Training samples that the backbone's class frequencies are counted from."""


@dataclass(frozen=True)
class Trained:
    """What training leaves: the frozen backbone, the adapter, the bank and the device's rule."""

    config: RunConfig
    backbone: Backbone
    slots: tuple[SlotSpec, ...]
    observation: ObservationSpec
    adapter: Adapter
    bank: PrototypeBank
    rule: DeviceRule
    curves: dict[str, Curve]
    data_fingerprint: str
    left_out: str
    """What the data set left out and why."""


def open_dataset(config: RunConfig, root: Path | None) -> Dataset:
    """The configured data set. Raises DataError where it needs a folder and got none."""
    kind = datasets[config.data.name]
    if kind.needs_root and root is None:
        raise DataError(f"data set {config.data.name!r} needs your files: pass --data PATH")
    try:
        return kind(root, **config.data.settings)
    except TypeError as error:
        raise DataError(f"settings of data set {config.data.name!r}: {error}") from None


def build_backbone(
    config: RunConfig, data_settings: dict[str, object], folder: Path | None
) -> Backbone:
    """A fresh backbone, with its settings and what the data dictate."""
    kind = find_backbone(config.backbone, folder)
    try:
        return kind(**{**data_settings, **config.backbone.settings})
    except TypeError as error:
        raise ConfigError(f"settings of backbone {config.backbone.name!r}: {error}") from None


def load_weights(backbone: Backbone, config: RunConfig, folder: Path | None) -> None:
    """Begin from the user's weights, where the configuration names a file of them."""
    if config.backbone.weights is None:
        if config.backbone.steps == 0:
            raise ConfigError("backbone.steps is 0: name the weights to use in backbone.weights")
        return
    path = (folder or Path()) / config.backbone.weights
    if not path.is_file():
        raise ConfigError(f"backbone.weights: there is no {path}")
    try:
        backbone.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        raise ConfigError(f"backbone.weights: {path} does not fit the backbone: {error}") from None


def build_slots(backbone: Backbone, config: RunConfig) -> tuple[SlotSpec, ...]:
    """The configured slots, or the backbone's own choice."""
    if not config.backbone.slots:
        own = backbone.default_slots()
        return tuple(make_slot(backbone, name, **settings) for name, settings in own.items())
    names = [slot.name for slot in config.backbone.slots]
    if len(set(names)) != len(names):
        raise ConfigError(f"backbone.slots: each layer can be one slot, got {', '.join(names)}")
    return tuple(make_slot(backbone, **vars(slot)) for slot in config.backbone.slots)


def build_observation(backbone: Backbone, data: Dataset, config: RunConfig) -> ObservationSpec:
    """What a device tells of its window: item ids for rankers, pooled statistics for the rest."""
    low, high = config.adapter.min_window, config.adapter.max_window
    if backbone.task == "ranking":
        vocabulary = backbone.vocabulary_of(backbone.input_specs()[0].name) - 1
        return ItemsSpec("items", vocabulary, low, high)
    with torch.no_grad():
        features, posterior = backbone.eval().features(*backbone.example_inputs())
    classes = posterior.shape[1]
    _, targets = data.batch(np.random.default_rng(config.seed), _MASS_SAMPLES)
    counts = np.bincount(targets, minlength=classes) + 1
    mass = tuple(round(float(share), 6) for share in counts / counts.sum())
    return PooledSpec("pooled", features.shape[1], classes, low, high, mass)


def build_adapter(
    backbone: Backbone,
    slots: tuple[SlotSpec, ...],
    spec: ObservationSpec,
    config: AdapterConfig,
) -> Adapter:
    """An untrained adapter for these slots and observations."""
    sizes = (config.latent, config.hidden, config.dropout)
    encoder = (
        ItemsEncoder(backbone.item_embeddings(), *sizes)
        if isinstance(spec, ItemsSpec)
        else PooledEncoder(spec.width, *sizes)
    )
    return Adapter(
        slots,
        encoder,
        config.latent,
        cross_layer=config.cross_layer,
        prior=_prior_seed(backbone, slots[-1], spec) if config.prior_seed else None,
        output_std=config.output_std,
    )


def _prior_seed(backbone: Backbone, last: SlotSpec, spec: ObservationSpec) -> PriorSeed | None:
    """Prior correction through the last slot, where its bias is added to the logits."""
    suffix = {SlotKind.AFFINE: "shift"}.get(last.kind, "bias")
    if not isinstance(spec, PooledSpec) or last.out != spec.classes:
        return None
    if suffix not in last.tensors() or not _reaches_logits(backbone, last, suffix):
        return None
    return PriorSeed(f"{last.name}.{suffix}", spec.prior_columns, spec.training_mass)


def _reaches_logits(backbone: Backbone, slot: SlotSpec, suffix: str) -> bool:
    """Whether a change of this bias is the same change of the logits."""
    inputs = backbone.example_inputs()
    name = f"{slot.name}.{suffix}"
    change = {f"{slot.name}.{x}": torch.zeros(shape) for x, shape in slot.tensors().items()}
    change[name] = torch.arange(slot.out) / slot.out
    with torch.no_grad():
        before = backbone(*inputs)
        with applied(backbone, (slot,), change):
            moved = backbone(*inputs) - before
    return torch.allclose(moved, change[name].expand_as(moved), atol=1e-4)


def train(
    config: RunConfig, data: Dataset, folder: Path | None, progress: StageProgress
) -> Trained:
    """Run every stage. `folder`: where a user's backbone file is looked for."""
    torch.manual_seed(config.seed)
    backbone = build_backbone(config, data.backbone_settings(), folder)
    load_weights(backbone, config, folder)
    slots = build_slots(backbone, config)
    curves = {
        "backbone": train_backbone(
            backbone, data, config.backbone, config.seed, progress("training the static backbone")
        )
    }
    spec = build_observation(backbone, data, config)

    observing = progress("observing training devices")
    seed = DEVICE_SEED + config.seed
    a = config.adapter
    train_devices = to_tensors(backbone, slots, spec, data.devices("adapter", a.devices, seed))
    observing(1, 2)
    validation = to_tensors(
        backbone, slots, spec, data.devices("validation", a.validation_devices, seed)
    )
    observing(2, 2)

    module, _ = edited_part(backbone, slots)
    adapter = build_adapter(backbone, slots, spec, a)
    if isinstance(adapter.encoder, PooledEncoder):
        adapter.encoder.calibrate(train_devices.vectors)
    curves["adapter"] = train_adapter(
        adapter, module, train_devices, validation, a, config.seed, progress("training the adapter")
    )
    bank = PrototypeBank(slots, config.prototypes.count, len(slots) * a.latent)
    curves["prototypes"] = train_prototypes(
        bank,
        adapter,
        module,
        train_devices,
        validation,
        config.prototypes,
        config.seed,
        progress("fitting prototypes"),
    )
    bank.round_to_half()
    rule = train_device_rule(
        bank,
        module,
        train_devices,
        validation,
        config.prototypes,
        config.seed,
        progress("fitting the device's rule"),
    )
    return Trained(
        config,
        backbone,
        slots,
        spec,
        adapter,
        bank,
        rule,
        curves,
        data.fingerprint(),
        data.summary(),
    )
