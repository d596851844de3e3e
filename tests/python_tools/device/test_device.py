"""A device takes good edits, refuses each bad one, and falls back when the cloud is away."""

import re
import socket
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from persona.bundles import open_bundle
from persona.device.client import CloudClient, CloudError, OfflineError
from persona.device.device import Device
from persona.device.live import OnBase, OnEdit, OnPrototype
from persona.durable import PlaceError
from persona.formats import container
from persona.formats.bundle_tensors import Prototypes, encode_golden, encode_prototypes
from persona.formats.errors import FormatError
from persona.formats.observation import Envelope, observation_vector
from persona.formats.verify import Signature
from persona.signing import SigningKey
from persona_cloud import CloudConfig, create_app
from persona_cloud.serving import running

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def snapshot(phone):
    """Everything that a refused edit must leave as it was."""
    image = np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)
    files = {p.name: p.read_bytes() for p in phone.store.folder.iterdir()}
    return phone.live.state, phone.predict([image]).tobytes(), files


@pytest.fixture
def edited(phone, issue):
    """A device on its own edit of sequence 4."""
    phone.accept(*issue("me", issue.change(7), sequence=4))
    return phone


def refused(phone, data, signature, code):
    """The message with which the device refuses an edit; nothing has changed."""
    before = snapshot(phone)
    with pytest.raises(FormatError) as caught:
        phone.accept(data, signature)
    assert caught.value.code.value == code
    assert snapshot(phone) == before
    return str(caught.value.args[0])


# -- Edits that are refused


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"bundle": "ab" * 32}, "edit.other_base", r"made for .*abab.*ask for an edit again"),
        ({"model": "another"}, "edit.other_base", r"made for another .*ask for an edit again"),
        ({"device": "you"}, "edit.other_device", r"made for device 'you', this is 'me'"),
        ({"sequence": 4}, "edit.replayed", r"sequence 4 is not newer than 4"),
        ({"sequence": 3}, "edit.replayed", r"sequence 3 is not newer than 4"),
        (
            {"issued_at": NOW - 9 * DAY, "expires_at": NOW - DAY},
            "edit.expired",
            r"expired at .* it is .*ask again",
        ),
        (
            {"issued_at": NOW + DAY, "expires_at": NOW + 2 * DAY},
            "edit.from_future",
            r"issued at .* check the clock",
        ),
        ({"prototype": 3, "probe": True}, "edit.unknown_prototype", r"prototype 3.* has 3"),
    ],
)
def test_an_edit_for_another_place_or_time_is_refused(edited, issue, fields, code, says):
    probe = np.zeros((1, 10), np.float32) if fields.pop("probe", None) else None
    fields = {"sequence": 5, "device": "me", **fields}
    message = refused(edited, *issue(**fields, probe=probe), code)
    assert re.search(says, message), message


def _with(change, **values):
    changed = {name: value.copy() for name, value in change.items()}
    for name, value in values.items():
        changed[name.replace("__", ".").replace("_", ".")].flat[2] = value
    return changed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tensor", ["head_0__weight", "head_2__bias"])
def test_a_value_that_is_not_finite_is_refused(edited, issue, tensor, value):
    change = _with(issue.change(), **{tensor: value})
    probe = np.zeros((1, 10), np.float32)
    message = refused(edited, *issue("me", change, probe, sequence=5), "value.not_finite")
    assert "holds NaN or infinity" in message
    assert tensor.replace("__", ".").replace("_", ".") in message


@pytest.mark.parametrize(("tensor", "limit"), [("head_0__weight", 0.5), ("head_2__bias", 3.0)])
def test_a_value_beyond_its_slots_bound_is_refused_and_at_the_bound_taken(
    edited, issue, tensor, limit
):
    beyond = float(np.nextafter(np.float32(limit), np.float32(9)))
    change = _with(issue.change(), **{tensor: -beyond})
    message = refused(edited, *issue("me", change, sequence=5), "value.beyond_bound")
    assert f"its slot allows {limit:g}" in message
    edited.accept(*issue("me", _with(issue.change(), **{tensor: -limit}), sequence=5))


