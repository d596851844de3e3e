"""Two faults or more in one file: the rule that comes first gives the code."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import wire
from .drafts import Draft, Edits, changed, draft
from .expectations import MIXED, tight


def order(edits: Edits) -> None:
    """Two faults or more in one file: the rule that comes first gives the code."""
    edit = draft()
    good = edit.bytes()
    exact = tight(len(good))
    text = wire.compact(wire.header_of(edit.tensors, edit.metadata))
    data = wire.body(edit.tensors)

    def two(name: str, content: Draft | bytes, verdict: str, **more: Any) -> None:
        edits.bad(
            f"order-{name}", f"two faults: {name.replace('-', ' ')}", content, verdict, **more
        )

    stranger = wire.STRANGER.id
    two("size-before-key", good + b"\0", "edit.too_large", expectation=exact, key_id=stranger)
    two("size-before-signature", good + b"\0", "edit.too_large", expectation=exact, signature="")
    two("key-before-signature", good, "edit.unknown_key", key_id=stranger, signature="!")
    two("key-before-container", b"", "edit.unknown_key", key_id=stranger)
    two("signature-before-container", b"1234", "edit.bad_signature", signature="")
    two(
        "signature-before-expired",
        good,
        "edit.bad_signature",
        signature="",
        now="2031-01-01T00:00:00Z",
    )
    two("long-before-truncated", (65537).to_bytes(8, "little"), "container.header_too_long")
    two("truncated-before-json", wire.frame("x" * 10, length=11), "container.truncated")
    two(
        "json-before-repeated",
        wire.frame(text[:-1] + ',"head.weight":{},}', data),
        "container.header_invalid",
    )
    two(
        "repeated-before-entry",
        wire.frame(text.replace('"dtype":"F16"', '"dtype":"F16","dtype":"F12"'), data),
        "container.duplicate_key",
    )
    two(
        "repeated-before-metadata",
        wire.frame(text[:-1] + ',"__metadata__":[]}', data),
        "container.duplicate_key",
    )

    def laid_out(head: list[int], probe: list[int], payload: bytes, **extra: Any) -> bytes:
        header = {
            "__metadata__": extra.pop("metadata", edit.metadata),
            "head.weight": {"dtype": "F16", "shape": [2, 3], "data_offsets": head},
            "probe.expected": {"dtype": "F32", "shape": [1, 2], "data_offsets": probe},
        }
        return wire.frame(wire.compact({**header, **extra}), payload)

    two(
        "entry-before-mismatch",
        laid_out([0, 11], [12, 20], data, x={"dtype": "F32"}),
        "container.header_invalid",
    )
    two("mismatch-before-bounds", laid_out([0, 11], [12, 20], b""), "container.size_mismatch")
    two(
        "mismatch-of-any-before-bounds",
        laid_out([0, 12], [12, 22], b""),
        "container.size_mismatch",
    )
    two("bounds-before-overlap", laid_out([0, 12], [8, 16], data[:15]), "container.out_of_bounds")
    two("bounds-before-hole", laid_out([4, 16], [16, 24], data), "container.out_of_bounds")
    gap = {"x": wire.entry("U8", [2], 22, 24)}
    two("overlap-then-hole", laid_out([0, 12], [10, 18], bytes(24), **gap), "container.overlap")
    two(
        "hole-then-overlap",
        laid_out([2, 14], [16, 24], bytes(24), x=wire.entry("U8", [2], 13, 15)),
        "container.hole",
    )
    two("overlap-before-trailing", laid_out([0, 12], [4, 12], data), "container.overlap")
    two("hole-before-trailing", laid_out([1, 13], [13, 21], bytes(25)), "container.hole")
    two(
        "trailing-before-format",
        laid_out([0, 12], [12, 20], data + b"\0", metadata={"format": "persona.edit/2"}),
        "container.trailing_bytes",
    )

    anything = {"format": "persona.edit/2", "sequence": "x", "more": ""}
    two("format-before-metadata", edit.with_metadata(**anything), "edit.unknown_format")
    two(
        "metadata-before-base",
        edit.with_metadata(expires_at="never", model="other-net"),
        "edit.metadata_invalid",
    )
    wrong = {"model": "other-net", "device": "phone-2", "sequence": "5", "prototype": "9"}
    late = "2031-01-01T00:00:00Z"
    early = "2020-01-01T00:00:00Z"
    two("base-before-device", edit.with_metadata(**wrong), "edit.other_base", now=late)
    del wrong["model"]
    two("device-before-replayed", edit.with_metadata(**wrong), "edit.other_device", now=late)
    del wrong["device"]
    two("replayed-before-expired", edit.with_metadata(**wrong), "edit.replayed", now=late)
    two("replayed-before-future", edit.with_metadata(**wrong), "edit.replayed", now=early)
    del wrong["sequence"]
    two("expired-before-prototype", edit.with_metadata(**wrong), "edit.expired", now=late)
    two("future-before-prototype", edit.with_metadata(**wrong), "edit.from_future", now=early)
    two(
        "prototype-before-slots",
        edit.with_metadata(**wrong).with_tensors({"head.weight": None}),
        "edit.unknown_prototype",
    )

    mixed = draft(MIXED)
    faults: list[tuple[str, str, dict[str, NDArray[Any] | None]]] = [
        ("missing", "slot.missing", {"norm.scale": None, "norm.shift": None}),
        ("unknown", "slot.unknown", {"stranger.weight": np.zeros(1, "<f2")}),
        ("kind", "slot.kind", {"head.2.bias": None}),
        ("shape", "slot.shape", {"head.2.b": np.zeros((2, 5), "<f2")}),
        ("dtype", "slot.dtype", {"head.0.weight": np.full((3, 4), np.nan, "<f8")}),
        ("probe", "probe.missing", {"probe.expected": None}),
        ("finite", "value.not_finite", {"head.2.a": np.full((2, 3), np.inf, "<f4")}),
        ("bound", "value.beyond_bound", {"head.0.bias": np.full(3, 100.0, "<f4")}),
    ]
    for first, (name, verdict, _) in enumerate(faults[:-1]):
        later = [changes for _, _, changes in faults[first:]]
        all_changes = {key: value for changes in reversed(later) for key, value in changes.items()}
        two(f"{name}-before-all-after-it", mixed.with_tensors(all_changes), verdict)
        _, _, changes = faults[first + 1]
        both = {**changes, **faults[first][2]}
        two(f"{name}-before-{faults[first + 1][0]}", mixed.with_tensors(both), verdict)
    two(
        "probe-shape-before-finite",
        mixed.with_tensors(
            {
                "probe.expected": np.full((5, 1), np.nan, "<f4"),
                "head.0.bias": np.full(3, np.nan, "<f4"),
            }
        ),
        "probe.shape",
    )
    two(
        "finite-probe-before-bound",
        changed(changed(mixed, "probe.expected", "<f4", np.nan), "head.0.bias", "<f4", 100.0),
        "value.not_finite",
    )
