"""Whether a backbone keeps its promises, asked before anything is trained on it.

A user's own network is forty lines that nobody has read yet: each promise of `Backbone` that it
breaks gets a sentence that says which, and what was expected.
"""

from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn

from persona.backbones import Backbone
from persona.backbones.base import Task
from persona.training.config import ConfigError


def check_backbone(backbone: Backbone, data_settings: Mapping[str, Any]) -> None:
    """Run the backbone once on inputs of its own making. Raises ConfigError naming what is wrong.

    data_settings: what the data dictate; `classes` there means classification, `items` ranking.
    """
    name = type(backbone).__name__
    task = getattr(backbone, "task", None)
    if task not in get_args(Task):
        raise ConfigError(f"{name}.task must be one of {', '.join(get_args(Task))}, got {task!r}")
    wanted: Task = "ranking" if "items" in data_settings else "classification"
    if task != wanted:
        raise ConfigError(
            f"{name} does {task}, the data are for {wanted}: choose another backbone or data set"
        )
    for part in ("trunk", "head"):
        if not isinstance(getattr(backbone, part, None), nn.Module):
            raise ConfigError(
                f"{name}.{part} must be an nn.Module: forward is head(trunk(inputs)), "
                "and edits usually go into the head"
            )
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            _check_outputs(backbone, data_settings)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{name} cannot run on inputs of the shapes that its input_specs name: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        backbone.train(training)


def _check_outputs(backbone: Backbone, data_settings: Mapping[str, Any]) -> None:
    name = type(backbone).__name__
    inputs = backbone.example_inputs()
    output = backbone(*inputs)
    if backbone.task == "ranking":
        _expect(f"{name}(history, candidates)", output, (1, inputs[-1].shape[1]))
        table = backbone.item_embeddings()
        if table.dim() != 2 or len(table) != data_settings["items"] + 1:
            raise ConfigError(
                f"{name}.item_embeddings() must be [items + 1, dim] = "
                f"[{data_settings['items'] + 1}, …], got {list(table.shape)}"
            )
        return
    classes = data_settings.get("classes", output.shape[-1])
    _expect(f"{name}(…)", output, (1, classes))
    features, posterior = backbone.features(*inputs)
    if features.dim() != 2 or len(features) != 1:
        raise ConfigError(
            f"{name}.features must return features [n, F] first, got {list(features.shape)} "
            "for n = 1"
        )
    _expect(f"{name}.features(…)[1], the class posterior,", posterior, (1, classes))
    if bool((posterior < 0).any()) or not torch.allclose(posterior.sum(1), torch.ones(1)):
        raise ConfigError(
            f"{name}.features must return a class posterior as its second value, such as "
            "logits.softmax(1); these are no shares that sum to 1"
        )


def _expect(what: str, found: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(found.shape) != shape:
        raise ConfigError(f"{what} must be {list(shape)} for one sample, got {list(found.shape)}")
