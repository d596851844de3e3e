"""Keys and signatures: files only their owner can read, ids, and what is no signature."""

import base64
import hashlib
import json
import stat
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from persona.formats.verify import Signature
from persona.signing import (
    PublicKeys,
    SigningKey,
    SigningKeyError,
    StoredSignature,
    decode_signature,
    decode_stored,
    encode_signature,
    from_text,
    read_public_key,
    read_signature,
    to_text,
)


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return SigningKey.load_or_create(tmp_path_factory.mktemp("keys") / "new" / "cloud.pem")


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path):
    path = tmp_path / "keys" / "cloud.pem"
    made = SigningKey.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    assert SigningKey.load_or_create(path).id == made.id
    assert path.read_bytes() == before


def test_the_public_half_lies_beside_the_key_for_all_to_read(tmp_path):
    path = tmp_path / "cloud.pem"
    made = SigningKey.load_or_create(path)
    beside = tmp_path / "cloud.pem.pub"
    assert stat.S_IMODE(beside.stat().st_mode) == 0o644
    public = serialization.load_pem_public_key(beside.read_bytes())
    public.verify(made.sign(b"edit").der, b"edit", ec.ECDSA(hashes.SHA256()))
    assert {p.name for p in tmp_path.iterdir()} == {"cloud.pem", "cloud.pem.pub"}


@pytest.mark.parametrize("there", [None, b"the half of a key that was replaced"])
def test_a_public_half_that_is_missing_or_old_is_written_on_the_next_use(tmp_path, there):
    path, beside = tmp_path / "cloud.pem", tmp_path / "cloud.pem.pub"
    made = SigningKey.load_or_create(path)
    beside.unlink() if there is None else beside.write_bytes(there)
    SigningKey.load_or_create(path)
    assert read_public_key(beside) == made.public


RACER = """
import sys
from pathlib import Path
from persona.signing import SigningKey
print("ready", flush=True)
for line in sys.stdin:
    print(SigningKey.load_or_create(Path(line.strip())).id, flush=True)
"""


def test_of_two_processes_that_come_first_both_use_one_key(tmp_path):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for _ in range(2)
    ]
    assert [racer.stdout.readline().strip() for racer in racers] == ["ready"] * 2
    for attempt in range(60):
        path = tmp_path / f"{attempt}.pem"
        for racer in racers:
            racer.stdin.write(f"{path}\n")
        ids = {racer.stdout.readline().strip() for racer in racers}
        assert ids == {SigningKey.load_or_create(path).id}
    for racer in racers:
        racer.communicate(timeout=30)
        assert racer.returncode == 0
    suffixes = {name.partition(".")[2] for name in (p.name for p in tmp_path.iterdir())}
    assert suffixes == {"pem", "pem.pub"}, "no temporary file is left"


def test_a_key_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "cloud.pem"

    def no_power(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("persona.signing.os.fsync", no_power)
    with pytest.raises(KeyboardInterrupt):
        SigningKey.load_or_create(path)
    assert list(tmp_path.iterdir()) == []


def test_a_public_key_is_read_from_pem_and_der_in_any_encoding(key, tmp_path):
    public = serialization.load_der_public_key(key.public)
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    point = public.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    prefix = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    for content in (
        key.public,
        public.public_bytes(serialization.Encoding.PEM, spki),
        b"the publisher\n" + public.public_bytes(serialization.Encoding.PEM, spki),
        prefix + point,
    ):
        path = tmp_path / "key"
        path.write_bytes(content)
        assert read_public_key(path) == key.public


def test_a_file_that_holds_no_public_key_is_refused_with_what_it_holds(tmp_path):
    SigningKey.load_or_create(tmp_path / "cloud.pem")
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "p384").write_bytes(other.public_bytes(serialization.Encoding.PEM, spki))
    (tmp_path / "text").write_bytes(b"hello")
    (tmp_path / "cut").write_bytes((tmp_path / "cloud.pem.pub").read_bytes()[:90])
    for name, said in (
        ("cloud.pem", "private key; name its public half instead, cloud.pem.pub"),
        ("p384", "ECDSA P-256"),
        ("text", "not a public key in PEM or DER"),
        ("cut", "not a public key in PEM or DER"),
        ("nothing", "No such file"),
        (".", "cannot be read"),
    ):
        with pytest.raises(SigningKeyError, match=said):
            read_public_key(tmp_path / name)


