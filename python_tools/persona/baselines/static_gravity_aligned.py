"""Windows of motion sensors turned upright before the backbone sees them, for everybody.

What gravity alone tells of a placement, without looking at any other sample of the device.
"""

from persona.baselines.base import Setting, rivals
from persona.baselines.other_backbone import OtherBackbone
from persona.data.base import Arrays
from persona.data.sensor_shifts import align_gravity
from persona.data.sensor_streams import SensorStreams


@rivals.register("static-gravity-aligned")
class StaticGravityAligned(OtherBackbone):
    """The backbone, trained with its budget on windows that `align_gravity` turned."""

    def applies(self, setting: Setting) -> bool:
        data = setting.data
        return (
            isinstance(data, SensorStreams)
            and data.shift.rotation > 0
            and not data.scenario.gravity_aligned
            and setting.config.backbone.steps > 0
        )

    def fit(self, setting: Setting) -> None:
        assert isinstance(setting.data, SensorStreams)
        self.train(setting, setting.data.gravity_aligned(), setting.config)

    def prepared(self, queries: Arrays) -> Arrays:
        return tuple(align_gravity(windows) for windows in queries)
