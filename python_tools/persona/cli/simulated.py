"""Unseen devices for commands that play a phone: their data come from the bundle's own data set."""

from pathlib import Path

import numpy as np
import torch

from persona.bundles import Bundle
from persona.data import DataError
from persona.data import Device as User
from persona.device.device import Device
from persona.evaluation.metrics import score
from persona.evaluation.protocol import TEST_SEED
from persona.formats import schema
from persona.training.config import RunConfig
from persona.training.pipeline import open_dataset


def unseen_users(bundle: Bundle, data: Path | None, count: int, seed: int) -> list[User]:
    """`count` devices of the test split, as the bundle's configuration makes them.

    Raises DataError where the data are not those that the bundle's model was trained on.
    """
    try:
        made_by = bundle.manifest.made_by.get("config")
        config = schema.decode(RunConfig, made_by, "made_by.config")
    except schema.SchemaError as error:
        raise DataError(
            f"the bundle does not say which data set to play a device from ({error}); "
            "export it with this version"
        ) from None
    found = open_dataset(config, data)
    trained_on = bundle.manifest.made_by.get("data_fingerprint")
    if trained_on not in (None, found.fingerprint()):
        raise DataError(
            f"the bundle's model was trained on data with fingerprint {str(trained_on)[:12]}, "
            f"these have {found.fingerprint()[:12]}; pass the data that it was trained on"
        )
    return found.devices("test", count, TEST_SEED + seed)


def query_score(phone: Device, user: User) -> float:
    """The device's score on its queries, predicted one by one with what is active now."""
    outputs = [
        phone.predict([column[i : i + 1] for column in user.queries])
        for i in range(len(user.targets))
    ]
    stacked = torch.from_numpy(np.concatenate(outputs))
    targets = torch.from_numpy(user.targets)
    return float(score(phone.bundle.manifest.task, stacked, targets))
