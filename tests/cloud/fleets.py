"""Fleets of devices in a database, as a dashboard would find them: none, a few, many."""

import random
from datetime import UTC, datetime, timedelta

import numpy as np

from persona.bundles import Bundle
from persona_cloud.store import Store
from persona_cloud.tables import (
    Device,
    IssuedEdit,
    Outcome,
    RolloutEvent,
    StoredMeasurement,
    Version,
)

TARGETS = {
    "executorch-xnnpack": 4.2,
    "executorch-vulkan": 2.9,
    "executorch-coreml": 1.7,
    "coreml": 1.1,
}
HOSTS = (("Linux", "aarch64"), ("iOS 26.1", "iPhone17,2"), ("Android 16", "Pixel 9 Pro XL"))


def digest(number: int) -> str:
    """A bundle's digest that no bundle has."""
    return f"{number:064x}"[::-1]


def fill(store: Store, line: str, bundle: Bundle, devices: int, edits: int, days: int) -> None:
    """A fleet that has been there for so many days; the same one each time."""
    chance, now = random.Random(0), datetime.now(UTC)
    numbers = np.random.default_rng(0)
    platforms = ("android", "ios", "other")
    centres = numbers.normal(size=(12, 16)) * 2.5

    def moment() -> datetime:
        ago = min(chance.random(), chance.random()) * days
        return now - timedelta(days=ago)

    made = [
        Device(f"{chance.getrandbits(128):032x}", chance.choice(platforms), moment())
        for _ in range(devices)
    ]
    with store.writing() as session:
        session.add_all(made)
    sequences = dict.fromkeys((device.id for device in made), 0)
    issued = []
    for _ in range(edits):
        device, prototype = chance.choice(made).id, min(int(chance.expovariate(0.4)), 11)
        sequences[device] += 1
        latent = centres[prototype] + numbers.normal(size=16)
        at = moment()
        issued.append(
            IssuedEdit(
                device,
                sequences[device],
                bundle.manifest.model,
                bundle.digest,
                prototype,
                at,
                at + timedelta(days=7),
                latent.astype("<f4").tobytes(),
            )
        )
    with store.writing() as session:
        session.add_all(issued)
        session.add_all(measured(chance, made, bundle, moment, edits // 12))
    with store.writing() as session:
        versions = min(12, devices // 20)
        for number in range(versions):
            at = now - timedelta(days=days * (versions - number) / versions)
            row = Version(digest(number), line, bundle.manifest.model, "/", "/", at, None)
            row.retired_at, row.withdrawn = at + timedelta(days=2), number % 4 == 1
            session.add(row)
            session.flush()
            for what, percent in (
                ("published", 0.0),
                ("rollout started", 5.0),
                ("promoted", 100.0),
            ):
                session.add(RolloutEvent(line, at, None, what, digest(number), percent))
        codes = ("probe.mismatch", "bundle.golden_mismatch", "probe.no_effect")
        for number in range(versions):
            for device in chance.sample(made, devices // 4):
                failed = chance.random() < (0.12 if number % 4 == 1 else 0.01)
                code = chance.choice(codes) if failed else None
                session.add(Outcome(device.id, digest(number), code, moment()))


def measured(chance, made, bundle, moment, count):
    """Reports of latencies on a few kinds of device."""
    for _ in range(count):
        target = chance.choice(list(TARGETS))
        system, machine = chance.choice(HOSTS)
        base = TARGETS[target] * 1e3 * chance.lognormvariate(0, 0.15)
        edited = base * chance.uniform(0.99, 1.08)
        latency = {"iterations": 1000, "warmup": 50, "mean_us": base}
        document = {
            "host": {"system": system, "machine": machine},
            "base": {**latency, "p50_us": base, "p90_us": base * 1.2, "p99_us": base * 1.6},
            "edited": {**latency, "p50_us": edited, "p90_us": edited * 1.2, "p99_us": edited * 2},
            "ratio": edited / base,
        }
        yield StoredMeasurement(
            device=chance.choice(made).id,
            received_at=moment(),
            model=bundle.manifest.model,
            bundle=bundle.digest,
            target=target,
            precision="fp32" if "xnnpack" in target else "fp16",
            document=document,
        )
