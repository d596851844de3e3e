"""Well-formed containers that are not the edit that this device may apply."""

from dataclasses import replace

import numpy as np

from . import wire
from .drafts import EXPIRES, ISSUED, Draft, Edits, changed, draft, tampered
from .expectations import (
    AFFINE,
    DENSE,
    FRESH,
    LAST,
    LOW_RANK,
    MANY,
    MIXED,
    NESTED,
    NO_PROTOTYPES,
    SQUARE,
    UNICODE,
)


def metadata(edits: Edits) -> None:
    edit = draft()
    unknown, invalid = "edit.unknown_format", "edit.metadata_invalid"
    edits.bad("format-no-metadata", "no metadata", replace(edit, metadata={}), unknown)
    edits.bad(
        "format-no-metadata-key",
        "no __metadata__ at all",
        wire.container(edit.tensors, None),
        unknown,
    )
    edits.bad("format-nothing", "a header without tensors or metadata", wire.frame("{}"), unknown)
    edits.bad("format-missing", "metadata without format", edit.with_metadata(format=None), unknown)
    for name, value in (
        ("version-2", "persona.edit/2"),
        ("version-10", "persona.edit/10"),
        ("space", "persona.edit/1 "),
        ("capital", "Persona.edit/1"),
        ("empty", ""),
        ("other-document", "persona.observation/1"),
        ("torch", "pt"),
    ):
        edits.bad(f"format-{name}", f"format {value!r}", edit.with_metadata(format=value), unknown)
    for key in list(edit.metadata)[1:]:
        edits.bad(
            f"metadata-without-{key.replace('_', '-')}",
            f"metadata without {key}",
            edit.with_metadata(**{key: None}),
            invalid,
        )
    edits.bad(
        "metadata-more", "metadata that the format lacks", edit.with_metadata(note=""), invalid
    )

    for key, cases in {
        "model": {"empty": ""},
        "device": {"empty": ""},
        "bundle": {
            "empty": "",
            "upper-case": edit.metadata["bundle"].upper(),
            "short": edit.metadata["bundle"][:-1],
            "long": edit.metadata["bundle"] + "0",
            "newline": edit.metadata["bundle"] + "\n",
            "not-hex": "g" * 64,
            "prefix": "sha256:" + edit.metadata["bundle"][7:],
        },
        "sequence": {
            "zero": "0",
            "leading-zero": "06",
            "plus": "+6",
            "minus": "-6",
            "fraction": "6.0",
            "exponent": "6e0",
            "empty": "",
            "space-before": " 6",
            "newline-after": "6\n",
            "arabic-digits": "\u0666",
            "full-width-digits": "\uff16",
            "underscore": "1_0",
            "hex": "0x6",
            "2-53": str(2**53),
            "2-64-and-6": str(2**64 + 6),
            "16-nines": "9" * 16,
            "many-digits": "6" * 400,
        },
        "prototype": {
            "empty": "",
            "capital": "None",
            "null": "null",
            "minus": "-1",
            "leading-zero": "00",
            "fraction": "1.0",
            "2-53": str(2**53),
            "space-after": "1 ",
        },
        "issued_at": {
            "empty": "",
            "lower-case": "2026-06-01t11:00:00z",
            "offset": "2026-06-01T11:00:00+00:00",
            "no-zone": "2026-06-01T11:00:00",
            "fraction": "2026-06-01T11:00:00.0Z",
            "space": "2026-06-01 11:00:00Z",
            "date-alone": "2026-06-01",
            "no-seconds": "2026-06-01T11:00Z",
            "one-digit": "2026-6-1T11:00:00Z",
            "month-13": "2026-13-01T11:00:00Z",
            "month-0": "2026-00-01T11:00:00Z",
            "day-0": "2026-06-00T11:00:00Z",
            "june-31": "2026-05-00T11:00:00Z".replace("05-00", "06-31"),
            "february-29": "2026-02-29T11:00:00Z",
            "february-29-1900": "1900-02-29T11:00:00Z",
            "hour-24": "2026-06-01T24:00:00Z",
            "minute-60": "2026-06-01T11:60:00Z",
            "leap-second": "2016-12-31T23:59:60Z",
            "year-0": "0000-06-01T11:00:00Z",
            "five-digit-year": "12026-06-01T11:00:00Z",
            "sign": "+026-06-01T11:00:00Z",
            "full-width-digits": "\uff12026-06-01T11:00:00Z",
            "newline": "2026-06-01T11:00:00Z\n",
            "epoch": "1780311600",
        },
        "expires_at": {
            "empty": "",
            "hour-24": "2026-06-08T24:00:00Z",
            "equal-to-issued": ISSUED,
            "before-issued": "2026-06-01T10:59:59Z",
            "april-31": "2027-04-31T11:00:00Z",
        },
    }.items():
        for name, value in cases.items():
            edits.bad(
                f"{key.replace('_', '-')}-{name}",
                f"{key} is {value[:40]!r}",
                edit.with_metadata(**{key: value}),
                invalid,
            )


