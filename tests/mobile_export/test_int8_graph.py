"""A convolutional network in 8 bits: every layer that XNNPACK can quantise is, and the others stay.

What the graph computes is held against PyTorch in fp32 on random inputs.
"""

import pytest
import torch
from torch import nn

from persona.backbones import backbones
from persona.method.slots import make_slot
from persona_export.int8_graph import in_int8
from persona_export.parity import difference
from persona_export.precision import TOLERANCE
from persona_export.targets import Source, targets


class Mixed(nn.Module):
    """Convolutions with batch norm and ReLU, one of them depthwise, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.last = nn.Sequential(nn.Flatten(), nn.Linear(128, 6))
        self.slot = nn.Linear(6, 4)

    def forward(self, *inputs):
        (x,) = inputs
        return self.slot(torch.relu(self.last(self.depthwise(self.stem(x)))))


class AlongTime(nn.Module):
    """The same with convolutions along time, strides, padding, dilation and groups."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv1d(6, 8, 5, stride=2, padding=2, bias=False), nn.BatchNorm1d(8), nn.ReLU()
        )
        self.second = nn.Conv1d(8, 8, 3, dilation=2, groups=2)

    def forward(self, *inputs):
        (x,) = inputs
        return self.second(self.first(x)).mean(-1)


CASES = {"2-D": (Mixed, (3, 8, 8), 2), "along time": (AlongTime, (6, 32), 2)}


@pytest.mark.parametrize("case", CASES)
def test_layers_are_in_8_bits_and_compute_what_they_did(case):
    kind, shape, expected = CASES[case]
    torch.manual_seed(0)
    module = kind().eval().requires_grad_(False)
    x = torch.randn(1, *shape)
    graph = in_int8(module, (x,), ({},), ["slot"])
    assert graph is not None
    narrow = [buffer for buffer in graph.buffers() if buffer.dtype == torch.int8]
    assert len(narrow) == expected
    for seed in range(5):
        x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
        wanted, found = module(x), graph(x)
        scale = max(1.0, float(wanted.abs().max()))
        assert 0 < float((wanted - found).abs().max()) / scale <= TOLERANCE["int8"]


def test_a_network_of_slots_alone_has_nothing_to_quantise():
    class Slots(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slot = nn.Linear(4, 4)

        def forward(self, *inputs):
            return self.slot(*inputs)

    assert in_int8(Slots().eval(), (torch.ones(1, 4),), ({},), ["slot"]) is None


def test_what_a_device_pools_of_colour_images_is_told_by_channel(tmp_path):
    torch.manual_seed(0)
    backbone = backbones["conv-net"](size=8, width=2).eval()
    source = Source(backbone, (make_slot(backbone, "head.2"),), pooled=True)
    target = targets["executorch-xnnpack"]()
    program = target.export(source, "int8", tmp_path)
    (image,) = backbone.example_inputs()
    image = 0.1 * image + torch.tensor([-1.0, 0.0, 1.0])[:, None, None]
    with torch.no_grad():
        expected, _ = backbone.features(image)
    found, _ = target.features(tmp_path, program)({"image": image.numpy()})
    assert difference(expected.numpy(), found) < 1e-2
    torch.testing.assert_close(
        torch.from_numpy(found[0, :3]), image.mean((0, 2, 3)), atol=1e-5, rtol=0
    )
