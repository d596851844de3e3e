"""Size and signature: wrong keys, DER and base64 that is not canonical, changed files."""

from typing import Any

from . import wire
from .drafts import Draft, Edits, draft
from .expectations import DENSE, tight


def size_and_signature(edits: Edits) -> None:
    edit = draft(DENSE, "signed")
    data = edit.bytes()
    exact = tight(len(data))
    edits.good("good-largest", "exactly as large as allowed", edit, expectation=exact)
    one_more = wire.frame(
        wire.compact(wire.header_of(edit.tensors, edit.metadata)).ljust(
            len(data) - 8 - len(wire.body(edit.tensors)) + 1
        ),
        wire.body(edit.tensors),
    )
    edits.bad(
        "too-large", "one byte above the limit", one_more, "edit.too_large", expectation=exact
    )
    edits.bad(
        "too-large-zeros",
        "size is looked at before anything is read",
        bytes(len(data) + 1),
        "edit.too_large",
        expectation=exact,
    )

    der = wire.CLOUD.sign(data)
    r, s = wire.parts(der)
    second = wire.text(wire.SECOND.sign(data))
    edits.good(
        "good-second-key",
        "signed with the cloud's other key",
        edit,
        key_id=wire.SECOND.id,
        signature=second,
    )
    edits.good(
        "good-other-s",
        "(r, n - s) signs as well as (r, s) does",
        edit,
        signature=wire.text(wire.joined(r, wire.P256_ORDER - s)),
    )
    stranger = wire.text(wire.STRANGER.sign(data))
    for name, about, key in (
        ("stranger", "a good signature by a key that the bundle does not name", wire.STRANGER.id),
        ("empty", "no key id", ""),
        ("upper-case", "key ids are compared as they stand", wire.CLOUD.id.upper()),
        ("space", "nor is white space taken away", f"{wire.CLOUD.id} "),
        ("prefix", "a part of a key id is no key id", wire.CLOUD.id[:8]),
        ("longer", "nor is a longer one", f"{wire.CLOUD.id}00"),
    ):
        edits.bad(
            f"unknown-key-{name}",
            about,
            edit,
            "edit.unknown_key",
            key_id=key,
            signature=stranger if name == "stranger" else wire.text(der),
        )

    def bad(name: str, about: str, signature: str, content: bytes = data) -> None:
        edits.bad(
            f"bad-signature-{name}", about, content, "edit.bad_signature", signature=signature
        )

    def integer(value: int) -> bytes:
        raw = value.to_bytes(value.bit_length() // 8 + 1)
        return b"\x02" + bytes([len(raw)]) + raw

    inner = integer(r) + integer(s)
    spare = b"\x02" + bytes([len(integer(r)) - 1]) + b"\x00" + integer(r)[2:] + integer(s)
    bad("stranger", "a known key's id with another key's signature", stranger)
    bad("other-known-key", "the second key's signature under the first one's id", second)
    bad("other-file", "the signature of another edit", wire.text(wire.CLOUD.sign(b"other")))
    bad("other-hash", "signed with SHA-384", wire.text(wire.CLOUD.sign_sha384(data)))
    bad("empty", "no signature", "")
    bad("swapped", "(s, r) in place of (r, s)", wire.text(wire.joined(s, r)))
    bad("raw", "r and s without DER", wire.text(r.to_bytes(32) + s.to_bytes(32)))
    bad("truncated", "a byte short", wire.text(der[:-1]))
    bad("trailing", "a byte too many after the sequence", wire.text(der + b"\0"))
    bad("empty-sequence", "a sequence of nothing", wire.text(b"\x30\x00"))
    bad("one-integer", "r alone", wire.text(b"\x30" + bytes([len(integer(r))]) + integer(r)))
    bad("long-length", "a length in the long form", wire.text(b"\x30\x81" + der[1:]))
    bad("indefinite-length", "a length in no form", wire.text(b"\x30\x80" + inner + b"\0\0"))
    bad(
        "spare-zero",
        "r with a zero byte too many",
        wire.text(b"\x30" + bytes([len(spare)]) + spare),
    )
    bad("r-zero", "r = 0", wire.text(wire.joined(0, s)))
    bad("s-zero", "s = 0", wire.text(wire.joined(r, 0)))
    bad("both-zero", "r = s = 0", wire.text(wire.joined(0, 0)))
    bad("r-order", "r = n", wire.text(wire.joined(wire.P256_ORDER, s)))
    bad("s-order", "s + n in place of s", wire.text(wire.joined(r, s + wire.P256_ORDER)))
    flipped = bytes([*der[:-1], der[-1] ^ 1])
    bad("flipped", "a bit of the signature turned", wire.text(flipped))
    bad("not-base64", "text that is not base64", "!" + wire.text(der)[1:])
    bad("line-break", "base64 in two lines", wire.text(der)[:40] + "\n" + wire.text(der)[40:])
    bad("space", "a space after the base64", wire.text(der) + " ")
    bad("hex", "hex in place of base64", der.hex())

    # Lengths that leave one and two bytes over in base64: DER of 70 and 71 bytes.
    by_size = _signatures_by_size(edit)
    two_left, one_left = by_size[71], by_size[70]
    for name, (content, signature) in {"two-bytes": two_left, "one-byte": one_left}.items():
        written = wire.text(signature)
        count = written.count("=")
        assert count == {"two-bytes": 1, "one-byte": 2}[name]
        last = written[-count - 1]
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        other = alphabet[alphabet.index(last) + 1]
        loose = written[: -count - 1] + other + "=" * count
        bad(f"loose-bits-{name}", "spare bits of the last base64 letter are not 0", loose, content)
        bad(f"no-padding-{name}", "base64 without '='", written.rstrip("="), content)
    content, signature = one_left
    bad("short-padding", "base64 with one '=' of two", wire.text(signature)[:-1], content)
    content, signature = two_left
    bad("much-padding", "base64 with two '=' in place of one", wire.text(signature) + "=", content)
    content, signature = next(
        (c, w) for c, w in _signed_variants(edit) if "+" in wire.text(w) or "/" in wire.text(w)
    )
    url_safe = wire.text(signature).replace("+", "-").replace("/", "_")
    bad("url-alphabet", "base64 in its alphabet for URLs", url_safe, content)

    middle = len(data) // 2
    for name, content in (
        ("data-bit", data[:-1] + bytes([data[-1] ^ 1])),
        ("header-bit", data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]),
        ("length-bit", bytes([data[0] ^ 8]) + data[1:]),
        ("appended", data + b"\0"),
        ("cut", data[:-1]),
        ("no-bytes", b""),
    ):
        bad(
            f"file-{name}",
            f"the file was changed after it was signed: {name}",
            wire.text(der),
            content,
        )


def _signed_variants(edit: Draft) -> Any:
    for sequence in range(100, 1000):
        content = edit.with_metadata(sequence=str(sequence)).bytes()
        yield content, wire.CLOUD.sign(content)


def _signatures_by_size(edit: Draft) -> dict[int, tuple[bytes, bytes]]:
    found: dict[int, tuple[bytes, bytes]] = {}
    for content, signature in _signed_variants(edit):
        found.setdefault(len(signature), (content, signature))
        if {70, 71} <= set(found):
            break
    return found
