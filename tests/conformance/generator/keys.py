"""Key documents: their signature, their fields, and when they are no longer news."""

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

from . import wire

NEXT = wire.Key("persona conformance: the publisher's next key")
THIRD = wire.Key("persona conformance: a third key of the cloud")
NOW = "2026-06-01T12:00:00Z"
MAX_BYTES = 65_536

Document = dict[str, Any]


class Keys:
    """The cases, and the files that they name."""

    def __init__(self) -> None:
        self.cases: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}

    def add(self, name: str, about: str, data: bytes, verdict: str, **other: Any) -> None:
        """A case; signed by the publisher and new to the device unless told otherwise."""
        same = (file for file, known in self.files.items() if known == data)
        file = next(same, f"keys/{name}.json")
        self.files[file] = data
        given = {
            "key_id": wire.PUBLISHER.id,
            "signature": wire.text(wire.PUBLISHER.sign(data)),
            "trusted": [wire.PUBLISHER.public],
            "sequence": 3,
            "now": NOW,
        }
        case = {"name": name, "about": about, "file": file, **given, "verdict": verdict, **other}
        self.cases.append(case)

    def good(self, name: str, about: str, document: Document, **other: Any) -> None:
        """A document that is taken, and what the device then trusts."""
        data = other.pop("data", None) or written(document)
        self.add(name, about, data, "ok", expected=document, **other)

    def bad(self, name: str, about: str, document: Any, verdict: str, **other: Any) -> None:
        """A document, or bytes, that is refused."""
        data = document if isinstance(document, bytes) else written(document)
        self.add(name, about, data, verdict, **other)


def written(document: Any) -> bytes:
    """As most writers write it."""
    return wire.compact(document).encode()


def edit_key(key: wire.Key, until: str | None = None) -> Document:
    """An entry of `edit_keys`."""
    return {"id": key.id, "public_key": key.public, "until": until}


def bundle_key(key: wire.Key) -> Document:
    """An entry of `bundle_keys`."""
    return {"id": key.id, "public_key": key.public}


def usual(**changed: Any) -> Document:
    """The fourth document: one edit key on its way out, one in its place."""
    return {
        "format": "persona.keys/1",
        "sequence": 4,
        "issued_at": "2026-06-01T11:00:00Z",
        "edit_keys": [edit_key(wire.CLOUD, "2026-06-08T11:00:00Z"), edit_key(wire.SECOND)],
        "bundle_keys": [bundle_key(wire.PUBLISHER)],
    } | changed


def without(document: Document, field: str) -> Document:
    """The document without a field."""
    return {name: value for name, value in document.items() if name != field}


def key_cases() -> Keys:
    """All of them."""
    keys = Keys()
    for family in (_good, _size_and_signature, _not_a_document, _fields, _public_keys, _news):
        family(keys)
    return keys


def _good(keys: Keys) -> None:
    keys.good("good-rotation", "one edit key gives way to another", usual())
    keys.good("good-one-key", "one key of each", usual(edit_keys=[edit_key(wire.CLOUD)]))
    keys.good("good-no-edit-keys", "nothing verifies edits any more", usual(edit_keys=[]))
    both = usual(bundle_keys=[bundle_key(wire.PUBLISHER), bundle_key(NEXT)])
    keys.good("good-next-publisher", "a second bundle key", both)
    keys.good(
        "good-signer-gone",
        "signed by a key that it no longer names, which the device still trusts",
        usual(bundle_keys=[bundle_key(NEXT)]),
    )
    keys.good("good-first", "the device has none", usual(sequence=1), sequence=0)
    keys.good("good-numbers-between", "numbers may be left out", usual(sequence=900))
    largest = usual(sequence=2**53 - 1)
    keys.good("good-last-sequence", "the largest number", largest, sequence=2**53 - 2)
    over = usual(edit_keys=[edit_key(wire.CLOUD, "2026-01-01T00:00:00Z")])
    keys.good("good-key-over", "a key whose time is over may stand in it", over)
    keys.good("good-long-ago", "an old document is news to who has none", usual(), sequence=0)
    spaced = json.dumps(usual(), indent=3).encode() + b"\n \t\r\n"
    keys.good("good-white-space", "white space is free", usual(), data=spaced)
    backwards = dict(reversed(usual().items()))
    keys.good("good-field-order", "so is the order of fields", usual(), data=written(backwards))
    keys.good("good-skew", "issued 300 s from now", usual(issued_at="2026-06-01T12:05:00Z"))
    escaped = json.dumps(usual()).replace("persona.keys", "persona\\u002ekeys").encode()
    keys.good("good-escape", "an escape is its character", usual(), data=escaped)
    longest = written(usual()).ljust(MAX_BYTES)
    keys.good("good-largest", "exactly as large as allowed", usual(), data=longest)
    by_next = {
        "trusted": [wire.PUBLISHER.public, NEXT.public],
        "key_id": NEXT.id,
        "signature": wire.text(NEXT.sign(written(both))),
    }
    keys.good("good-second-signer", "signed by another key that the device trusts", both, **by_next)
    r, s = wire.parts(wire.PUBLISHER.sign(written(usual())))
    other_s = wire.text(wire.joined(r, wire.P256_ORDER - s))
    keys.good("good-other-s", "(r, n - s) signs as well", usual(), signature=other_s)


