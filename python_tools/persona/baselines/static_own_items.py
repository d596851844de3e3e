"""A backbone with an item table of its own: what the table of the cloud's ranker is worth."""

from dataclasses import replace

from persona.baselines.base import Setting, rivals
from persona.baselines.other_backbone import OtherBackbone


@rivals.register("static-own-items")
class StaticOwnItems(OtherBackbone):
    """The backbone with its budget, where the one that is edited took over the ranker's table."""

    def applies(self, setting: Setting) -> bool:
        return setting.config.backbone.item_table == "ranker"

    def fit(self, setting: Setting) -> None:
        own = replace(setting.config.backbone, item_table="own")
        self.train(setting, setting.data, replace(setting.config, backbone=own))