def test_a_slot_of_another_shape_is_refused(edited, issue):
    change = issue.change()
    change["head.2.weight"] = change["head.2.weight"].T.copy()
    probe = np.zeros((1, 10), np.float32)
    message = refused(edited, *issue("me", change, probe, sequence=5), "slot.shape")
    assert "must have shape [10, 8], got [8, 10]" in message


def test_a_transposed_square_slot_is_caught_by_the_probe_and_may_not_come_back(edited, issue):
    """Its shape is right: only the probe, computed for the right edit, can tell."""
    change = issue.change()
    assert change["head.0.weight"].shape == (8, 8)
    probe = issue.output(change, edited.bundle.golden.inputs[0], None)
    transposed = {**change, "head.0.weight": change["head.0.weight"].T.copy()}
    data, signature = issue("me", transposed, probe, sequence=5)
    state, output, files = snapshot(edited)
    for code in ("probe.mismatch", "edit.replayed"):
        with pytest.raises(FormatError) as caught:
            edited.accept(data, signature)
        assert caught.value.code.value == code
        now = snapshot(edited)
        assert now[:2] == (state, output)
        assert {n: d for n, d in now[2].items() if n != "state.json"} == {
            n: d for n, d in files.items() if n != "state.json"
        }
    again = Device(edited.bundle, edited.store.folder)
    assert again.live.state.edit.info.sequence == 4


def test_a_flipped_bit_anywhere_in_the_edit_is_a_bad_signature(edited, issue):
    data, signature = issue("me", sequence=5)
    before = snapshot(edited)
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        with pytest.raises(FormatError) as caught:
            edited.accept(bytes(flipped), signature)
        assert caught.value.code.value == "edit.bad_signature"
    assert snapshot(edited) == before
    edited.accept(data, signature)


def test_a_flipped_bit_anywhere_in_the_signature_is_a_bad_signature(edited, issue):
    data, signature = issue("me", sequence=5)
    for place in range(8 * len(signature.der)):
        flipped = bytearray(signature.der)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(FormatError, match="ask again") as caught:
            edited.accept(data, Signature(signature.key_id, bytes(flipped)))
        assert caught.value.code.value == "edit.bad_signature"


def test_an_edit_signed_by_another_key_is_refused(edited, issue):
    data, signature = issue("me", sequence=5)
    stranger = SigningKey(ec.generate_private_key(ec.SECP256R1()))
    message = refused(edited, data, stranger.sign(data), "edit.unknown_key")
    assert "ask the right cloud" in message
    forged = Signature(signature.key_id, stranger.sign(data).der)
    assert "ask again" in refused(edited, data, forged, "edit.bad_signature")
    publisher = issue.run.bundle_key()
    refused(edited, data, publisher.sign(data), "edit.unknown_key")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda d: d[:-1], "container.out_of_bounds"),
        (lambda d: d + b"\0", "container.trailing_bytes"),
        (lambda d: d[:4], "container.truncated"),
        (lambda d: d + b"\0" * 200_000, "edit.too_large"),
        (
            lambda d: container.encode({"x": np.zeros(1, np.float32)}, {"format": "other/1"}),  # noqa: ARG005
            "edit.unknown_format",
        ),
    ],
)
def test_a_signed_file_that_is_no_edit_is_refused(edited, issue, spoil, code):
    data = spoil(issue("me", sequence=5)[0])
    refused(edited, data, issue.run.edit_key().sign(data), code)


# -- Good edits


