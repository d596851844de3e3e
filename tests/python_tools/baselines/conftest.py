"""Small settings in which rivals are prepared in seconds: images, next items, motion sensors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from persona.backbones import Backbone
from persona.baselines import Rival, rivals
from persona.baselines.base import Setting
from persona.data import Dataset
from persona.data.sensor_streams import SensorScenario, SensorStreams, Stretch
from persona.method.personalise import Personaliser
from persona.method.prototypes import PrototypeBank
from persona.training.config import (
    AdapterConfig,
    BackboneConfig,
    DataConfig,
    EvaluationConfig,
    PrototypeConfig,
    RunConfig,
)
from persona.training.devices import Fleet
from persona.training.pipeline import (
    build_adapter,
    build_backbone,
    build_observation,
    build_slots,
    observe_devices,
    open_dataset,
)
from persona.training.stages import train_backbone

ADAPTER = AdapterConfig(
    devices=24, validation_devices=10, latent=6, hidden=12, steps=6, batch=8, checks=2
)


def silent(_done: int, _all: int) -> None:
    pass


def made(config: RunConfig, given: Dataset | None = None) -> Setting:
    """A setting whose backbone is trained a little and whose adapter is not trained at all."""
    torch.manual_seed(3)
    data = given or open_dataset(config, None)
    backbone: Backbone = build_backbone(config, data.backbone_settings(), None)
    train_backbone(backbone, data, config.backbone, config.seed, silent)
    slots = build_slots(backbone, config)
    spec = build_observation(backbone, data, config)
    adapter = build_adapter(backbone, slots, spec, config.adapter)
    bank = PrototypeBank(slots, config.prototypes.count, len(slots) * config.adapter.latent)
    return Setting(
        config=config,
        data=data,
        backbone=backbone,
        slots=slots,
        observation=spec,
        personaliser=Personaliser(adapter, bank).eval().requires_grad_(False),
        observed=observe_devices(config, data, backbone, slots, spec, lambda _stage: silent),
    )


@pytest.fixture(scope="module")
def images() -> Setting:
    """Digits, and a convolutional network with batch normalisation."""
    return made(
        RunConfig(
            "images",
            DataConfig("digits", {"window": 12, "queries": 6}),
            BackboneConfig("conv-net", {"width": 2, "hidden": 8}, steps=60, batch=32, checks=2),
            ADAPTER,
            PrototypeConfig(count=2),
            EvaluationConfig(larger={"width": 3}),
            seed=4,
        )
    )


@pytest.fixture(scope="module")
def rankings() -> Setting:
    """Next items that a small SASRec ranks."""
    return made(
        RunConfig(
            "rankings",
            DataConfig(
                "drifting-interests",
                {"users": 200, "items": 150, "session": 2, "length": 3, "candidates": 20},
            ),
            BackboneConfig(
                "sasrec", {"dim": 8, "layers": 1}, steps=60, batch=64, learning_rate=1e-2, checks=2
            ),
            replace(ADAPTER, min_window=1, max_window=30),
            PrototypeConfig(count=2),
            EvaluationConfig(larger={"dim": 12}),
            seed=4,
        )
    )


@pytest.fixture(scope="module")
def motions() -> Setting:
    """Two activities of eight people with the phone in any placement, and a sensor network."""
    rng = np.random.default_rng(6)
    time = np.arange(200, dtype=np.float32) / 10
    stretches = []
    for person in range(8):
        for label in (0, 0, 1, 1):
            signal = 0.1 * rng.standard_normal((len(time), 6)).astype(np.float32)
            signal[:, 2] -= 1
            signal[:, label] += np.sin((1 + person / 8) * time)
            stretches.append(Stretch(f"p{person}", label, signal))
    scenario = SensorScenario(length=16, step=8, window=12, queries=6, folds=4)
    return made(
        RunConfig(
            "motions",
            DataConfig("sensor-csv", {}),
            BackboneConfig("sensor-net", {"width": 2, "hidden": 8}, steps=60, batch=32, checks=2),
            ADAPTER,
            PrototypeConfig(count=2),
            EvaluationConfig(),
            seed=4,
        ),
        SensorStreams(stretches, ("along", "across"), scenario, {}, ()),
    )


def unseen(setting: Setting) -> Fleet:
    return setting.fleet(setting.data.devices("test", 9, 77))


def prepared(name: str, setting: Setting) -> Rival:
    rival = rivals[name]()
    rival.fit(setting)
    return rival
