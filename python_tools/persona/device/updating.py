"""A device that gets the version which the cloud wants it to have, or keeps its own.

Versions lie side by side on a shelf, each in a folder named by its digest, whole or not at all.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from persona.bundles import Bundle, open_bundle, verify_signed
from persona.device.client import CloudClient, CloudError, OfflineError
from persona.device.device import Device, Personalisation
from persona.durable import PlaceError, staged_folder
from persona.formats.errors import Code, FormatError
from persona.formats.manifest import MANIFEST, SIGNATURE
from persona.signing import PublicKeys


def personalise_updated(
    device: Device, cloud: CloudClient, window: Sequence[NDArray[Any]], shelf: Path
) -> tuple[Device, Personalisation]:
    """Ask for an edit; where the cloud wants another version, get that and ask again.

    Returns the device as it goes on: on the version that it has where the other could not be had
    or does not work on this processor, which the cloud is told.
    """
    came = device.personalise(cloud, window)
    if came.wanted in (None, device.bundle.digest):
        return device, came
    try:
        bundle = fetch_version(cloud, came.wanted, shelf, device.keys.bundle_keys())
        updated = Device(bundle, device.store.folder, device.pinned)
    except (OfflineError, CloudError, PlaceError):
        return device, came
    except FormatError as error:
        if error.code == Code.BUNDLE_GOLDEN:
            with suppress(OfflineError, CloudError):
                cloud.report(device.store.state.token, came.wanted, str(error.code))
        return device, came
    return updated, updated.personalise(cloud, window)


def fetch_version(cloud: CloudClient, version: str, shelf: Path, trusted: PublicKeys) -> Bundle:
    """A version's bundle from the shelf, fetched and verified where it is not there yet.

    Raises OfflineError, CloudError, PlaceError, or FormatError with a `bundle.*` code.
    """
    folder = shelf / version
    if not folder.is_dir():
        with staged_folder(folder) as staging:
            _fetch(cloud, version, staging, trusted)
            open_bundle(staging, trusted)
    return open_bundle(folder, trusted)


def _fetch(cloud: CloudClient, version: str, staging: Path, trusted: PublicKeys) -> None:
    """Manifest and signature first: nothing else is asked for before they are verified."""
    manifest = cloud.file(version, MANIFEST)
    if hashlib.sha256(manifest).hexdigest() != version:
        raise FormatError(
            Code.BUNDLE_FILE_CHANGED, f"{MANIFEST} is not that of version {version[:12]}; ask again"
        )
    signature = cloud.file(version, SIGNATURE)
    files = verify_signed(manifest, signature, trusted)[0].files
    for name in files:
        path = staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cloud.file(version, name))
    (staging / MANIFEST).write_bytes(manifest)
    (staging / SIGNATURE).write_bytes(signature)
