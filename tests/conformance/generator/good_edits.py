"""Edits that every reader takes: all kinds of slot and value, and every legal way to write them."""

import json
from dataclasses import replace

import numpy as np

from . import wire
from .drafts import Edits, Values, draft, odd
from .expectations import (
    AFFINE,
    DENSE,
    LOW_RANK,
    MANY,
    MIXED,
    NESTED,
    NO_PROTOTYPES,
    SCALAR_PROBE,
    SQUARE,
    UNICODE,
)


def good_values(edits: Edits) -> None:
    half, single = (lambda _: "<f2"), (lambda _: "<f4")
    mixed = lambda n: "<f2" if n % 2 else "<f4"  # noqa: E731
    for expectation in (DENSE, MIXED, LOW_RANK, AFFINE, SQUARE, NO_PROTOTYPES, MANY, NESTED):
        choices = ["none", *(str(k) for k in range(expectation.prototypes))]
        for number, choice in enumerate(choices):
            kinds = {"f16": half, "f32": single, "mixed-dtypes": mixed}
            if expectation in (MANY, NESTED):
                kinds = {"f16": half}
            for kind, dtypes in kinds.items():
                if kind == "mixed-dtypes" and number != len(choices) - 1:
                    continue
                name = f"good-{expectation.name}-{kind}-prototype-{choice}"
                about = f"slots of {expectation.name}, {kind}, relative to prototype {choice}"
                edits.good(name, about, draft(expectation, name, choice, dtypes))

    zero = draft()
    zero = zero.with_tensors({"head.weight": np.zeros((2, 3), "<f2")})
    edits.good("good-zero", "an edit of zeros changes nothing, and says so", zero)
    edits.good(
        "good-zero-on-prototype",
        "an edit of zeros relative to a prototype changes the base",
        zero.with_metadata(prototype="1"),
    )
    negative = zero.with_tensors({"head.weight": np.full((2, 3), -0.0, "<f4")})
    edits.good("good-negative-zero", "negative zeros change nothing", negative)
    edits.good(
        "good-negative-zero-f16",
        "negative zeros in F16 change nothing",
        zero.with_tensors({"head.weight": np.full((2, 3), -0.0, "<f2")}),
    )
    opposite = draft(AFFINE, "opposite", "0")
    opposite = opposite.with_tensors({k: -v for k, v in AFFINE.prototype(0).items()})
    edits.good("good-opposite", "prototype and edit cancel: nothing changes", opposite)
    thin = draft(LOW_RANK, "thin")
    edits.good(
        "good-low-rank-b-zero",
        "factor a is not zero, but b is: the product changes nothing",
        thin.with_tensors({"wide.b": np.zeros((4, 3), "<f2")}),
    )
    edits.good(
        "good-low-rank-a-zero",
        "factor b is not zero, but a is: the product changes nothing",
        thin.with_tensors({"wide.a": np.zeros((3, 6), "<f2")}),
    )
    tiny = np.array([[2.0**-24, -(2.0**-24), 2.0**-15], [2.0**-14, 2.0**-20, -(2.0**-17)]])
    edits.good(
        "good-subnormal-f16",
        "subnormal F16 values are values, not zeros",
        draft().with_tensors({"head.weight": tiny.astype("<f2")}),
    )
    tiny = np.array([[2.0**-149, -(2.0**-149), 2.0**-126], [2.0**-130, 2.0**-140, 0.0]])
    edits.good(
        "good-subnormal-f32",
        "subnormal F32 values are values, not zeros",
        draft().with_tensors({"head.weight": tiny.astype("<f4")}),
    )
    limit = np.float32(0.1)
    at = np.array([[limit, -limit, 0], [0, 0, limit]], "<f4")
    edits.good(
        "good-at-bound",
        "the bound is the binary32 number nearest to 0.1, which is above 0.1, and allowed",
        draft().with_tensors({"head.weight": at}),
    )
    below = np.nextafter(np.float16(0.1), np.float16(0))
    edits.good(
        "good-at-bound-f16",
        "the largest F16 value within the bound",
        draft().with_tensors({"head.weight": np.full((2, 3), below, "<f2")}),
    )
    edits.good(
        "good-low-rank-at-bounds",
        "factor a at 1 and factor b at the binary32 number nearest to 0.5 / 3",
        draft(LOW_RANK).with_tensors(
            {"wide.a": np.ones((3, 6), "<f2"), "wide.b": np.full((4, 3), np.float32(0.5 / 3))}
        ),
    )
    edits.good(
        "good-affine-at-bounds",
        "scale at its bound, shift at its own",
        draft(AFFINE).with_tensors(
            {
                "norm.scale": np.full(5, np.float32(-0.3), "<f4"),
                "norm.shift": np.full(5, np.float32(0.7), "<f4"),
            }
        ),
    )
    edits.good(
        "good-large-probe",
        "the probe has no bound",
        draft().with_tensors({"probe.expected": np.array([[3e38, -3e38]], "<f4")}),
    )
    edits.good("good-scalar-probe", "a probe without dimensions", draft(SCALAR_PROBE))