def test_an_edit_over_http_becomes_active_and_survives_a_restart(
    digits_bundle, tmp_path, cloud_url, windows, digits_run
):
    phone = Device(digits_bundle, tmp_path / "phone")
    with CloudClient(cloud_url, digits_run.model) as cloud:
        first = phone.personalise(cloud, windows[0])
        second = phone.personalise(cloud, windows[1])
    for came in (first, second):
        assert isinstance(came.state, OnEdit)
        assert came.problem is None
        assert came.edit_bytes > 0
        assert came.edit_to_active_ms > 0
        assert came.round_trip_ms > 0
    assert [first.state.edit.info.sequence, second.state.edit.info.sequence] == [1, 2]
    assert not isinstance(phone.live.state, OnBase)
    again = Device(open_bundle(digits_bundle.path), tmp_path / "phone")
    assert snapshot(again)[1:] == snapshot(phone)[1:]
    phone.roll_back()
    fresh = Device(digits_bundle, tmp_path / "fresh")
    assert snapshot(phone)[1] == snapshot(fresh)[1]
    assert isinstance(Device(digits_bundle, tmp_path / "phone").live.state, OnBase)


def test_the_cloud_never_sees_more_than_the_newest_samples_that_the_bundle_asks_for(
    digits_bundle, digits_run, tmp_path, windows
):
    spec = replace(digits_bundle.manifest.observation, max_count=6)
    bundle = replace(digits_bundle, manifest=replace(digits_bundle.manifest, observation=spec))
    whole = Device(digits_bundle, tmp_path / "a").observe([windows[0][0][-6:]])
    newest = Device(bundle, tmp_path / "b").observe(windows[0])
    assert newest.count == 6
    np.testing.assert_array_equal(newest.vector(), whole.vector())
    assert digits_run.record.observation.max_count > 6


# -- The ladder without a cloud