def addressee_and_time(edits: Edits) -> None:
    edit = draft()
    other = "edit.other_base"
    edits.bad("other-model", "for another model", edit.with_metadata(model="other-net"), other)
    edits.bad("other-model-case", "names are exact", edit.with_metadata(model="Sensor-net"), other)
    for name, bundle in (("another", wire.digest("another")), ("zeros", "0" * 64)):
        edits.bad(
            f"other-bundle-{name}", "for another bundle", edit.with_metadata(bundle=bundle), other
        )
    digest = edit.metadata["bundle"]
    near = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    edits.bad("other-bundle-last-digit", "all digits count", edit.with_metadata(bundle=near), other)

    other = "edit.other_device"
    for name, device in (
        ("another", "phone-2"),
        ("longer", "phone-10"),
        ("case", "Phone-1"),
        ("space", "phone-1 "),
        ("nul", "phone-1\0"),
        ("full-width", "phone-\uff11"),
    ):
        edits.bad(f"other-device-{name}", f"{device!r}", edit.with_metadata(device=device), other)
    apart = UNICODE.device.replace("\u00e4", "a\u0308")
    edits.bad(
        "other-device-decomposed",
        "names are equal code point by code point, not as they look",
        draft(UNICODE).with_metadata(device=apart),
        other,
    )

    replayed = "edit.replayed"
    for sequence in ("5", "4", "1"):
        edits.bad(
            f"replayed-{sequence}",
            "a device that had sequence 5",
            edit.with_metadata(sequence=sequence),
            replayed,
        )
    for sequence in ("6", "7", "10", str(2**53 - 1)):
        edits.good(
            f"good-sequence-{sequence}",
            "any greater sequence is newer; numbers are compared, not text",
            edit.with_metadata(sequence=sequence),
        )
    edits.good("good-first-sequence", "sequence 1 on a fresh device", draft(FRESH))
    edits.good("good-last-sequence", "the largest sequence", draft(LAST))
    edits.bad(
        "replayed-2-53-less-2",
        "exact above what binary32 or a rounded binary64 tells apart",
        draft(LAST).with_metadata(sequence=str(2**53 - 2)),
        replayed,
    )

    for name, now, verdict in (
        ("long-after", "2031-01-01T00:00:00Z", "edit.expired"),
        ("one-second-after", "2026-06-08T11:00:01Z", "edit.expired"),
        ("at-expiry", EXPIRES, "edit.expired"),
        ("one-second-before-expiry", "2026-06-08T10:59:59Z", "ok"),
        ("when-issued", ISSUED, "ok"),
        ("at-skew", "2026-06-01T10:55:00Z", "ok"),
        ("one-second-beyond-skew", "2026-06-01T10:54:59Z", "edit.from_future"),
        ("long-before", "2000-01-01T00:00:00Z", "edit.from_future"),
    ):
        about = f"issued at {ISSUED}, expires at {EXPIRES}, it is {now}"
        if verdict == "ok":
            edits.good(f"good-time-{name}", about, edit, now=now)
        else:
            edits.bad(f"time-{name}", about, edit, verdict, now=now)
    leap = edit.with_metadata(issued_at="2028-02-29T23:59:59Z", expires_at="2028-03-01T00:00:00Z")
    edits.good("good-time-leap-day", "a leap day is a day", leap, now="2028-02-29T23:59:59Z")
    edits.good(
        "good-time-leap-day-skew",
        "five minutes across a leap day",
        edit.with_metadata(issued_at="2028-03-01T00:00:00Z", expires_at="2028-03-01T00:00:01Z"),
        now="2028-02-29T23:55:00Z",
    )
    edits.good(
        "good-time-widest",
        "from year 1 to year 9999",
        edit.with_metadata(issued_at="0001-01-01T00:00:00Z", expires_at="9999-12-31T23:59:59Z"),
    )
    edits.good(
        "good-time-2038",
        "seconds since 1970 beyond 32 bits",
        edit.with_metadata(issued_at="2038-01-19T03:14:07Z", expires_at="2038-01-19T03:14:09Z"),
        now="2038-01-19T03:14:08Z",
    )


