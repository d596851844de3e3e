"""Images from several domains, such as PACS: ROOT/DOMAIN/CLASS/*.png or *.jpg.

Trains on all domains but one and tests on that one (Li et al., "Deeper, Broader and Artier Domain
Generalization", 2017): a device is a simulated stream from one domain.
"""

from pathlib import Path
from typing import Any

import numpy as np

from persona.data.base import DataError, Split, datasets
from persona.data.image_folder import ImageScenario, find_images, read_images
from persona.data.image_streams import ImageStreams, Owner, StreamScenario, check_images
from persona.data.stable_splits import check_shares, seed_of


@datasets.register("image-domains")
class ImageDomains(ImageStreams):
    """Images in ROOT/DOMAIN/CLASS/*.png or *.jpg, such as PACS: tests on a domain never trained on.

    root: the folder that holds the domain folders. test_domain: the one to test on.
    size, channels: see `ImageScenario`. bad_images: the share of unreadable images to put up with.
    backbone_share, held_out_share, validation_share: of the images of each other domain; the rest
    are for the adapter. Further settings are those of `StreamScenario`. `faults` names the
    unreadable images, those in other places and other files.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        test_domain: str,
        size: int | None = None,
        channels: int = 3,
        bad_images: float = 0.001,
        backbone_share: float = 0.5,
        held_out_share: float = 0.1,
        validation_share: float = 0.1,
        split_seed: int = 0,
        **scenario: Any,
    ) -> None:
        if root is None or not root.is_dir():
            raise DataError(
                f"image-domains needs a root: a folder with images at DOMAIN/CLASS/, got {root}"
            )
        settings = StreamScenario(**scenario)
        shares = {
            "backbone": backbone_share,
            "held-out": held_out_share,
            "validation": validation_share,
        }
        check_shares(shares, "images")
        files = find_images(root)
        images = read_images(root, files.images, ImageScenario(size, channels), bad_images)
        self.left_out = files.left_out(len(images.faults))
        self.faults = (*images.faults, *files.faults())
        domains = images.device_names
        if test_domain not in domains or len(domains) < 2:
            raise DataError(
                f"test_domain must be one of two or more domains in {root}, got {test_domain!r}; "
                f"there are {', '.join(domains)}"
            )
        owners: dict[str, list[Owner]] = {s: [] for s in (*shares, "adapter", "test")}
        for index, domain in enumerate(domains):
            members = np.flatnonzero(images.devices == index)
            if domain == test_domain:
                owners["test"].append(Owner(domain, members))
                continue
            order = np.random.default_rng(seed_of("split", split_seed, domain)).permutation(members)
            cuts = (np.cumsum(list(shares.values())) * len(order)).round().astype(int)
            for split, part in zip((*shares, "adapter"), np.split(order, cuts), strict=True):
                owners[split].append(Owner(domain, part))
        check_images(owners, settings)
        self.label_names = images.label_names
        super().__init__(images.pixels, images.labels, len(self.label_names), owners, settings)

    def device_name(self, owner: str, split: Split, seed: int, stream: int) -> str:
        """Without "@": a domain is no person, and its devices are devices of their own."""
        return f"{owner}-{split}-{seed}-{stream:04d}"
