"""The API, one file a resource."""

from persona_cloud.api import (
    bundle_files,
    description,
    devices,
    edits,
    health,
    measurements,
    models,
)

blueprints = (
    devices.blueprint,
    models.blueprint,
    bundle_files.blueprint,
    edits.blueprint,
    measurements.blueprint,
    health.blueprint,
    description.blueprint,
)