@pytest.fixture
def nowhere():
    """A client of a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with CloudClient(f"http://127.0.0.1:{port}", "m", sleep=lambda _: None) as cloud:
        yield cloud


def test_without_a_cloud_the_last_edit_runs_on(edited, nowhere, windows):
    before = snapshot(edited)
    came = edited.personalise(nowhere, windows[0])
    assert "did not answer after 3 attempts" in came.problem
    assert snapshot(edited) == before
    assert came.state is before[0]


def test_without_a_cloud_and_an_edit_the_device_chooses_its_prototype(
    phone, nowhere, windows, digits_run, issue
):
    came = phone.personalise(nowhere, windows[0])
    vector = observation_vector(phone.bundle.manifest.observation, phone.observe(windows[0]))
    rule = digits_run.rule
    standard = ((vector - rule.mean.numpy()) / rule.deviation.numpy()).clip(-6, 6)
    best = int((rule.weight.numpy() @ standard + rule.bias.numpy()).argmax())
    assert came.state == OnPrototype(best)
    image = windows[1][0][:1]
    nothing = {name: np.zeros_like(value) for name, value in issue.change().items()}
    expected = issue.output(nothing, {"image": image}, best)
    np.testing.assert_allclose(phone.predict([image]), expected, atol=1e-5)


def _without_prototypes(bundle, run, resigned, out):
    manifest, golden = bundle.manifest, bundle.golden
    width = manifest.observation.width
    none = Prototypes((), *(np.zeros(s, np.float32) for s in (width, width, (0, width), 0)))
    ports = (manifest.slots, manifest.inputs, manifest.outputs[0], manifest.observation)
    files = {
        "prototypes.safetensors": encode_prototypes(manifest.slots, none),
        "golden.safetensors": encode_golden(*ports, replace(golden, prototypes=())),
    }
    return resigned(bundle, run, out, files, prototype_count=0)


def test_without_a_cloud_an_edit_and_prototypes_the_base_runs(
    digits_bundle, digits_run, resigned, tmp_path, nowhere, windows
):
    bundle = _without_prototypes(digits_bundle, digits_run, resigned, tmp_path / "bundle")
    phone = Device(bundle, tmp_path / "phone")
    assert isinstance(phone.personalise(nowhere, windows[0]).state, OnBase)
    assert isinstance(phone.live.state, OnBase)


def test_a_bundle_whose_prototype_does_not_hold_on_this_processor_does_not_start(
    digits_bundle, digits_run, resigned, tmp_path
):
    manifest, golden = digits_bundle.manifest, digits_bundle.golden
    wrong = tuple(tuple(o + np.float32(0.1) for o in outputs) for outputs in golden.prototypes)
    ports = (manifest.slots, manifest.inputs, manifest.outputs[0], manifest.observation)
    files = {"golden.safetensors": encode_golden(*ports, replace(golden, prototypes=wrong))}
    bundle = resigned(digits_bundle, digits_run, tmp_path / "bundle", files)
    with pytest.raises(FormatError, match="golden output 0"):
        Device(bundle, tmp_path / "phone")


def test_a_bundle_whose_observe_program_tells_something_else_does_not_start(
    digits_bundle, digits_run, resigned, tmp_path
):
    manifest, golden = digits_bundle.manifest, digits_bundle.golden
    wrong = tuple(f + np.float32(0.1) for f in golden.features)
    ports = (manifest.slots, manifest.inputs, manifest.outputs[0], manifest.observation)
    files = {"golden.safetensors": encode_golden(*ports, replace(golden, features=wrong))}
    bundle = resigned(digits_bundle, digits_run, tmp_path / "bundle", files)
    with pytest.raises(FormatError, match="golden features 0"):
        Device(bundle, tmp_path / "phone")


def test_a_clock_that_was_wrong_once_costs_no_edit(edited, monkeypatch):
    """Started in 1970 the device runs its prototype or base; with the clock set right, its edit."""
    state = edited.live.state
    assert isinstance(state, OnEdit)

    class Wrong(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(1970, 1, 2, tzinfo=tz)

    with monkeypatch.context() as clock:
        clock.setattr("persona.device.device.datetime", Wrong)
        early = Device(edited.bundle, edited.store.folder)
        assert not isinstance(early.live.state, OnEdit)
    again = Device(edited.bundle, edited.store.folder)
    assert isinstance(again.live.state, OnEdit)


def test_a_fault_of_the_runtime_during_a_swap_is_taken_back(edited, issue, monkeypatch):
    """Whatever the probe meets, an edit that is not proven does not stay."""
    before = edited.live.state

    def break_down(_index: int) -> None:
        raise RuntimeError("the runtime failed")

    with monkeypatch.context() as broken:
        broken.setattr(edited.live, "_run_golden", break_down)
        with pytest.raises(RuntimeError, match="the runtime failed"):
            edited.accept(*issue("me", sequence=99))
    assert edited.live.state is before


def test_an_expired_edit_runs_neither_on_nor_after_a_restart_its_prototype_does(
    digits_bundle, tmp_path, issue, nowhere, windows
):
    phones = [Device(digits_bundle, tmp_path / name) for name in ("running", "restarted")]
    soon = datetime.now(UTC) + timedelta(seconds=2)
    for phone in phones:
        phone.store.enrolled("me", "secret")
        phone.accept(*issue("me", prototype=1, issued_at=soon - DAY, expires_at=soon))
    time.sleep(max(0.0, (soon - datetime.now(UTC)).total_seconds()))
    running, restarted = phones
    assert isinstance(running.personalise(nowhere, windows[0]).state, OnPrototype)
    again = Device(digits_bundle, restarted.store.folder)
    assert again.live.state == OnPrototype(1)
    assert again.store.state.sequence == 1


@pytest.mark.parametrize(
    ("window", "says"),
    [
        (np.zeros((0, 1, 8, 8), np.float32), "0"),
        (np.zeros((2, 1, 8, 8), np.float32), "2"),
        (np.full((5, 1, 8, 8), np.nan, np.float32), "NaN or infinity"),
    ],
    ids=["empty", "too short", "NaN"],
)
def test_a_window_that_cannot_be_observed_asks_for_nothing(edited, nowhere, window, says):
    before = snapshot(edited)
    came = edited.personalise(nowhere, [window])
    assert says in came.problem
    assert "observation." in came.problem
    assert snapshot(edited) == before


def test_item_ids_that_the_catalogue_does_not_have_are_not_sent(sasrec_bundle, tmp_path, nowhere):
    phone = Device(sasrec_bundle, tmp_path / "phone")
    came = phone.personalise(nowhere, [np.array([1, 161], np.int64)])
    assert "item ids must be 1 to 160, got 1 to 161" in came.problem
    came = phone.personalise(nowhere, [np.array([1, 160], np.int64)])
    assert isinstance(came.state, OnPrototype)


# -- Who the device is


def test_a_token_that_the_cloud_no_longer_takes_is_cured_by_enrolling_anew(
    digits_bundle, digits_run, tmp_path, cloud_url, windows
):
    phone = Device(digits_bundle, tmp_path / "phone")
    with CloudClient(cloud_url, digits_run.model) as cloud:
        phone.personalise(cloud, windows[0])
        first = phone.store.state
        phone.store.enrolled(first.device, "no-such-token")
        came = phone.personalise(cloud, windows[0])
    assert came.problem is None
    assert isinstance(came.state, OnEdit)
    assert phone.store.state.token not in ("no-such-token", first.token, "")
    assert phone.store.state.device != first.device


def test_an_expired_token_is_renewed_and_the_device_stays_who_it_is(
    digits_bundle, digits_run, tmp_path, windows
):
    database = f"sqlite:///{tmp_path / 'cloud.sqlite'}"
    places = (digits_run.path, digits_bundle.path, database)
    phone = Device(digits_bundle, tmp_path / "phone")
    brief = CloudConfig(*places, token_lifetime=timedelta(0))
    with running(create_app(brief)) as url, CloudClient(url, digits_run.model) as cloud:
        phone.enrol(cloud)
        before, expired = phone.store.state.device, phone.store.state.token
        envelope = Envelope(digits_bundle.digest, phone.observe(windows[0]))
        with pytest.raises(CloudError) as caught:
            cloud.request_edit(expired, envelope)
        assert caught.value.code == "token.expired"
    lasting = create_app(CloudConfig(*places))
    with running(lasting) as url, CloudClient(url, digits_run.model) as cloud:
        came = phone.personalise(cloud, windows[0])
    assert isinstance(came.state, OnEdit)
    assert phone.store.state.token != expired
    assert phone.store.state.device == before


def test_a_device_enrols_once(digits_bundle, digits_run, tmp_path, cloud_url, nowhere):
    phone = Device(digits_bundle, tmp_path / "phone")
    with CloudClient(cloud_url, digits_run.model) as cloud:
        phone.enrol(cloud)
        known = phone.store.state
        phone.enrol(cloud)
    again = Device(digits_bundle, tmp_path / "phone")
    again.enrol(nowhere)
    assert again.store.state == known
    with pytest.raises(OfflineError):
        Device(digits_bundle, tmp_path / "new").enrol(nowhere)


def test_an_edit_that_expires_while_it_runs_gives_way_to_its_prototype(phone, issue, windows):
    """No prediction is made with an edit past its time, and no restart brings it back."""
    now = datetime.now(UTC).replace(microsecond=0)
    data, signature = issue(
        phone.store.state.device, prototype=1, issued_at=now, expires_at=now + timedelta(seconds=1)
    )
    phone.accept(data, signature)
    assert isinstance(phone.live.state, OnEdit)
    time.sleep(1.1)
    image = windows[0][0][:1]
    nothing = {name: np.zeros_like(value) for name, value in issue.change().items()}
    expected = issue.output(nothing, {"image": image}, 1)
    np.testing.assert_allclose(phone.predict([image]), expected, atol=1e-5)
    assert phone.live.state == OnPrototype(1)
    assert Device(phone.bundle, phone.store.folder).live.state == OnPrototype(1)


def test_an_edit_that_cannot_be_kept_is_taken_back(phone, issue, monkeypatch):
    """A full disk: what ran before runs on, now and after a restart."""
    before = snapshot(phone)

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("persona.durable.os.fsync", full)
    with pytest.raises(PlaceError, match="free some space"):
        phone.accept(*issue(phone.store.state.device))
    assert snapshot(phone) == before