def slots(edits: Edits) -> None:
    edit = draft(MIXED)
    unknown_prototype = "edit.unknown_prototype"
    for prototype in ("3", "4", str(2**32), str(2**53 - 1)):
        edits.bad(
            f"unknown-prototype-{prototype}",
            "the bundle has prototypes 0 to 2",
            edit.with_metadata(prototype=prototype),
            unknown_prototype,
        )
    edits.bad(
        "unknown-prototype-of-none",
        "the bundle has no prototypes",
        draft(NO_PROTOTYPES).with_metadata(prototype="0"),
        unknown_prototype,
    )

    def without(*names: str) -> Draft:
        return edit.with_tensors(dict.fromkeys(names))

    missing, unknown, kind = "slot.missing", "slot.unknown", "slot.kind"
    edits.bad(
        "missing-dense", "no tensor of head.0", without("head.0.weight", "head.0.bias"), missing
    )
    edits.bad(
        "missing-low-rank",
        "no tensor of head.2",
        without("head.2.a", "head.2.b", "head.2.bias"),
        missing,
    )
    edits.bad("missing-affine", "no tensor of norm", without("norm.scale", "norm.shift"), missing)
    edits.bad("missing-all", "no tensor but the probe", without(*MIXED.shapes), missing)
    edits.bad("missing-everything", "no tensor at all", replace(edit, tensors={}), missing)
    nested = draft(NESTED)
    edits.bad(
        "missing-nested",
        "head.weight.weight belongs to slot head.weight, and head.weight to slot head",
        nested.with_tensors({"head.weight.weight": None}),
        missing,
    )
    edits.bad(
        "missing-nested-outer",
        "and the other way round",
        nested.with_tensors({"head.weight": None, "head.bias": None}),
        missing,
    )

    one = np.zeros(1, "<f4")
    for name, tensor in (
        ("other-slot", "head.1.weight"),
        ("other-suffix", "head.0.gain"),
        ("slot-alone", "head.0"),
        ("suffix-alone", "weight"),
        ("prefix", "model.head.0.weight"),
        ("case", "head.0.Weight"),
        ("space", "head.0.weight "),
        ("empty", ""),
        ("probe", "probe"),
        ("probe-other", "probe.output"),
        ("decomposed", "head.0.weight\u0301"),
        ("long", "x" * 1000),
    ):
        edits.bad(
            f"unknown-{name}",
            f"a tensor {tensor[:40]!r}",
            edit.with_tensors({tensor: one}),
            unknown,
        )
    header = wire.header_of(edit.tensors, edit.metadata)
    end = len(wire.body(edit.tensors))
    header |= {"\u00e9": wire.entry("F32", [1], end, end + 4)}
    header |= {"e\u0301": wire.entry("F32", [1], end + 4, end + 8)}
    edits.bad(
        "unknown-canonically-equal",
        "two names that look the same are two names, and none stands twice",
        wire.frame(wire.compact(header), wire.body(edit.tensors) + bytes(8)),
        unknown,
        expectation=MIXED,
    )
    edits.bad(
        "unknown-with-zero-size",
        "a tensor of nothing is a tensor",
        edit.with_tensors({"head.1.weight": np.zeros((0, 4), "<f4")}),
        unknown,
    )

    rows = np.zeros
    for name, about, changes in (
        ("no-bias", "head.0 without its bias", {"head.0.bias": None}),
        ("no-weight", "head.0 without its weight", {"head.0.weight": None}),
        ("no-a", "head.2 without a", {"head.2.a": None}),
        ("no-b", "head.2 without b", {"head.2.b": None}),
        ("no-shift", "norm without its shift", {"norm.shift": None}),
        ("low-rank-for-dense", "head.0 with factors",
         {"head.0.weight": None, "head.0.a": rows((2, 4), "<f2"), "head.0.b": rows((3, 2), "<f2")}),
        ("dense-for-low-rank", "head.2 with a whole weight",
         {"head.2.a": None, "head.2.b": None, "head.2.weight": rows((5, 3), "<f2")}),
        ("dense-for-affine", "norm with weight and bias",
         {"norm.scale": None, "norm.shift": None, "norm.weight": rows(4, "<f2"),
          "norm.bias": rows(4, "<f2")}),
        ("affine-for-dense", "head.0 with scale and shift",
         {"head.0.weight": None, "head.0.bias": None, "head.0.scale": rows(3, "<f2"),
          "head.0.shift": rows(3, "<f2")}),
        ("both", "head.2 with factors and a whole weight", {"head.2.weight": rows((5, 3), "<f2")}),
    ):  # fmt: skip
        edits.bad(f"kind-{name}", about, edit.with_tensors(changes), kind)
    edits.bad(
        "kind-bias-too-many",
        "a bias for a slot that has none",
        draft().with_tensors({"head.bias": np.zeros(2, "<f2")}),
        kind,
    )

    shape = "slot.shape"
    for name, tensor, shapes in (
        ("transposed", "head.0.weight", (4, 3)),
        ("flat", "head.0.weight", (12,)),
        ("leading-one", "head.0.weight", (1, 3, 4)),
        ("one-row-more", "head.0.weight", (4, 4)),
        ("empty", "head.0.weight", (0, 4)),
        ("scalar", "head.0.weight", ()),
        ("bias-column", "head.0.bias", (3, 1)),
        ("bias-one", "head.0.bias", (1,)),
        ("a-transposed", "head.2.a", (3, 2)),
        ("a-rank", "head.2.a", (3, 3)),
        ("a-twice-the-rank", "head.2.a", (4, 3)),
        ("b-transposed", "head.2.b", (2, 5)),
        ("b-rank", "head.2.b", (5, 1)),
        ("scale-longer", "norm.scale", (5,)),
        ("shift-row", "norm.shift", (1, 4)),
    ):
        edits.bad(
            f"shape-{name}",
            f"{tensor} with shape {list(shapes)}",
            edit.with_tensors({tensor: np.zeros(shapes, "<f2")}),
            shape,
        )

    for name, tensor, values in (
        ("f64", "head.0.weight", np.zeros((3, 4), "<f8")),
        ("i32", "head.0.weight", np.zeros((3, 4), "<i4")),
        ("i64", "head.0.bias", np.zeros(3, "<i8")),
        ("u8", "norm.scale", np.zeros(4, "u1")),
        ("f64-factor", "head.2.b", np.zeros((5, 2), "<f8")),
    ):
        edits.bad(
            f"dtype-{name}",
            f"{tensor} as {wire.dtype_name(values)}",
            edit.with_tensors({tensor: values}),
            "slot.dtype",
        )
    for name in ("BF16", "I16", "U16"):
        edits.bad(
            f"dtype-{name.lower()}",
            f"head.weight as {name}, as long as F16",
            tampered('"F16"', f'"{name}"'),
            "slot.dtype",
        )

    edits.bad(
        "probe-missing", "no probe", edit.with_tensors({"probe.expected": None}), "probe.missing"
    )
    for name, values in (
        ("f16", np.zeros((1, 5), "<f2")),
        ("f64", np.zeros((1, 5), "<f8")),
        ("longer", np.zeros((1, 6), "<f4")),
        ("flat", np.zeros(5, "<f4")),
        ("transposed", np.zeros((5, 1), "<f4")),
        ("empty", np.zeros((0, 5), "<f4")),
        ("scalar", np.zeros((), "<f4")),
    ):
        edits.bad(
            f"probe-{name}",
            f"a probe of {wire.dtype_name(values)} with shape {list(values.shape)}",
            edit.with_tensors({"probe.expected": values}),
            "probe.shape",
        )


