"""Containers that are not well formed: cut, hostile JSON and numbers, bad entries and layouts."""

import json
from typing import Any

from . import wire
from .drafts import Edits, draft, tampered


def boundaries(edits: Edits) -> None:
    data = draft().bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    for size in (0, 1, 7):
        edits.bad(
            f"truncated-{size}", "cut inside the header length", data[:size], "container.truncated"
        )
    for size, about in (
        (8, "right after the header length"),
        (9, "after the header's first byte"),
        (header // 2, "inside the header"),
        (header - 1, "a byte before the header's end"),
    ):
        edits.bad(f"truncated-{size}", f"cut {about}", data[:size], "container.truncated")
    for size, about in (
        (header, "right after the header"),
        (header + 1, "after the first byte of data"),
        (header + 12, "between two tensors"),
        (len(data) - 1, "a byte before the end"),
    ):
        edits.bad(f"cut-{size}", f"cut {about}", data[:size], "container.out_of_bounds")
    for name, length, verdict in (
        ("65537", 65537, "container.header_too_long"),
        ("2-31", 2**31, "container.header_too_long"),
        ("2-32", 2**32, "container.header_too_long"),
        ("2-32-and-8", 2**32 + 8, "container.header_too_long"),
        ("2-63", 2**63, "container.header_too_long"),
        ("2-64-less-1", 2**64 - 1, "container.header_too_long"),
        ("2-64-less-8", 2**64 - 8, "container.header_too_long"),
        ("whole-file", len(data), "container.truncated"),
        ("one-more-than-file", len(data) - 7, "container.truncated"),
        ("file", len(data) - 8, "container.header_invalid"),
        ("0", 0, "container.header_invalid"),
        ("1", 1, "container.header_invalid"),
        ("one-short", header - 8 - 8, "container.header_invalid"),
    ):
        edits.bad(
            f"header-length-{name}",
            f"the file says that its header has {length} bytes",
            length.to_bytes(8, "little") + data[8:],
            verdict,
        )
    edits.bad("header-length-big-endian", "its length in the other byte order",
        data[:8][::-1] + data[8:], "container.header_too_long")  # fmt: skip


def header_json(edits: Edits) -> None:
    edit = draft()
    text = wire.compact(wire.header_of(edit.tensors, edit.metadata))
    data = wire.body(edit.tensors)

    def bad(name: str, about: str, header: str | bytes, verdict: str = "header_invalid") -> None:
        edits.bad(name, about, wire.frame(header, data), f"container.{verdict}")

    bad(
        "json-byte-order-mark",
        "a byte order mark before the header",
        b"\xef\xbb\xbf" + text.encode(),
    )
    bad("json-space-first", "the header must begin with '{'", " " + text)
    bad("json-array", "an array in place of the object", "[" + text + "]")
    bad("json-string", "a string in place of the object", json.dumps(text))
    bad("json-null", "null in place of the object", "null")
    bad("json-spaces", "spaces alone", " " * 64)
    bad("json-two-objects", "a second object after the first", text + "{}")
    bad("json-word-after", "a word after the object", text + " x")
    bad("json-nul-padding", "padding with NUL", text + "\0\0\0\0")
    bad("json-form-feed-padding", "padding that is no JSON white space", text + "\f")
    bad("json-no-break-space", "nor is this", text + "\u00a0")
    bad("json-open", "an object that is not closed", text[:-1])
    bad("json-open-string", "a string that is not closed", text[: text.index("head.weight") + 4])
    bad("json-trailing-comma", "a comma after the last member", text[:-1] + ",}")
    bad("json-trailing-comma-in-array", "and in an array", text.replace("[2,3]", "[2,3,]"))
    bad("json-comment", "a comment", text[:-1] + "/* */}")
    bad("json-single-quotes", "names in single quotes", text.replace('"', "'"))
    bad("json-bare-name", "a name without quotes", text.replace('"dtype"', "dtype", 1))
    bad(
        "json-control-character", "a tab inside a string", text.replace("sensor-net", "sensor\tnet")
    )
    bad("json-bad-escape", "an escape that JSON lacks", text.replace("sensor-net", "sensor\\xnet"))
    bad(
        "json-short-escape", "an escape of three digits", text.replace("sensor-net", "sensor\\u00e")
    )
    bad(
        "json-utf8-cut",
        "a character cut in two",
        tampered("sensor-net", b"sensor\xc3")[8 : -len(data)],
    )
    bad(
        "json-utf8-overlong",
        "an overlong character",
        tampered("sensor-net", b"\xc0\xaf")[8 : -len(data)],
    )
    bad(
        "json-utf8-surrogate",
        "half a pair in UTF-8",
        tampered("sensor-net", b"\xed\xa0\x80")[8 : -len(data)],
    )
    bad(
        "json-utf8-latin",
        "Latin-1 in place of UTF-8",
        tampered("sensor-net", b"sens\xf6r")[8 : -len(data)],
    )
    bad("json-utf16", "UTF-16 in place of UTF-8", text.encode("utf-16-le"))
    bad(
        "json-lone-high-surrogate",
        "half a pair in an escape",
        text.replace("sensor-net", "\\ud83d"),
    )
    bad("json-lone-low-surrogate", "the other half", text.replace("sensor-net", "\\udcf1"))
    bad(
        "json-swapped-surrogates",
        "halves in the wrong order",
        text.replace("sensor-net", "\\udcf1\\ud83d"),
    )
    bad("json-surrogate-name", "half a pair in a name", text.replace("head.weight", "head\\ud800"))
    bad(
        "json-surrogate-in-repeated",
        "half a pair in a value that another replaces is seen before the repetition",
        text.replace('"model":', '"model":"\\ud800","model":'),
    )
    bad("json-nan", "NaN is not JSON", text.replace("[2,3]", "[NaN,3]"))
    bad("json-infinity", "nor is Infinity", text.replace("[2,3]", "[Infinity,3]"))
    bad("json-minus-infinity", "nor is -Infinity", text.replace("[2,3]", "[-Infinity,3]"))
    bad("json-capital-true", "nor is True", text.replace("[2,3]", "[True,3]"))

    deep = '{"a":' * 2000 + "0" + "}" * 2000
    bad("json-deep-objects", "two thousand objects", text[:-1] + f',"x":{deep}}}')
    bad(
        "json-deep-arrays",
        "ten thousand arrays",
        text[:-1] + ',"x":' + "[" * 10000 + "]" * 10000 + "}",
    )
    bad("json-deep-open", "ten thousand open arrays", text[:-1] + ',"x":' + "[" * 10000)
    bad("json-many-quotes", "ten thousand escaped quotes in an open string", '{"' + '\\"' * 10000)
    repeated = text[:-1] + ',"x":0,"x":'
    bad(
        "json-depth-64",
        "64 levels are JSON: what is wrong is the repeated key",
        repeated + "[" * 63 + "]" * 63 + "}",
        "duplicate_key",
    )
    bad(
        "json-depth-65",
        "65 levels are not, whatever else is wrong",
        repeated + "[" * 64 + "]" * 64 + "}",
    )
    bad(
        "json-brackets-in-strings",
        "brackets in strings do not nest",
        text[:-1] + ',"x":0,"x":"' + '[{\\"[' * 100 + '"}',
        "duplicate_key",
    )

    twice = {
        "tensor": text[:-1]
        + ',"head.weight":'
        + wire.compact(wire.entry("F16", [2, 3], 0, 12))
        + "}",
        "metadata-object": text[:-1] + ',"__metadata__":{}}',
        "metadata-key": text.replace('"model":', '"model":"sensor-net","model":'),
        "field": text.replace('"dtype":"F16"', '"dtype":"F16","dtype":"F16"'),
        "escaped": text.replace('"model":', '"\\u006dodel":"sensor-net","model":'),
        "other-value": text.replace('"device":', '"device":"phone-2","device":'),
        "unknown-nested": text[:-1] + ',"x":[{"y":1,"y":1}]}',
        "empty-key": text[:-1] + ',"":0,"":0}',
        "apart": text.replace('"format":', '"expires_at":"","format":'),
    }
    for name, header in twice.items():
        bad(f"twice-{name}", f"a key stands twice: {name}", header, "duplicate_key")
    many = ",".join(f'"{i:x}":0' for i in range(2000))
    bad(
        "twice-among-many",
        "one of two thousand keys stands twice",
        f'{{{many},"0":0}}',
        "duplicate_key",
    )


def header_numbers(edits: Edits) -> None:
    for name, about, old, new in (
        ("negative", "a negative number", "[0,12]", "[-0,12]"),
        ("minus-one", "a number below 0", "[0,12]", "[-1,12]"),
        ("fraction", "a fraction", "[2,3]", "[2.0,3]"),
        ("exponent", "an exponent", "[2,3]", "[2e0,3]"),
        ("exponent-1e3", "an exponent in an offset", "[0,12]", "[0,1e3]"),
        ("capital-exponent", "a capital exponent", "[2,3]", "[2,3E0]"),
        ("leading-zero", "a leading zero", "[2,3]", "[02,3]"),
        ("plus", "a plus sign", "[2,3]", "[+2,3]"),
        ("hex", "hexadecimal digits", "[2,3]", "[0x2,3]"),
        ("point-first", "a point first", "[2,3]", "[.2,3]"),
        ("point-last", "a point last", "[2,3]", "[2.,3]"),
        ("arabic-digits", "digits beyond ASCII", "[2,3]", "[\u0662,3]"),
        ("string", "a number in quotes", "[2,3]", '["2",3]'),
        ("true", "true in place of 1", "[1,2]", "[true,2]"),
        ("null", "null in place of a number", "[2,3]", "[null,3]"),
        ("nested", "a list in a shape", "[2,3]", "[[2],3]"),
        ("2-53", "one above the largest whole number", "[2,3]", f"[{2**53},3]"),
        ("2-63", "a number that 64 bits with a sign cannot hold", "[2,3]", f"[{2**63},3]"),
        ("2-64", "a number that 64 bits cannot hold", "[2,3]", f"[{2**64},3]"),
        ("2-64-and-2", "a number that is 2 in 64 bits", "[2,3]", f"[{2**64 + 2},3]"),
        ("4301-digits", "a number of 4301 digits", "[2,3]", f"[{'1' * 4301},3]"),
        ("30000-digits", "a number of 30000 digits", "[2,3]", f"[{'9' * 30000},3]"),
        ("offset-2-53", "an offset of 2^53", "[12,20]", f"[12,{2**53}]"),
    ):
        edits.bad(f"number-{name}", about, tampered(old, new), "container.header_invalid")
    edits.bad(
        "number-in-metadata",
        "a number that no field asks for is read as strictly",
        tampered('"dtype":"F16"', '"dtype":"F16","x":-1,"x":-1'),
        "container.header_invalid",
    )
    edits.bad(
        "number-2-53-and-twice",
        "a number too large comes before a key that stands twice",
        tampered('"shape":[2,3]', f'"shape":[{2**53},3],"shape":[2,3]'),
        "container.header_invalid",
    )
    edits.bad(
        "number-2-53-less-1",
        "the largest whole number is one; what is wrong is the size",
        tampered("[2,3]", f"[{2**53 - 1},3]"),
        "container.size_mismatch",
    )
    edits.bad(
        "number-offset-2-53-less-1",
        "and so it is in an offset",
        tampered("[12,20]", f"[12,{2**53 - 1}]"),
        "container.size_mismatch",
    )


def entries(edits: Edits) -> None:
    fields = '"dtype":"F16","shape":[2,3],"data_offsets":[0,12]'
    for name, about, new in (
        ("unknown-field", "a field that tensors lack", fields + ',"scale":1'),
        ("no-dtype", "a tensor without dtype", '"shape":[2,3],"data_offsets":[0,12]'),
        ("no-shape", "a tensor without shape", '"dtype":"F16","data_offsets":[0,12]'),
        ("no-offsets", "a tensor without data_offsets", '"dtype":"F16","shape":[2,3]'),
        ("empty", "a tensor without anything", ""),
        ("capital-field", "a field spelled otherwise", fields.replace("shape", "Shape")),
        ("dtype-lower-case", "a dtype in lower case", fields.replace("F16", "f16")),
        ("dtype-unknown", "a dtype that is not known", fields.replace("F16", "F12")),
        ("dtype-empty", "an empty dtype", fields.replace("F16", "")),
        ("dtype-number", "a dtype that is no string", fields.replace('"F16"', "16")),
        ("dtype-list", "a dtype that is a list", fields.replace('"F16"', '["F16"]')),
        ("shape-number", "a shape that is no list", fields.replace("[2,3]", "6")),
        ("shape-object", "a shape that is an object", fields.replace("[2,3]", "{}")),
        ("shape-null", "a shape that is null", fields.replace("[2,3]", "null")),
        ("nine-dimensions", "nine dimensions", fields.replace("[2,3]", "[2,3,1,1,1,1,1,1,1]")),
        ("one-offset", "one offset", fields.replace("[0,12]", "[12]")),
        ("three-offsets", "three offsets", fields.replace("[0,12]", "[0,6,12]")),
        ("no-offset", "no offset", fields.replace("[0,12]", "[]")),
        ("offsets-object", "offsets in an object", fields.replace("[0,12]", '{"0":12}')),
        ("offsets-backwards", "an end before the beginning", fields.replace("[0,12]", "[12,0]")),
    ):
        edits.bad(f"entry-{name}", about, tampered(fields, new), "container.header_invalid")
    for name, value in (("null", "null"), ("list", "[]"), ("string", '"F16"'), ("number", "7")):
        edits.bad(
            f"entry-is-{name}",
            f"a tensor that is {name}",
            tampered("{" + fields + "}", value),
            "container.header_invalid",
        )
    start = '"__metadata__":{'
    edit = draft()
    header = wire.header_of(edit.tensors, None)
    for name, value in (
        ("null", None),
        ("list", []),
        ("string", "persona.edit/1"),
        ("of-numbers", {**edit.metadata, "sequence": 6}),
        ("of-null", {**edit.metadata, "prototype": None}),
        ("of-lists", {**edit.metadata, "device": ["phone-1"]}),
    ):
        content = wire.frame(
            wire.compact({"__metadata__": value, **header}), wire.body(edit.tensors)
        )
        edits.bad(f"metadata-{name}", f"metadata: {name}", content, "container.header_invalid")
    edits.bad(
        "metadata-nested",
        "an object in the metadata",
        tampered(start, start + '"more":{},'),
        "container.header_invalid",
    )


def layout(edits: Edits) -> None:
    """One bad layout a case; positions are those of the dense edit, 12 and 8 bytes of data."""
    edit = draft()
    data = wire.body(edit.tensors)
    good = {
        "head.weight": wire.entry("F16", [2, 3], 0, 12),
        "probe.expected": wire.entry("F32", [1, 2], 12, 20),
    }

    def bad(
        name: str, about: str, changes: dict[str, Any], verdict: str, payload: bytes = data
    ) -> None:
        header = wire.compact({"__metadata__": edit.metadata, **good, **changes})
        edits.bad(f"layout-{name}", about, wire.frame(header, payload), verdict)

    mismatch = "container.size_mismatch"
    for name, shape in (
        ("smaller", [2, 2]),
        ("larger", [2, 4]),
        ("zero", [0, 3]),
        ("scalar", []),
        ("extra-dimension", [2, 3, 2]),
        ("2-32", [2**32, 2**32]),
        ("2-64", [2**32, 2**32, 6]),
        ("wraps-to-6", [6, 2**52 + 1, 2**12]),
        ("wraps-to-0", [2**50, 2**50, 2**50]),
        ("eight-huge", [2**53 - 1] * 8),
    ):
        bad(
            f"size-{name}",
            f"the shape {shape} does not fit the offsets",
            {"head.weight": wire.entry("F16", shape, 0, 12)},
            mismatch,
        )
    for dtype in ("F32", "F64", "U8", "I64", "F8_E4M3"):
        bad(
            f"size-{dtype.lower().replace('_', '-')}",
            f"the dtype {dtype} does not fit the offsets",
            {"head.weight": wire.entry(dtype, [2, 3], 0, 12)},
            mismatch,
        )
    bad(
        "size-empty-but-huge",
        "zero times too much: the other dimensions overflow",
        {"none": wire.entry("F32", [2**53 - 1, 2**53 - 1, 0], 20, 20)},
        mismatch,
    )
    bad(
        "size-zero-first-but-huge",
        "the same with the zero in front",
        {"none": wire.entry("F32", [0, 2**53 - 1, 2**53 - 1], 20, 20)},
        mismatch,
    )
    bad(
        "size-empty-largest",
        "zero times what fits is 0; what is wrong is the name",
        {"none": wire.entry("U8", [0, 2**53 - 1], 20, 20)},
        "slot.unknown",
    )
    bad(
        "size-empty-one-more",
        "zero times the first product that does not fit",
        {"none": wire.entry("F16", [0, 2**52], 20, 20)},
        mismatch,
    )
    bad(
        "empty-not-empty",
        "an empty shape with bytes",
        {"none": wire.entry("F32", [0], 16, 20)},
        mismatch,
    )

    out = "container.out_of_bounds"
    bad("end-one-beyond", "the last tensor ends a byte after the file", {}, out, data[:-1])
    bad("no-data", "no data at all", {}, out, b"")
    bad(
        "far-away",
        "a tensor far beyond the file",
        {"x": wire.entry("U8", [4], 2**40, 2**40 + 4)},
        out,
    )
    bad(
        "largest-offsets",
        "a tensor at the largest offsets",
        {"x": wire.entry("U8", [1], 2**53 - 2, 2**53 - 1)},
        out,
    )
    bad(
        "empty-beyond",
        "an empty tensor beyond the file",
        {"x": wire.entry("U8", [0], 21, 21)},
        out,
    )
    overlap, hole = "container.overlap", "container.hole"
    bad(
        "same-bytes",
        "two tensors share all bytes",
        {"twin": wire.entry("F16", [2, 3], 0, 12)},
        overlap,
    )
    bad(
        "overlap-by-two",
        "a tensor begins in the one before it",
        {"probe.expected": wire.entry("F32", [1, 2], 10, 18)},
        overlap,
        data[:18],
    )
    bad(
        "overlap-by-one",
        "a tensor begins in the last byte of the one before it",
        {"probe.expected": wire.entry("F32", [1, 2], 11, 19)},
        overlap,
        data[:19],
    )
    bad(
        "inside",
        "a tensor inside another",
        {"x": wire.entry("U8", [4], 4, 8)},
        overlap,
    )
    bad(
        "empty-inside",
        "an empty tensor inside another",
        {"x": wire.entry("U8", [0], 4, 4)},
        overlap,
    )
    bad(
        "hole-first",
        "bytes before the first tensor",
        {
            "head.weight": wire.entry("F16", [2, 3], 4, 16),
            "probe.expected": wire.entry("F32", [1, 2], 16, 24),
        },
        hole,
        bytes(4) + data,
    )
    bad(
        "hole-between",
        "bytes between two tensors",
        {"probe.expected": wire.entry("F32", [1, 2], 16, 24)},
        hole,
        data[:12] + bytes(4) + data[12:],
    )
    bad(
        "hole-alignment",
        "padding between tensors is a hole",
        {"probe.expected": wire.entry("F32", [1, 2], 13, 21)},
        hole,
        data[:12] + b"\0" + data[12:],
    )
    trailing = "container.trailing_bytes"
    bad("trailing-one", "a byte after the last tensor", {}, trailing, data + b"\0")
    bad("trailing-kilobyte", "a kilobyte after the last tensor", {}, trailing, data + bytes(1024))
    edits.bad(
        "layout-trailing-no-tensors",
        "bytes, but no tensor",
        wire.frame(wire.compact({"__metadata__": edit.metadata}), data),
        trailing,
    )
    bad(
        "empty-at-end",
        "an empty tensor at the end is well placed; what is wrong is the name",
        {"none": wire.entry("I64", [0], 20, 20)},
        "slot.unknown",
    )
    bad(
        "empty-between",
        "and so is one between two tensors",
        {"none": wire.entry("I64", [3, 0], 12, 12)},
        "slot.unknown",
    )
    bad(
        "eight-dimensions",
        "eight dimensions are allowed; what is wrong is the slot's shape",
        {"head.weight": wire.entry("F16", [2, 3, 1, 1, 1, 1, 1, 1], 0, 12)},
        "slot.shape",
    )
