"""The methods of an ExecuTorch program whose slots are inputs: `forward`, `base`, `observe`."""

from collections.abc import Sequence

import torch

from persona.backbones import Backbone
from persona.formats.manifest import Feed as FeedEntry
from persona.formats.slots import SlotSpec
from persona_export.executorch_program import Method, input_shapes
from persona_export.feeding import BakedModel, DenseEffective, FedModel, Feed, Observe
from persona_export.targets.base import Source


def fed_method(
    source: Source, dense: type[DenseEffective] = DenseEffective
) -> tuple[Method, tuple[FeedEntry, ...]]:
    """`forward`: the backbone's inputs, then every slot tensor; and how they are fed.

    dense: how dense slots are computed.
    """
    fed = FedModel(source.backbone, source.slots, Feed.EFFECTIVE, dense=dense)
    return with_feeds(source.backbone, fed)


def with_feeds(backbone: Backbone, fed: FedModel) -> tuple[Method, tuple[FeedEntry, ...]]:
    """A method that takes the backbone's inputs and then what `fed` is fed with."""
    inputs = backbone.example_inputs()
    feeds = tuple(torch.zeros(shape) for shape in fed.feed_shapes)
    method = Method(fed, inputs + feeds, input_shapes(backbone, len(feeds)), len(inputs))
    return method, feed_entries(fed.feed_names, fed.feed_shapes, len(inputs))


def feed_entries(
    names: Sequence[str], shapes: Sequence[tuple[int, ...]], first: int
) -> tuple[FeedEntry, ...]:
    """Feeds by index, from `first` on."""
    return tuple(
        FeedEntry(name, first + index, None, "effective", shape)
        for index, (name, shape) in enumerate(zip(names, shapes, strict=True))
    )


def baked_method(backbone: Backbone, slots: tuple[SlotSpec, ...]) -> Method:
    """`base`: the same model with constant weights, to measure against."""
    inputs = backbone.example_inputs()
    return Method(BakedModel(backbone, slots), inputs, input_shapes(backbone), len(inputs))


def observe_method(backbone: Backbone, slots: tuple[SlotSpec, ...]) -> Method:
    """`observe`: what the observation pools."""
    inputs = backbone.example_inputs()
    return Method(Observe(backbone, slots), inputs, input_shapes(backbone), len(inputs))
