"""The API, one file a resource."""

from persona_cloud.api import (
    bundle_files,
    description,
    devices,
    edits,
    health,
    keys,
    measurements,
    models,
    outcomes,
    rollout,
)

blueprints = (
    devices.blueprint,
    models.blueprint,
    rollout.blueprint,
    bundle_files.blueprint,
    edits.blueprint,
    outcomes.blueprint,
    keys.blueprint,
    measurements.blueprint,
    health.blueprint,
    description.blueprint,
)
