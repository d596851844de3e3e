"""The data that documents take as given: small stand-ins for the reader's own."""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from persona.data.drifting_interests import generate
from persona.data.shifts import ImageShift, shift_images

PHONES = 64


def write_photos(folder: Path) -> None:
    """`photos/`: handwritten digits, 28 a phone and no digit twice; each phone is tilted its way.

    Phones have habits: a digit is likelier to be on a phone that likes it.
    """
    rng = np.random.default_rng(7)
    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    shift = ImageShift(rotation=60.0, contrast=(1.0, 1.0), noise=0.0, habits=0.3)
    left = rng.permutation(len(images))
    for phone, look in enumerate(shift.looks(rng, PHONES)):
        liking = shift.class_mix(rng, 10)[digits.target[left]]
        wanted = np.argsort(rng.exponential(size=len(left)) / (liking + 1e-3))[:28]
        picked, left = left[wanted], np.delete(left, wanted)
        tilted = shift_images(images[picked], np.repeat(look[None], len(picked), axis=0), rng)
        for image, index in zip(tilted.clip(0, 1), picked, strict=True):
            place = folder / "photos" / f"phone-{phone:02d}" / str(digits.target[index])
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image[0] * 255).astype(np.uint8)).save(place / f"{index:04d}.png")


def write_ratings(folder: Path) -> None:
    """`ratings.csv`: who rated what when, from users whose interests drift."""
    log = generate(400, 300, 12, 40, 2.5, 0.005, 1.0, seed=7)
    with (folder / "ratings.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "timestamp"])
        for user, item, time in zip(log.users, log.items, log.times, strict=True):
            writer.writerow([log.user_names[user], log.item_names[item - 1], int(time)])


GIVEN: Mapping[str, Callable[[Path], None]] = {
    "photos": write_photos,
    "ratings.csv": write_ratings,
}
"""What a document may name in `<!-- given: NAME -->` -> what writes it into a folder."""