def _size_and_signature(keys: Keys) -> None:
    data = written(usual())
    larger = data.ljust(MAX_BYTES + 1)
    keys.bad("too-large", "a byte above the limit", larger, "keys.too_large")
    keys.bad(
        "too-large-unsigned",
        "size comes first",
        larger,
        "keys.too_large",
        key_id="",
        signature="",
    )
    stranger = {"key_id": wire.STRANGER.id, "signature": wire.text(wire.STRANGER.sign(data))}
    keys.bad("unknown-key", "by a key that nobody named", data, "keys.unknown_key", **stranger)
    by_cloud = {"key_id": wire.CLOUD.id, "signature": wire.text(wire.CLOUD.sign(data))}
    keys.bad(
        "unknown-key-edit",
        "an edit key names no keys, not even one of the document",
        data,
        "keys.unknown_key",
        **by_cloud,
    )
    added = usual(bundle_keys=[bundle_key(wire.PUBLISHER), bundle_key(NEXT)])
    itself = {"key_id": NEXT.id, "signature": wire.text(NEXT.sign(written(added)))}
    keys.bad(
        "unknown-key-itself",
        "a document cannot bring the key that signed it",
        added,
        "keys.unknown_key",
        **itself,
    )
    keys.bad("unknown-key-none", "no key is trusted", data, "keys.unknown_key", trusted=[])
    for name, key in (
        ("empty", ""),
        ("upper-case", wire.PUBLISHER.id.upper()),
        ("prefix", wire.PUBLISHER.id[:8]),
    ):
        about = "key ids are compared as they stand"
        keys.bad(f"unknown-key-{name}", about, data, "keys.unknown_key", key_id=key)
    der = wire.PUBLISHER.sign(data)
    for name, about, signature in (
        ("stranger", "another key's signature", stranger["signature"]),
        ("empty", "no signature", ""),
        ("truncated", "a byte short", wire.text(der[:-1])),
        ("trailing", "a byte too many", wire.text(der + b"\0")),
        ("other-hash", "signed with SHA-384", wire.text(wire.PUBLISHER.sign_sha384(data))),
        ("space", "base64 that is not canonical", wire.text(der) + " "),
        ("both-zero", "r = s = 0", wire.text(wire.joined(0, 0))),
    ):
        keys.bad(f"bad-signature-{name}", about, data, "keys.bad_signature", signature=signature)
    for name, changed in (
        ("appended", data + b" "),
        ("cut", data[:-1]),
        ("number", data.replace(b'"sequence":4', b'"sequence":5')),
        ("no-bytes", b""),
    ):
        about = "the document was changed after it was signed"
        signature = wire.text(der)
        keys.bad(
            f"bad-signature-file-{name}", about, changed, "keys.bad_signature", signature=signature
        )


def _not_a_document(keys: Keys) -> None:
    text = wire.compact(usual())
    for name, about, data in (
        ("no-json", "not JSON", b"keys"),
        ("nothing", "signed, but nothing", b""),
        ("array", "an array", written([usual()])),
        ("null", "null", b"null"),
        ("repeated-field", "a field twice", text.replace("{", '{"sequence":4,', 1).encode()),
        (
            "repeated-escaped",
            "twice by an escape",
            text.replace("{", '{"sequenc\\u0065":4,', 1).encode(),
        ),
        ("trailing-comma", "a comma too many", text[:-1].encode() + b",}"),
        ("after-the-end", "something after the end", text.encode() + b"x"),
        ("bom", "a byte order mark", b"\xef\xbb\xbf" + text.encode()),
        (
            "not-utf-8",
            "bytes that are not UTF-8",
            text.replace("persona", "\xff").encode("latin-1"),
        ),
        ("half-pair", "half a surrogate pair", text.replace("persona.keys/1", "\\ud83d").encode()),
        ("deep", "nested too deep", b"[" * 65 + b"]" * 65),
    ):
        keys.bad(f"invalid-{name}", about, data, "keys.invalid")
    for name, value in (
        ("newer", "persona.keys/2"),
        ("case", "Persona.keys/1"),
        ("number", 1),
        ("null", None),
    ):
        about = "a format that this reader does not know"
        keys.bad(f"unknown-format-{name}", about, usual(format=value), "keys.unknown_format")
    keys.bad("unknown-format-none", "no format", without(usual(), "format"), "keys.unknown_format")
    keys.bad(
        "unknown-format-first",
        "the format is looked at before all other fields",
        {"format": "persona.keys/2", "sequence": "x"},
        "keys.unknown_format",
    )