def values(edits: Edits) -> None:
    edit, thin, affine = draft(), draft(LOW_RANK), draft(AFFINE)
    inf, nan = float("inf"), float("nan")
    for name, value in (("nan", nan), ("inf", inf), ("minus-inf", -inf)):
        for dtype in ("f2", "f4"):
            edits.bad(
                f"not-finite-{name}-{'f16' if dtype == 'f2' else 'f32'}",
                f"{name} in a weight",
                changed(edit, "head.weight", f"<{dtype}", value),
                "value.not_finite",
            )
        edits.bad(
            f"not-finite-{name}-probe",
            f"{name} in the probe",
            changed(edit, "probe.expected", "<f4", value),
            "value.not_finite",
        )
    for name, word in (("signalling", 0x7F800001), ("negative", 0xFFC00000), ("full", 0x7FFFFFFF)):
        values = edit.tensors["head.weight"].astype("<f4")
        values.reshape(-1).view("<u4")[0] = word
        edits.bad(
            f"not-finite-nan-{name}",
            f"NaN with the bits {word:08x}",
            edit.with_tensors({"head.weight": values}),
            "value.not_finite",
        )
    limit = np.float32(0.1)
    half = np.float16(0.1)
    half = half if float(half) > float(limit) else np.nextafter(half, np.float16(1))
    one = np.float32(1)
    above_a, above_b, above_scale, above_shift = (
        np.nextafter(np.float32(bound), np.float32(9)) for bound in (1, 0.5 / 3, 0.3, 0.7)
    )
    square, many, on_prototype = draft(SQUARE), draft(MANY), draft(DENSE, "", "1")
    for name, about, source, tensor, dtype, value in (
        ("next", "next above the bound", edit, "head.weight", "<f4", np.nextafter(limit, one)),
        ("next-negative", "and below", edit, "head.weight", "<f4", -np.nextafter(limit, one)),
        ("next-f16", "next F16 above the bound", edit, "head.weight", "<f2", half),
        ("next-negative-f16", "and below its negative", edit, "head.weight", "<f2", -half),
        ("f16-largest", "the largest F16 value", edit, "head.weight", "<f2", 65504),
        ("f32-largest", "the largest F32 value", edit, "head.weight", "<f4", 3.4028235e38),
        ("a", "a factor a just above 1", thin, "wide.a", "<f4", above_a),
        ("b", "a factor b just above bound / rank", thin, "wide.b", "<f4", above_b),
        ("b-at-bound", "a factor b at the undivided bound", thin, "wide.b", "<f4", 0.5),
        ("scale", "a scale just above its bound", affine, "norm.scale", "<f4", above_scale),
        ("shift", "a shift just above its bound", affine, "norm.shift", "<f4", above_shift),
        ("scale-as-shift", "what only a shift may be", affine, "norm.scale", "<f4", 0.6),
        ("bias", "a bias above its bound", square, "mix.bias", "<f4", 2.0000002),
        ("weight-as-bias", "what only a bias may be", square, "mix.weight", "<f4", 1.0),
        ("last-slot", "the last of forty slots", many, "block.39.norm.shift", "<f4", 1.5),
        ("on-prototype", "the edit alone is bounded", on_prototype, "head.weight", "<f4", 0.11),
    ):
        beyond = changed(source, tensor, dtype, value)
        edits.bad(f"beyond-{name}", about, beyond, "value.beyond_bound")
