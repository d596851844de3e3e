"""Drafts of edits and the list of cases that they become.

A verdict is written here by hand, from docs/edit-format.md; nothing asks the package under test.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import wire
from .expectations import (
    DENSE,
    Expectation,
)

NOW = "2026-06-01T12:00:00Z"
ISSUED = "2026-06-01T11:00:00Z"
EXPIRES = "2026-06-08T11:00:00Z"

Values = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Draft:
    """An edit before it is written: metadata and tensors, right unless changed."""

    expectation: Expectation
    metadata: dict[str, Any]
    tensors: Values

    def bytes(self) -> bytes:
        """The file as most writers write it."""
        return wire.container(self.tensors, self.metadata)

    def with_metadata(self, **changes: Any) -> "Draft":
        """With other metadata; None takes a key away."""
        metadata = {k: v for k, v in {**self.metadata, **changes}.items() if v is not None}
        return replace(self, metadata=metadata)

    def with_tensors(self, changes: Mapping[str, NDArray[Any] | None]) -> "Draft":
        """With other tensors; None takes one away."""
        tensors = {k: v for k, v in {**self.tensors, **changes}.items() if v is not None}
        return replace(self, tensors=tensors)

    def change(self) -> Values:
        """Prototype + edit in binary32, low-rank factors stacked."""
        chosen = self.metadata["prototype"]
        shapes = self.expectation.shapes
        prototype: Values = {name: np.zeros(shape, "<f4") for name, shape in shapes.items()}
        if chosen != "none":
            prototype = dict(self.expectation.prototype(int(chosen)))
        result: Values = {}
        for name in shapes:
            edit = self.tensors[name].astype("<f4")
            suffix = name.rpartition(".")[2]
            if suffix == "a":
                result[name] = np.vstack([prototype[name], edit])
            elif suffix == "b":
                result[name] = np.hstack([prototype[name], edit])
            else:
                result[name] = prototype[name] + edit
        return result

    def effective(self) -> Values:
        """Base + (prototype + edit) in binary32; low-rank factors as they are."""
        base = self.expectation.base()
        return {
            name: values if name.rpartition(".")[2] in "ab" else base[name] + values
            for name, values in self.change().items()
        }

    def changes_nothing(self) -> bool:
        """Whether the program computes what the base does."""
        suffixes = {name: name.rpartition(".")[2] for name in self.expectation.shapes}
        change = self.change()
        if any(change[name].any() for name, s in suffixes.items() if s not in ("a", "b")):
            return False
        for slot in self.expectation.slots:
            if slot.kind == "low-rank":
                a, b, r = change[f"{slot.name}.a"], change[f"{slot.name}.b"], slot.rank
                for half in (slice(0, r), slice(r, 2 * r)):
                    if a[half].any() and b[:, half].any():
                        return False
        return True


def draft(
    expectation: Expectation = DENSE,
    label: str = "",
    prototype: str = "none",
    dtypes: Callable[[int], str] = lambda _: "<f2",
) -> Draft:
    """A good edit for a device. dtypes: of the n-th tensor."""
    tensors: Values = {}
    limits = {name: x for slot in expectation.slots for name, x in slot.limits().items()}
    for n, (name, shape) in enumerate(expectation.shapes.items()):
        values = wire.numbers(f"edit {expectation.name} {label} {name}", shape, 0.9 * limits[name])
        tensors[name] = values.astype(dtypes(n))
    tensors["probe.expected"] = wire.numbers(
        f"probe {expectation.name} {label}", expectation.probe_shape, 4.0
    )
    metadata = {
        "format": "persona.edit/1",
        "model": expectation.model,
        "bundle": expectation.bundle,
        "device": expectation.device,
        "sequence": str(expectation.sequence + 1),
        "prototype": prototype,
        "issued_at": ISSUED,
        "expires_at": EXPIRES,
    }
    return Draft(expectation, metadata, tensors)


class Edits:
    """The cases so far, and the files that they read."""

    def __init__(self) -> None:
        self.cases: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.expectations: dict[str, Expectation] = {}
        self._stored: dict[bytes, str] = {}

    def _store(self, path: str, data: bytes) -> str:
        path = self._stored.setdefault(data, path)
        self.files[path] = data
        return path

    def add(
        self,
        name: str,
        about: str,
        data: bytes,
        verdict: str,
        *,
        expectation: Expectation = DENSE,
        now: str = NOW,
        key_id: str = wire.CLOUD.id,
        signature: str | None = None,
        effect: Draft | None = None,
    ) -> None:
        """Add a case. signature: base64 text; None signs `data` well. effect: for a good edit."""
        assert name not in {case["name"] for case in self.cases}, name
        self.expectations[expectation.name] = expectation
        signed = wire.text(wire.CLOUD.sign(data)) if signature is None else signature
        case = {
            "name": name,
            "about": about,
            "edit": self._store(f"edits/{name}.safetensors", data),
            "key_id": key_id,
            "signature": signed,
            "expectation": expectation.name,
            "now": now,
            "verdict": verdict,
        }
        if effect is not None:
            tensors = {f"change.{k}": v for k, v in effect.change().items()}
            tensors |= {f"effective.{k}": v for k, v in effect.effective().items()}
            tensors["probe.expected"] = effect.tensors["probe.expected"]
            file = wire.container(tensors, {"format": "expected"})
            case["expected"] = self._store(f"expected/{name}.safetensors", file)
            case["changes_nothing"] = effect.changes_nothing()
            case["sequence"] = effect.metadata["sequence"]
            case["prototype"] = effect.metadata["prototype"]
        self.cases.append(case)

    def good(
        self, name: str, about: str, edit: Draft, data: bytes | None = None, **more: Any
    ) -> None:
        """Add an edit that every reader takes, with what it makes of the slots."""
        more.setdefault("expectation", edit.expectation)
        self.add(name, about, edit.bytes() if data is None else data, "ok", effect=edit, **more)

    def bad(self, name: str, about: str, edit: Draft | bytes, verdict: str, **more: Any) -> None:
        """Add an edit that every reader refuses with the code `verdict`."""
        if isinstance(edit, Draft):
            more.setdefault("expectation", edit.expectation)
            edit = edit.bytes()
        self.add(name, about, edit, verdict, **more)


def odd(text: str) -> str:
    """Spaces up to an odd length."""
    return text + " " * (1 + len(text) % 2)


def tampered(old: str, new: str | bytes, count: int = 1) -> bytes:
    """The dense edit with `old` in its header replaced."""
    edit = draft()
    text = wire.compact(wire.header_of(edit.tensors, edit.metadata))
    assert old in text, old
    replacement = new.encode() if isinstance(new, str) else new
    changed = text.encode().replace(old.encode(), replacement, count)
    return wire.frame(changed, wire.body(edit.tensors))


def changed(edit: Draft, tensor: str, dtype: str, value: float) -> Draft:
    """The edit with the last value of a tensor replaced."""
    values = edit.tensors[tensor].astype(dtype)
    values.reshape(-1)[-1] = value
    return edit.with_tensors({tensor: values})