def _fields(keys: Keys) -> None:
    for field in ("sequence", "issued_at", "edit_keys", "bundle_keys"):
        about = f"no {field}"
        keys.bad(f"invalid-without-{field}", about, without(usual(), field), "keys.invalid")
    keys.bad("invalid-more", "a field that is not known", usual(revoked=[]), "keys.invalid")
    for name, value in (
        ("zero", 0),
        ("negative", -1),
        ("real", 4.5),
        ("text", "4"),
        ("true", True),
        ("beyond", 2**53),
    ):
        keys.bad(f"invalid-sequence-{name}", "not a number", usual(sequence=value), "keys.invalid")
    for name, spelled in (("fraction", "4.0"), ("exponent", "4e0"), ("minus-zero", "-0")):
        data = wire.compact(usual()).replace('"sequence":4', f'"sequence":{spelled}').encode()
        keys.bad(f"invalid-sequence-{name}", "not written as a whole number", data, "keys.invalid")
    for name, value in (
        ("offset", "2026-06-01T11:00:00+00:00"),
        ("fraction", "2026-06-01T11:00:00.5Z"),
        ("no-date", "2026-02-30T11:00:00Z"),
        ("null", None),
    ):
        keys.bad(f"invalid-issued-{name}", "not a time", usual(issued_at=value), "keys.invalid")
        until = usual(edit_keys=[edit_key(wire.CLOUD) | {"until": value or 0}])
        keys.bad(f"invalid-until-{name}", "nor null", until, "keys.invalid")
    keys.bad("invalid-no-bundle-keys", "nobody could follow", usual(bundle_keys=[]), "keys.invalid")
    for field, entry in (("edit_keys", edit_key), ("bundle_keys", bundle_key)):
        one = entry(wire.PUBLISHER)
        for name, about, value in (
            ("object", "an object in place of a list", one),
            ("text", "an id in place of an entry", [one["id"]]),
            ("twice", "a key twice", [one, one]),
            ("more", "a field that is not known", [one | {"role": "root"}]),
            ("no-id", "no id", [without(one, "id")]),
            ("no-key", "no public key", [without(one, "public_key")]),
            ("other-id", "the id of another key", [one | {"id": wire.STRANGER.id}]),
            ("upper-id", "an id in capitals", [one | {"id": one["id"].upper()}]),
        ):
            keys.bad(f"invalid-{field}-{name}", about, usual(**{field: value}), "keys.invalid")
    no_until = usual(edit_keys=[without(edit_key(wire.CLOUD), "until")])
    keys.bad("invalid-no-until", "until may be null, not left out", no_until, "keys.invalid")
    both = usual(edit_keys=[edit_key(wire.PUBLISHER)])
    keys.bad("invalid-two-roles", "a key that signs edits and bundles", both, "keys.invalid")


def _public_keys(keys: Keys) -> None:
    der = base64.b64decode(THIRD.public)

    def entry(data: bytes, text: str | None = None) -> Document:
        return {
            "id": hashlib.sha256(data).hexdigest()[:16],
            "public_key": wire.text(data) if text is None else text,
            "until": None,
        }

    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
    off_curve = bytes([*der[:-1], der[-1] ^ 1])
    shapes: dict[str, tuple[str, Callable[[], Document]]] = {
        "compressed": ("its point compressed", lambda: entry(wire.compressed(der))),
        "off-curve": ("a point that is not on the curve", lambda: entry(off_curve)),
        "beyond-prime": (
            "a coordinate that is not below the prime",
            lambda: entry(der[:27] + prime.to_bytes(32) + der[59:]),
        ),
        "zeros": ("no point", lambda: entry(der[:27] + bytes(64))),
        "raw": ("the point without DER", lambda: entry(der[26:])),
        "truncated": ("a byte short", lambda: entry(der[:-1])),
        "trailing": ("a byte too many", lambda: entry(der + b"\0")),
        "other-curve": (
            "another curve's name",
            lambda: entry(der.replace(b"\x07\x03", b"\x07\x02", 1)),
        ),
        "empty": ("no bytes", lambda: entry(b"")),
        "line-break": (
            "base64 in two lines",
            lambda: entry(der, THIRD.public[:40] + "\n" + THIRD.public[40:]),
        ),
        "no-padding": ("base64 without '='", lambda: entry(der, THIRD.public.rstrip("="))),
    }
    for name, (about, made) in shapes.items():
        as_edit = usual(edit_keys=[made()])
        as_bundle = usual(bundle_keys=[bundle_key(wire.PUBLISHER), without(made(), "until")])
        keys.bad(f"invalid-edit-key-{name}", about, as_edit, "keys.invalid")
        keys.bad(f"invalid-bundle-key-{name}", about, as_bundle, "keys.invalid")


def _news(keys: Keys) -> None:
    keys.bad("replayed-same", "the device has it", usual(), "keys.replayed", sequence=4)
    keys.bad("replayed-older", "the device has a newer one", usual(), "keys.replayed", sequence=9)
    late = usual(issued_at="2026-06-01T12:05:01Z")
    keys.bad("from-future", "issued 301 s from now", late, "keys.from_future")
    keys.bad("replayed-from-future", "its number comes first", late, "keys.replayed", sequence=4)
    wrong = usual(sequence=0, issued_at="2036-06-01T12:00:00Z")
    keys.bad("invalid-from-future", "fields come before news", wrong, "keys.invalid")
