"""A backbone that breaks a promise is refused before training, with a sentence that says which."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from persona.backbones import Backbone, backbones
from persona.backbones.base import InputSpec
from persona.training.backbone_checks import check_backbone
from persona.training.backbone_files import find_backbone
from persona.training.config import BackboneConfig, ConfigError

DATA: dict[str, Any] = {"channels": 1, "size": 8, "classes": 4}


class Whole(Backbone):
    """Keeps every promise."""

    task = "classification"

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.trunk = nn.Flatten()
        self.head = nn.Linear(64, classes)

    def input_specs(self) -> tuple[InputSpec, ...]:
        return (InputSpec("image", "float32", (1, 1, 8, 8)),)

    def features(self, *inputs):
        return inputs[0].flatten(1), self(*inputs).softmax(1)


def broken(**parts: Any) -> Backbone:
    made = type("Broken", (Whole,), {n: p for n, p in parts.items() if callable(p) or n == "task"})
    backbone = made()
    for name in ("trunk", "head"):
        if name in parts and not callable(parts[name]):
            del backbone._modules[name]
            object.__setattr__(backbone, name, parts[name])
    return backbone


def test_a_whole_backbone_passes_and_stays_as_it_was():
    backbone = Whole().train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    check_backbone(backbone, DATA)
    assert backbone.training
    assert all(torch.equal(before[n], v) for n, v in backbone.state_dict().items())


@pytest.mark.parametrize("name", sorted(set(backbones) - {"sasrec", "gru4rec", "din"}))
def test_every_classifier_of_ours_passes(name):
    settings = {"channels": 1, "size": 8, "classes": 4}
    if name == "sensor-net":
        settings = {"channels": 6, "length": 64, "classes": 4}
    if name == "mobilenet-v3-small":
        settings["size"] = 32
    check_backbone(backbones[name](**settings), settings)


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "din"])
def test_every_ranker_of_ours_passes(name):
    settings = {"items": 150, "length": 5}
    check_backbone(backbones[name](**settings), settings)


def no_features(_self, *_inputs):
    raise AttributeError("'Broken' object has no attribute 'blocks'")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"task": None}, "task must be one of classification, ranking, got None"),
        ({"task": "regression"}, "got 'regression'"),
        ({"task": "ranking"}, "does ranking, the data are for classification"),
        ({"trunk": 3}, r"trunk must be an nn\.Module"),
        ({"head": None}, r"head must be an nn\.Module"),
        ({"features": no_features}, "cannot run on inputs.*no attribute 'blocks'"),
        (
            {"features": lambda s, x: (x.flatten(1), s(x))},
            "no shares that sum to 1",
        ),
        ({"features": lambda s, x: (x, s(x).softmax(1))}, r"features \[n, F\] first"),
        ({"input_specs": lambda _s: (InputSpec("image", "float32", (1, 3, 8, 8)),)}, "cannot run"),
    ],
)
def test_each_broken_promise_has_its_sentence(parts, said):
    with pytest.raises(ConfigError, match=said):
        check_backbone(broken(**parts), DATA)


def test_logits_for_other_classes_than_the_data_have():
    with pytest.raises(ConfigError, match=r"must be \[1, 4\] for one sample, got \[1, 7\]"):
        check_backbone(Whole(7), DATA)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def broken(:\n    pass\n", "SyntaxError in line 1"),
        ("import nothing_of_that_name\n", "ModuleNotFoundError"),
        ("raise RuntimeError('no weights')\n", "RuntimeError: no weights"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named(tmp_path: Path, text: str, said: str):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigError, match=f"mine.py cannot be imported: {said}"):
        find_backbone(BackboneConfig("mine", file="mine.py"), tmp_path)
