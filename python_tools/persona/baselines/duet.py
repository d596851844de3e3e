"""DUET: one linear generator a slot turns a code of the window into its weights.

    z_l = MLP_l(Enc(o)),   (W_l, b_l) = (W_l, b_l)_static + H_l z_l + c_l

(Lv et al. 2023, arXiv 2209.05227.) In the authors' released code (github.com/HelloZicky/DUET,
`module/common.py`) every H_l and c_l sits in a plain Python list, so that the optimiser never sees
them and they stay as they were drawn; one MLP serves all layers, where the paper has one for each;
and the checkpoint is chosen on the test file. "As released" keeps the first two; "repaired" trains
everything, with an MLP a slot. Both choose on validation devices.

What differs from the authors' in both: their generators make whole weights, and embeddings and
transformer are trained around them. Here the backbone is frozen, so the static weights are the
generators' offset, and the draw of H is as small as the adapter's: with theirs, of deviation near
1, a frozen backbone would be ruined from the start. The encoder is the adapter's, a GRU for items
as theirs, pooled statistics for other windows.
"""

from torch import Tensor, nn

from persona.baselines.base import Setting, rivals
from persona.baselines.generated_edits import EditGenerator, GeneratedEdits, encoder
from persona.method.adapter import SlotGenerator
from persona.method.slots import Edit


class DuetGenerator(EditGenerator):
    """Encoder, an MLP for each slot or one for all, and a linear generator a slot.

    as_released: the generators stay as drawn, and one MLP serves all slots.
    """

    def __init__(self, setting: Setting, *, as_released: bool) -> None:
        super().__init__()
        a = setting.config.adapter
        count = len(setting.slots)
        self.names = [slot.name for slot in setting.slots]
        self.encoder = encoder(setting)
        self.codes = nn.ModuleList(_mlp(a.latent) for _ in range(1 if as_released else count))
        self.generators = nn.ModuleList(
            SlotGenerator(slot, a.latent, a.output_std) for slot in setting.slots
        )
        self.generators.requires_grad_(not as_released)

    def forward(self, observations: Tensor) -> Edit:
        z0 = self.encoder(observations)
        codes = [code(z0) for code in self.codes]
        codes *= len(self.names) // len(codes)
        return {
            f"{name}.{suffix}": value
            for name, generate, z in zip(self.names, self.generators, codes, strict=True)
            for suffix, value in generate(z).items()
        }


def _mlp(latent: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(latent, latent), nn.Tanh(), nn.Linear(latent, latent))


@rivals.register("duet-as-released")
class DuetAsReleased(GeneratedEdits):
    """DUET with generators that never train and one MLP for all slots, as its code has it."""

    def generator(self, setting: Setting) -> EditGenerator:
        return DuetGenerator(setting, as_released=True)


@rivals.register("duet-repaired")
class DuetRepaired(GeneratedEdits):
    """DUET as its paper describes it: generators trained, an MLP for each slot."""

    def generator(self, setting: Setting) -> EditGenerator:
        return DuetGenerator(setting, as_released=False)