def good_containers(edits: Edits) -> None:
    edit = draft()
    header, data = wire.header_of(edit.tensors, edit.metadata), wire.body(edit.tensors)
    compact = wire.compact(header)

    def good(name: str, about: str, text: str | bytes, payload: bytes = data) -> None:
        edits.good(f"good-{name}", about, edit, wire.frame(text, payload))

    good("no-padding", "the header may end anywhere", compact + " " * (len(compact) % 2 + 1))
    good("odd-header", "a header length that is no multiple of eight", odd(compact))
    good("much-padding", "five hundred spaces after the header", compact + " " * 500)
    good("newline-padding", "other JSON white space after the header", compact + "\t\r\n \n")
    good("indented", "white space inside the header", json.dumps(header, indent=3))
    good("white-space", "tabs and carriage returns inside", json.dumps(header, indent="\t\r"))
    backwards = {k: header[k] for k in reversed(header)}
    good("metadata-last", "key order means nothing", wire.compact(backwards))
    fields = {
        k: v if k == "__metadata__" else {f: v[f] for f in reversed(v)} for k, v in header.items()
    }
    good("fields-backwards", "nor does the order of a tensor's fields", wire.compact(fields))
    escaped = compact.replace("head.weight", "\\u0068ead\\u002eweigh\\u0074")
    good("escaped-name", "a tensor's name in escapes", escaped)
    escaped = compact.replace("__metadata__", "\\u005F_metadata__")
    good("escaped-metadata-key", "the key __metadata__ in escapes", escaped)
    escaped = compact.replace("persona.edit/1", "persona.edit\\/1")
    good("escaped-solidus", "a solidus may be escaped", escaped)
    escaped = compact.replace('"dtype"', '"\\u0064type"', 1)
    good("escaped-field", "a field's name in escapes", escaped)
    name, probe = "head.weight", "probe.expected"
    swapped: Values = {probe: edit.tensors[probe], name: edit.tensors[name]}
    edits.good("good-probe-first", "tensors in another order", replace(edit, tensors=swapped))
    unordered = {"__metadata__": edit.metadata, probe: header[probe], name: header[name]}
    good("header-order", "the header need not follow the data", wire.compact(unordered))
    single = draft(LOW_RANK, "unaligned", dtypes=lambda n: "<f4" if n else "<f2")
    shifted: Values = {
        probe: single.tensors[probe],
        "wide.a": single.tensors["wide.a"],
        "wide.b": single.tensors["wide.b"],
    }
    text = wire.compact(wire.header_of(shifted, single.metadata))
    edits.good(
        "good-unaligned",
        "F32 data at an odd byte of the file",
        single,
        wire.frame(odd(text), wire.body(shifted)),
    )

    narrow = draft(UNICODE)
    edits.good("good-unicode-device", "a device name beyond ASCII, in UTF-8", narrow)
    text = json.dumps(wire.header_of(narrow.tensors, narrow.metadata), ensure_ascii=True)
    edits.good(
        "good-unicode-escaped",
        "the same with surrogate pairs in escapes",
        narrow,
        wire.frame(text, wire.body(narrow.tensors)),
    )

    wide = draft(MANY, "long header")
    text = wire.compact(wire.header_of(wide.tensors, wide.metadata))
    full = wire.frame(text + " " * (65536 - len(text)), wire.body(wide.tensors))
    edits.good("good-longest-header", "a header of 65536 bytes", wide, full)