def test_a_file_that_holds_no_such_key_is_refused_and_kept(tmp_path):
    def stored(private) -> bytes:
        return private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    contents = {
        "not a PEM": b"hello",
        "must hold an ECDSA P-256 key": stored(ec.generate_private_key(ec.SECP384R1())),
        "P-256": stored(ed25519.Ed25519PrivateKey.generate()),
    }
    for said, content in contents.items():
        path = tmp_path / "key.pem"
        path.write_bytes(content)
        with pytest.raises(SigningKeyError, match=said):
            SigningKey.load_or_create(path)
        assert path.read_bytes() == content


def test_an_id_is_the_beginning_of_the_public_key_s_digest(key):
    assert key.id == hashlib.sha256(key.public).hexdigest()[:16]
    assert len(key.public) == 91


def test_a_signature_verifies_with_the_library_itself(key):
    signature = key.sign(b"edit")
    assert signature.key_id == key.id
    public = serialization.load_der_public_key(key.public)
    public.verify(signature.der, b"edit", ec.ECDSA(hashes.SHA256()))


def test_a_ring_verifies_what_its_keys_signed_and_nothing_else(key):
    other = SigningKey(ec.generate_private_key(ec.SECP256R1()))
    ring = PublicKeys([key.public, other.public])
    der = key.sign(b"edit").der
    assert ring.verifies(key.id, der, b"edit")
    assert not ring.verifies(key.id, der, b"edit.")
    assert not ring.verifies(other.id, der, b"edit")
    for wrong in (b"", b"\0", der[:-1], der + b"\0", b"\x30\x00", bytes(72), b"\xff" * 72):
        assert not ring.verifies(key.id, wrong, b"edit")


def test_a_ring_knows_its_keys_by_their_exact_ids(key):
    ring = PublicKeys([key.public])
    assert ring.knows(key.id)
    assert not any(ring.knows(wrong) for wrong in ("", key.id.upper() + " ", key.id[:8]))


def test_a_ring_takes_p256_keys_in_one_encoding_alone(key):
    def spki(private) -> bytes:
        return private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    public = serialization.load_der_public_key(key.public)
    point = public.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    prefix = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    for der, said in (
        (spki(ec.generate_private_key(ec.SECP384R1())), "not an ECDSA P-256"),
        (spki(ed25519.Ed25519PrivateKey.generate()), "not an ECDSA P-256"),
        (prefix + point, "uncompressed"),
        (b"", "not a public key"),
        (key.public[:-1], "not a public key"),
    ):
        with pytest.raises(SigningKeyError, match=said):
            PublicKeys([der])


@given(st.binary(max_size=80))
def test_base64_comes_back(data):
    assert from_text(to_text(data)) == data


@given(st.text("AB/+=w\n -_\u00e9", max_size=12))
def test_only_canonical_base64_is_read(text):
    try:
        data = from_text(text)
    except ValueError:
        return
    assert base64.standard_b64encode(data).decode() == text


@pytest.mark.parametrize(
    "text", ["YQ", "YQ=", "YR==", "YWI==", "YQ==\n", " YQ==", "Y-_=", "\u00e9"]
)
def test_text_that_is_no_canonical_base64_is_a_signature_that_no_key_made(key, text):
    signature = read_signature(key.id, text)
    assert signature == Signature(key.id, b"")
    assert not PublicKeys([key.public]).verifies(key.id, signature.der, b"")


def test_a_stored_signature_comes_back(key):
    signature = key.sign(b"edit")
    stored = encode_signature(signature)
    assert json.loads(stored) == {
        "key_id": key.id,
        "signature": base64.b64encode(signature.der).decode(),
    }
    assert decode_signature(stored) == signature
    assert decode_stored(stored) == StoredSignature(signature, None)


def test_a_stored_signature_may_bring_its_key(key):
    signature = key.sign(b"bundle")
    stored = encode_signature(signature, key.public)
    assert json.loads(stored) == {
        **json.loads(encode_signature(signature)),
        "public_key": base64.b64encode(key.public).decode(),
    }
    assert decode_stored(stored) == StoredSignature(signature, key.public)
    assert decode_signature(stored) == signature


def test_a_stored_signature_with_the_key_of_another_is_refused(key):
    other = SigningKey(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(ValueError, match=f"is '{other.id}', not '{key.id}'"):
        decode_stored(encode_signature(key.sign(b"bundle"), other.public))


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"key_id":"a"}', b'{"key_id":"a","signature":1}', b"\xff",
     b'{"key_id":"a","signature":"","more":1}', b'{"key_id":"a","key_id":"a","signature":""}',
     b'{"key_id":"a","signature":"","public_key":null}',
     b'{"key_id":"a","signature":"","public_key":"!"}'],
)  # fmt: skip
def test_a_stored_signature_that_is_not_such_json_is_refused(data):
    with pytest.raises(ValueError, match=r"\w"):
        decode_signature(data)
