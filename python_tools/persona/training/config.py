"""Configuration of a run: typed, read from TOML, saved with every artefact.

`persona train PRESET_OR_CONFIG` reads a preset from `persona/presets/` or a user's file.
"""

import tomllib
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from persona.formats import schema
from persona.formats.manifest import NAME


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file and the field."""


def _at_least(config: object, least: float, *names: str) -> None:
    for name in names:
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be {least:g} or more, got {getattr(config, name)}")


def _positive(config: object, *names: str) -> None:
    _at_least(config, 1, *names)


def _above_zero(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            raise ValueError(f"{name} must be above 0, got {getattr(config, name)}")


def _share(config: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} must be 0 or more and below 1, got {getattr(config, name)}")


@dataclass(frozen=True)
class DataConfig:
    """name: a registered data set. settings: passed to it."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SlotConfig:
    """One editable slot; see `persona.method.slots.make_slot`."""

    name: str
    kind: Literal["dense", "low-rank", "affine"] = "dense"
    rank: int = 4
    bound: float = 0.5
    bias_bound: float = 3.0


@dataclass(frozen=True)
class BackboneConfig:
    """name: a registered backbone. settings: beside what the data dictate.

    file: a Python file of yours that registers it, relative to the configuration.
    weights: a safetensors file to begin from, relative likewise; with steps = 0 it stays as it is.
    item_table: of a backbone that ranks. "own": learned with the rest. "ranker": that of the
    cloud's ranker, which adapter.encoder_steps teaches first, as it is; both are equally wide.
    steps, batch, learning_rate, weight_decay: AdamW with one cosine cycle; the checkpoint with the
    least loss on held-out devices, looked at `checks` times, is kept.
    slots: none named means the backbone's own choice.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    file: str | None = None
    weights: str | None = None
    item_table: Literal["own", "ranker"] = "own"
    steps: int = 2000
    batch: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    checks: int = 10
    slots: tuple[SlotConfig, ...] = ()

    def __post_init__(self) -> None:
        _positive(self, "batch", "checks")
        _at_least(self, 0, "steps", "weight_decay")
        _above_zero(self, "learning_rate")


@dataclass(frozen=True)
class AdapterConfig:
    """devices, validation_devices: how many to train on and to choose the checkpoint with.

    batch: devices a step. output_std: of the generators' first weights.
    cross_layer, prior_seed, strength: parts of the method that can be switched off.
    hardening: streams, by name, that a share of further training devices go through, so that
    the adapter learns when to hold back. familiarity: quantile of validation devices beyond which
    a window is strange and gets no edit; 1 switches that off. exposure: a classifier learns
    to know windows of those streams from which edits do not pay, and they get none either.
    encoder_steps: of teaching a ranker, which then encodes item histories, before all else; 0 is
    the papers' way: the encoder learns from the edits alone.
    min_window, max_window: samples or items that a device may observe.
    """

    devices: int = 2000
    validation_devices: int = 200
    latent: int = 32
    hidden: int = 128
    dropout: float = 0.1
    output_std: float = 0.01
    steps: int = 1000
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    checks: int = 10
    cross_layer: bool = True
    prior_seed: bool = True
    strength: bool = False
    hardening: tuple[str, ...] = ()
    hardening_share: float = 0.25
    familiarity: float = 1.0
    exposure: bool = False
    encoder_steps: int = 0
    min_window: int = 3
    max_window: int = 1000

    def __post_init__(self) -> None:
        _positive(
            self,
            "devices",
            "validation_devices",
            "latent",
            "hidden",
            "steps",
            "checks",
            "min_window",
        )
        if self.batch < 2 or self.devices < 2:
            raise ValueError(
                "batch and devices must be 2 or more: codes are normalised over devices"
            )
        _above_zero(self, "learning_rate", "output_std", "familiarity")
        _at_least(self, 0, "weight_decay", "encoder_steps")
        _share(self, "dropout", "hardening_share")
        if self.familiarity > 1:
            raise ValueError(f"familiarity must be 1 or less, got {self.familiarity}")
        if self.exposure and (self.familiarity == 1 or not self.hardening):
            raise ValueError(
                "exposure shows a classifier the streams of hardening and limits it by "
                "familiarity: name streams in hardening, and set familiarity below 1"
            )
        if self.max_window < self.min_window:
            raise ValueError("max_window must be min_window or more")


@dataclass(frozen=True)
class PrototypeConfig:
    """count: group edits in the bank. steps, batch, learning_rate: of fitting them.

    rule_steps, rule_batch, rule_learning_rate, rule_weight_decay: of the rule by which a device
    chooses one itself.
    joint_steps, joint_batch, joint_learning_rate: of refining bank, rule and adapter together;
    0 steps switch it off.
    """

    count: int = 8
    steps: int = 200
    batch: int = 64
    learning_rate: float = 1e-2
    rule_steps: int = 600
    rule_batch: int = 256
    rule_learning_rate: float = 2e-3
    rule_weight_decay: float = 1e-1
    joint_steps: int = 0
    joint_batch: int = 64
    joint_learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        _positive(self, "count", "steps", "batch", "rule_steps", "rule_batch", "joint_batch")
        _at_least(self, 0, "joint_steps")
        _at_least(self, 0, "learning_rate", "rule_learning_rate", "joint_learning_rate")
        _at_least(self, 0, "rule_weight_decay")


@dataclass(frozen=True)
class Condition:
    """Other test devices for the same trained system: data settings in place of the run's own."""

    name: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class EvaluationConfig:
    """What `persona evaluate` does with a configuration.

    trainings: of backbone and adapter, seeds counting up from the run's. devices: unseen ones for
    each. vary: data settings of which each value gets its own trainings, such as folds.
    conditions: further test devices. streams: windows and samples gone wrong, by name.
    ablations: parts of the method to switch off, by name.
    larger: settings of a static backbone with more capacity, a rival.
    drift: a stream, by name, that the devices have gone through since training: two rivals, whose
    prototypes follow it and are fitted to it. Name it among the streams too, to see them there.
    """

    trainings: int = 5
    devices: int = 200
    vary: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    streams: tuple[str, ...] = ()
    ablations: tuple[str, ...] = ()
    larger: dict[str, Any] = field(default_factory=dict)
    drift: str | None = None

    def __post_init__(self) -> None:
        _positive(self, "trainings")
        if self.devices < 2:
            raise ValueError(f"devices must be 2 or more, got {self.devices}")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run, and how it is evaluated."""

    name: str
    data: DataConfig
    backbone: BackboneConfig
    adapter: AdapterConfig = AdapterConfig()
    prototypes: PrototypeConfig = PrototypeConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = 0

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"name must be letters, digits, '_', '.' and '-', as bundles carry it; "
                f"got {self.name!r}"
            )
        _at_least(self, 0, "seed")
        if self.prototypes.count > self.adapter.devices:
            raise ValueError(
                f"prototypes.count is {self.prototypes.count}, more than the "
                f"{self.adapter.devices} devices of adapter.devices: each group needs one"
            )

    def with_data(self, settings: dict[str, Any]) -> "RunConfig":
        """The same with other settings of the data set."""
        return replace(self, data=replace(self.data, settings=settings))


def preset_names() -> tuple[str, ...]:
    """Names of the presets that ship with the package."""
    files = resources.files("persona.presets").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def load_config(preset_or_path: str) -> tuple[RunConfig, Path | None]:
    """Read a preset by name or a TOML file by path; returns it with its folder, if it has one."""
    path = Path(preset_or_path)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ConfigError(f"no configuration at {path}")
        return _parse(path.read_bytes(), str(path)), path.parent
    if preset_or_path not in preset_names():
        raise ConfigError(
            f"no preset is called {preset_or_path!r}; there are {', '.join(preset_names())}; "
            "or give the path of a .toml file"
        )
    data = (resources.files("persona.presets") / f"{preset_or_path}.toml").read_bytes()
    return _parse(data, preset_or_path), None


def _parse(data: bytes, origin: str) -> RunConfig:
    try:
        values = tomllib.loads(data.decode("utf-8"))
    except ValueError as error:
        raise ConfigError(f"configuration {origin} is not TOML: {error}") from None
    try:
        return schema.decode(RunConfig, values, origin)
    except schema.SchemaError as error:
        raise ConfigError(f"configuration {error}") from None
