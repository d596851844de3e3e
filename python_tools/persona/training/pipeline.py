"""All stages in a row: data and a configuration become a trained run."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from persona.backbones import Backbone
from persona.data import DataError, Dataset, Device, datasets
from persona.data.streams import streams
from persona.formats.observation import ItemsSpec, ObservationSpec, PooledSpec
from persona.formats.slots import SlotKind, SlotSpec
from persona.method.adapter import Adapter, PriorSeed
from persona.method.cloud_ranker import DIM, CloudRanker
from persona.method.encoders import ItemsEncoder, PooledEncoder, RankerEncoder
from persona.method.gate import Familiarity, Strength
from persona.method.prototypes import PrototypeBank
from persona.method.slots import applied, make_slot
from persona.training.backbone_checks import check_backbone
from persona.training.backbone_files import find_backbone
from persona.training.config import AdapterConfig, ConfigError, RunConfig
from persona.training.devices import DeviceTensors, Fleet, edited_part, to_tensors, together
from persona.training.gate_lesson import expose, pays
from persona.training.ranker_lesson import teach_ranker
from persona.training.stages import (
    Curve,
    DeviceRule,
    Progress,
    refine_jointly,
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
        raise DataError(
            f"settings of data set {config.data.name!r}: {error}; it takes "
            f"{', '.join(setting_names(kind))}"
        ) from None


def setting_names(kind: type[Dataset]) -> list[str]:
    """What may stand in `[data] settings` for a data set, scenario included."""
    named = [n for n in inspect.signature(kind).parameters if n not in ("root", "scenario")]
    scenario = kind.scenario_settings
    return [*named, *(field.name for field in fields(scenario))] if scenario else named


def build_backbone(
    config: RunConfig, data_settings: dict[str, object], folder: Path | None
) -> Backbone:
    """A fresh backbone, with its settings and what the data dictate."""
    kind = find_backbone(config.backbone, folder)
    try:
        return kind(**{**data_settings, **config.backbone.settings})
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(
            f"settings of backbone {config.backbone.name!r}: {error}; it takes "
            f"{', '.join(inspect.signature(kind).parameters)}"
        ) from None


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


def check_ranker(backbone: Backbone, config: RunConfig) -> None:
    """Raises ConfigError where the cloud's ranker, or its item table, is wanted and cannot be."""
    if config.adapter.encoder_steps and backbone.task != "ranking":
        raise ConfigError(
            "adapter.encoder_steps teaches a ranker of items, and this backbone does "
            f"{backbone.task}: leave it at 0"
        )
    if config.backbone.item_table == "own":
        return
    if not config.adapter.encoder_steps:
        raise ConfigError(
            'backbone.item_table = "ranker" wants a ranker of items: set adapter.encoder_steps, '
            "with data and a backbone that rank"
        )
    if config.backbone.weights is not None:
        raise ConfigError(
            "backbone.weights hold an item table of their own, which backbone.item_table = "
            '"ranker" would replace: leave one of the two out'
        )
    # An empty table now, so that a backbone which cannot take one says so before the lesson.
    rows = backbone.vocabulary_of(backbone.input_specs()[0].name)
    _give_table(backbone, torch.zeros(rows, DIM), torch.zeros(rows))


def give_items(backbone: Backbone, ranker: CloudRanker) -> None:
    """Have a backbone rank with the ranker's items. Raises ConfigError where it cannot."""
    _give_table(backbone, ranker.items.weight.detach(), ranker.bias.weight.detach()[:, 0])


def _give_table(backbone: Backbone, embeddings: Tensor, biases: Tensor) -> None:
    try:
        backbone.take_items(embeddings, biases)
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f'backbone.item_table = "ranker": {error}') from None


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


WindowEncoder = ItemsEncoder | PooledEncoder | RankerEncoder


