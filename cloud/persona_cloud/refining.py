"""What refining prototypes reads of the cloud's database: one latent a device, and nothing else."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from persona_cloud.database import open_database
from persona_cloud.tables import Device, IssuedEdit

_PAGE = 10_000


@dataclass(frozen=True)
class StoredLatents:
    """latents [D, width], one for each device, the device that asked longest ago first.

    devices: their ids, in that order. edits: how many edits those devices and others were given.
    """

    latents: NDArray[np.float32]
    devices: tuple[str, ...]
    edits: int


def stored_latents(url: str, bundle: str, width: int, most: int) -> StoredLatents:
    """The latents of edits made for a bundle, by its digest; of each device the newest.

    However often a device asks, it counts once; one that was shut out does not count. Where there
    are more than `most` devices, those that asked last are taken. Raises StoreError.
    """
    of_bundle = IssuedEdit.bundle == bundle
    newest = (
        select(IssuedEdit.device, func.max(IssuedEdit.sequence).label("sequence"))
        .where(of_bundle)
        .group_by(IssuedEdit.device)
        .subquery()
    )
    query = (
        select(IssuedEdit.device, IssuedEdit.latent)
        .join(
            newest,
            (newest.c.device == IssuedEdit.device) & (newest.c.sequence == IssuedEdit.sequence),
        )
        .join(Device, Device.id == IssuedEdit.device)
        .where(of_bundle, Device.revoked_at.is_(None))
        .order_by(IssuedEdit.id.desc())
        .limit(most)
        .execution_options(yield_per=_PAGE)
    )
    devices: list[str] = []
    latents = bytearray()
    engine = open_database(url)
    try:
        with engine.connect() as connection:
            edits = connection.scalar(select(func.count()).where(of_bundle)) or 0
            for device, latent in connection.execute(query):
                devices.append(device)
                latents += latent
    finally:
        engine.dispose()
    found = np.frombuffer(bytes(latents), "<f4").reshape(-1, width)[::-1].astype(np.float32)
    return StoredLatents(found, tuple(reversed(devices)), edits)
