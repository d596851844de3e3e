"""A larger backbone for everybody: what more capacity is worth without any edit."""

from dataclasses import replace

from persona.baselines.base import Setting, rivals
from persona.baselines.other_backbone import OtherBackbone
from persona.training.config import ConfigError


@rivals.register("static-larger")
class StaticLarger(OtherBackbone):
    """The backbone with the settings of `evaluation.larger`, trained with the backbone's budget."""

    def applies(self, setting: Setting) -> bool:
        return bool(setting.config.evaluation.larger) and setting.config.backbone.steps > 0

    def fit(self, setting: Setting) -> None:
        config, backbone = setting.config, setting.config.backbone
        larger = replace(backbone, settings={**backbone.settings, **config.evaluation.larger})
        try:
            self.train(setting, setting.data, replace(config, backbone=larger))
        except TypeError as error:
            raise ConfigError(
                f"evaluation.larger: settings of backbone {backbone.name!r}: {error}"
            ) from None