def build_encoder(
    backbone: Backbone, spec: ObservationSpec, config: AdapterConfig, ranker: CloudRanker | None
) -> WindowEncoder:
    """An untrained window encoder for these observations, around a taught ranker where one is."""
    sizes = (config.latent, config.hidden, config.dropout)
    if isinstance(spec, PooledSpec):
        return PooledEncoder(spec.width, *sizes)
    if config.encoder_steps:
        known = CloudRanker(spec.vocabulary) if ranker is None else ranker
        return RankerEncoder(known, config.latent, config.dropout)
    return ItemsEncoder(backbone.item_embeddings(), *sizes)


def build_adapter(
    backbone: Backbone,
    slots: tuple[SlotSpec, ...],
    spec: ObservationSpec,
    config: AdapterConfig,
    ranker: CloudRanker | None = None,
) -> Adapter:
    """An untrained adapter for these slots and observations, around a taught ranker if any."""
    return Adapter(
        slots,
        build_encoder(backbone, spec, config, ranker),
        config.latent,
        cross_layer=config.cross_layer,
        prior=_prior_seed(backbone, slots[-1], spec) if config.prior_seed else None,
        strength=Strength(config.latent) if config.strength else None,
        familiarity=Familiarity(spec.width, exposed=config.exposure)
        if config.familiarity < 1 and isinstance(spec, PooledSpec)
        else None,
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


@dataclass(frozen=True)
class Observed:
    """The devices that editing is trained on, and those that every choice is made on.

    hardened, held_hardened: a share of either, once through each stream of the configuration.
    """

    train: DeviceTensors
    validation: Fleet
    hardened: tuple[DeviceTensors, ...]
    held_hardened: tuple[DeviceTensors, ...]


def observe_devices(
    config: RunConfig,
    data: Dataset,
    backbone: Backbone,
    slots: tuple[SlotSpec, ...],
    spec: ObservationSpec,
    progress: StageProgress,
) -> Observed:
    """Draw training and validation devices and compute what the adapter needs of them."""
    observing = progress("observing training devices")
    a, seed = config.adapter, DEVICE_SEED + config.seed

    def spoilt(devices: list[Device]) -> tuple[DeviceTensors, ...]:
        some = devices[: round(len(devices) * a.hardening_share)]
        return tuple(
            to_tensors(
                backbone, slots, spec, streams[name]().spoil(some, np.random.default_rng([seed, i]))
            )
            for i, name in enumerate(a.hardening)
        )

    found = data.devices("adapter", a.devices, seed)
    train, hardened = to_tensors(backbone, slots, spec, found), spoilt(found)
    del found
    observing(1, 2)
    held = data.devices("validation", a.validation_devices, seed)
    validation = Fleet(tuple(held), to_tensors(backbone, slots, spec, held))
    held_hardened = spoilt(held)
    observing(2, 2)
    return Observed(train, validation, hardened, held_hardened)


@dataclass(frozen=True)
class Editing:
    """What is trained on a frozen backbone: adapter, bank and the device's rule."""

    adapter: Adapter
    bank: PrototypeBank
    rule: DeviceRule
    curves: dict[str, Curve]


def calibrate_encoder(encoder: nn.Module, observed: Observed) -> None:
    """What a fresh window encoder takes from the training devices before it learns."""
    if isinstance(encoder, PooledEncoder):
        encoder.calibrate(observed.train.vectors)


def train_editing(
    config: RunConfig,
    backbone: Backbone,
    slots: tuple[SlotSpec, ...],
    spec: ObservationSpec,
    observed: Observed,
    ranker: CloudRanker | None,
    progress: StageProgress,
) -> Editing:
    """Every stage after the backbone's and the ranker's."""
    a, train, validation = config.adapter, observed.train, observed.validation.tensors
    module, _ = edited_part(backbone, slots)
    adapter = build_adapter(backbone, slots, spec, a, ranker)
    calibrate_encoder(adapter.encoder, observed)
    curves = {
        "adapter": train_adapter(
            adapter,
            module,
            together(train, *observed.hardened),
            together(validation, *observed.held_hardened),
            a,
            config.seed,
            progress("training the adapter"),
        )
    }
    bank = PrototypeBank(slots, config.prototypes.count, len(slots) * a.latent)
    stage = (module, train, validation, config.prototypes, config.seed)
    curves["prototypes"] = train_prototypes(bank, adapter, *stage, progress("fitting prototypes"))
    rule = train_device_rule(bank, *stage, progress("fitting the device's rule"))
    if config.prototypes.joint_steps:
        rule, curves["joint refinement"] = refine_jointly(
            adapter,
            bank,
            rule,
            *stage,
            progress("refining all together"),
            hardened=observed.hardened,
            held_hardened=observed.held_hardened,
        )
    bank.round_to_half()
    if adapter.familiarity is not None:
        adapter.familiarity.fit(train.vectors)
        if a.exposure:
            shown = [
                (spoilt.vectors, held.vectors)
                for spoilt, held in zip(observed.hardened, observed.held_hardened, strict=True)
                if not pays(adapter, module, held)
            ]
            if shown:
                curves["gate"] = expose(
                    adapter.familiarity,
                    train.vectors,
                    validation.vectors,
                    shown,
                    config.seed,
                    progress("teaching the gate"),
                )
        adapter.familiarity.limit(validation.vectors, a.familiarity)
    return Editing(adapter, bank, rule, curves)


def check_windows(config: AdapterConfig, data: Dataset) -> None:
    """Raises ConfigError where a device's window is shorter than the adapter asks for."""
    (device,) = data.devices("validation", 1, DEVICE_SEED)
    length = len(device.window[0])
    if length < config.min_window:
        raise ConfigError(
            f"adapter.min_window is {config.min_window}, but device {device.name} has a window of "
            f"{length}: lower min_window, or give longer windows in the data's settings"
        )


def check_gate(backbone: Backbone, config: AdapterConfig) -> None:
    """Raises ConfigError where familiarity is wanted of windows that have no statistics."""
    if config.familiarity < 1 and backbone.task == "ranking":
        raise ConfigError(
            "adapter.familiarity and adapter.exposure judge pooled statistics, and this backbone "
            "ranks: its devices send items. Leave them out; strength and hardening serve both"
        )


def train(
    config: RunConfig, data: Dataset, folder: Path | None, progress: StageProgress
) -> Trained:
    """Run every stage. `folder`: where a user's backbone file is looked for."""
    torch.manual_seed(config.seed)
    settings = data.backbone_settings()
    backbone = build_backbone(config, settings, folder)
    check_backbone(backbone, settings)
    check_windows(config.adapter, data)
    check_ranker(backbone, config)
    check_gate(backbone, config.adapter)
    load_weights(backbone, config, folder)
    slots = build_slots(backbone, config)
    spec = build_observation(backbone, data, config)
    curves = {}
    ranker = None
    if config.adapter.encoder_steps and isinstance(spec, ItemsSpec):
        seed = DEVICE_SEED + config.seed
        ranker, curves["cloud ranker"] = teach_ranker(
            data,
            spec,
            data.devices("adapter", config.adapter.devices, seed),
            data.devices("validation", config.adapter.validation_devices, seed),
            config.adapter.encoder_steps,
            config.seed,
            progress("teaching the cloud's ranker"),
        )
        if config.backbone.item_table == "ranker":
            give_items(backbone, ranker)
    curves["backbone"] = train_backbone(
        backbone, data, config.backbone, config.seed, progress("training the static backbone")
    )
    observed = observe_devices(config, data, backbone, slots, spec, progress)
    editing = train_editing(config, backbone, slots, spec, observed, ranker, progress)
    return Trained(
        config,
        backbone,
        slots,
        spec,
        editing.adapter,
        editing.bank,
        editing.rule,
        {**curves, **editing.curves},
        data.fingerprint(),
        data.summary(),
    )
