"""A device asks again where its window has drifted or its edit's time runs out, and seldom else."""

import math
import socket
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.data.base import Device as SeenByDevice
from persona.data.shifts import shift_images
from persona.device.client import CloudClient, OfflineError
from persona.device.device import Device, Personalisation
from persona.device.gate import Ask, AskReason, Stay, decide, drift
from persona.device.live import OnEdit, OnPrototype
from persona.formats.edit import EditInfo
from persona.formats.observation import ItemsObservation, ItemsSpec, PooledObservation, PooledSpec
from persona.training.devices import observe

ITEMS = ItemsSpec("items", 30, 1, 60)
POOLED = PooledSpec("pooled", 3, 4, 1, 5000, (0.25,) * 4)
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
WEEK = EditInfo("m", "b", "d", 1, None, NOW - timedelta(days=1), NOW + timedelta(days=6))

item_windows = st.lists(st.integers(1, 30), min_size=1, max_size=60)


def items(ids):
    return ItemsObservation(np.array(ids, np.int64))


def pooled(count, mean=(0, 0, 0), deviation=(1, 1, 1), mix=(0.25,) * 4):
    statistics = (np.array(values, np.float32) for values in (mean, deviation, mix, mix))
    return PooledObservation(count, *statistics, np.zeros((4, 3), np.float32))


@st.composite
def pooled_windows(draw):
    numbers = st.floats(-100, 100, width=32)
    triple = st.tuples(numbers, numbers, numbers)
    deviation = st.tuples(*[st.floats(2.0**-10, 100, width=32)] * 3)
    weights = draw(st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any))
    mix = tuple(weight / sum(weights) for weight in weights)
    return pooled(draw(st.integers(1, 5000)), draw(triple), draw(deviation), mix)


# -- The formula


def test_a_quarter_of_new_items_is_the_limit():
    told = items(range(1, 25))
    for new, expected in ((0, 0), (3, 0.5), (6, 1), (24, 4)):
        now = items([*range(1, 25 - new), *[30] * new])
        assert drift(ITEMS, told, now) == pytest.approx(expected, rel=1e-6)


@given(item_windows, item_windows)
def test_the_drift_of_items_is_that_of_exact_fractions(one, other):
    p, q = Counter(one), Counter(other)
    apart = sum(
        abs(Fraction(p[i], len(one)) - Fraction(q[i], len(other))) for i in range(1, 31)
    ) / Fraction(2)
    assert drift(ITEMS, items(one), items(other)) == pytest.approx(float(4 * apart), abs=1e-5)


@given(item_windows, item_windows, st.randoms())
def test_the_order_of_items_and_which_window_came_first_do_not_matter(one, other, random):
    found = drift(ITEMS, items(one), items(other))
    assert 0 <= found <= 4 + 1e-5
    assert drift(ITEMS, items(other), items(one)) == found
    random.shuffle(one)
    assert drift(ITEMS, items(one), items(other)) == found


@given(pooled_windows())
def test_a_window_has_not_drifted_from_itself(window):
    assert drift(POOLED, window, window) == 0


@given(pooled_windows(), pooled_windows())
def test_the_drift_of_statistics_is_that_of_plain_arithmetic(told, now):
    expected_by_chance = 1 / told.count + 1 / now.count
    squares = [
        (m - n) ** 2 / max((s**2 + t**2) / 2, 1e-12)
        for m, n, s, t in zip(
            *(x.tolist() for x in (told.mean, now.mean, told.deviation, now.deviation)), strict=True
        )
    ]
    shift = math.sqrt(max(0, math.fsum(squares) / 3 - 2 * expected_by_chance))
    p, q = told.class_prior.tolist(), now.class_prior.tolist()
    mixes = math.fsum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
    noise = math.fsum(math.sqrt(2 * expected_by_chance * a * (1 - a) / math.pi) for a in p) / 2
    expected = max(2 * shift, 4 * (mixes - 2 * noise))
    assert drift(POOLED, told, now) == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(pooled_windows(), pooled_windows(), st.integers(-8, 8))
def test_the_unit_in_which_features_are_measured_does_not_matter(told, now, power):
    def scaled(window):
        factor = np.float32(2.0**power)
        return replace(window, mean=window.mean * factor, deviation=window.deviation * factor)

    assert drift(POOLED, scaled(told), scaled(now)) == pytest.approx(drift(POOLED, told, now))


@given(pooled_windows(), pooled_windows(), st.integers(1, 5000))
def test_the_same_statistics_of_more_samples_have_not_drifted_less(told, now, more):
    longer = replace(now, count=now.count + more)
    assert drift(POOLED, told, longer) >= drift(POOLED, told, now)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (10, 200)])
def test_the_allowance_is_twice_what_simulated_windows_of_one_source_differ_by(n, m):
    """At the found drift of exactly nothing, the allowance is spent: so it can be read off."""
    random, mix = np.random.default_rng(3), np.array([0.4, 0.3, 0.2, 0.1])
    draws = [random.normal(0, 1, (4000, count)).mean(axis=1) for count in (n, m)]
    mean_square = np.square(draws[0] - draws[1]).mean()
    shares = [random.multinomial(count, mix, 4000) / count for count in (n, m)]
    variation = np.abs(shares[0] - shares[1]).sum(axis=1).mean() / 2

    shift = math.sqrt(2 * mean_square + 0.25)
    means = pooled(m, (shift, -shift, shift))
    assert drift(POOLED, pooled(n), means) == pytest.approx(1, abs=0.04)
    moved = mix + (2 * variation + 0.25) * np.array([-1, 0, 0, 1])
    mixes = drift(POOLED, pooled(n, mix=mix), pooled(m, mix=moved))
    assert mixes == pytest.approx(1, abs=0.04)


# -- What it decides


@pytest.mark.parametrize(
    ("left", "runs", "expected"),
    [
        (timedelta(days=7) / 10, True, Stay(0)),
        (timedelta(days=7) / 10 - timedelta(microseconds=1), True, Ask(AskReason.EXPIRING)),
        (timedelta(days=6), True, Stay(0)),
        (timedelta(days=6), False, Ask(AskReason.EXPIRING)),
        (-timedelta(days=6), False, Ask(AskReason.EXPIRING)),
    ],
)
def test_an_edit_is_renewed_in_the_last_tenth_of_its_time_or_when_it_does_not_run(
    left, runs, expected
):
    now = WEEK.expires_at - left
    assert decide(ITEMS, items([1]), items([1]), WEEK if runs else None, True, now) == expected


def test_without_an_edit_the_window_alone_decides():
    told = items([1, 2, 3, 4])
    assert decide(ITEMS, told, told, None, False, NOW) == Stay(0)
    assert decide(ITEMS, told, items([1, 2, 3, 3]), None, False, NOW) == Ask(AskReason.DRIFTED, 1)
    assert decide(ITEMS, None, told, None, False, NOW) == Ask(AskReason.NEVER_ASKED)


# -- Streams of digits


class Stream:
    """Endless windows of one simulated device, whose habits and look can be changed."""

    def __init__(self, run, data, seed, samples):
        self.run, self.data, self.samples = run, data, samples
        self.random = np.random.default_rng(seed)
        self.pool, self.labels = data.pools["test"], data.labels[data.pools["test"]]
        self.mix = data.shift.class_mix(self.random, 10)
        self.look = data.shift.looks(self.random, 1)

    def windows(self, count):
        share = self.mix[self.labels] / np.bincount(self.labels)[self.labels]
        seen = []
        for _ in range(count):
            chosen = self.random.choice(self.pool, self.samples, p=share / share.sum())
            looks = np.repeat(self.look, self.samples, axis=0)
            images = shift_images(self.data.images[chosen], looks, self.random)
            none = self.data.labels[:0]
            seen.append(SeenByDevice("stream", (images,), (images[:0],), none, none))
        return observe(self.run.backbone, self.run.record.observation, seen)

    def spec(self):
        return self.run.record.observation


def asked(spec, told, windows):
    """Which windows a device asks with that told `told` at first, and each that it asks with."""
    places = []
    for place, window in enumerate(windows):
        if isinstance(decide(spec, told, window, None, False, NOW), Ask):
            told = window
            places.append(place)
    return places


@pytest.fixture(scope="module")
def stream(run, data):
    return lambda seed, samples=60: Stream(run, data, seed, samples)


@pytest.mark.parametrize(("samples", "seldom"), [(20, 0.03), (60, 0.01)])
def test_two_hundred_windows_of_the_same_habits_hardly_ever_ask(stream, samples, seldom):
    again = 0
    for seed in range(5):
        same = stream(seed, samples)
        places = asked(same.spec(), None, same.windows(200))
        assert places[0] == 0
        again += len(places) - 1
    assert again <= seldom * 5 * 199


def test_changed_habits_or_another_look_ask_within_two_windows(stream):
    """What was seen most is seen least; or images are turned by 25 degrees, and paler."""
    for seed in range(5):
        for what in ("habits", "look"):
            changed = stream(seed)
            (told,) = changed.windows(1)
            if what == "habits":
                rarest_first = changed.mix.argsort()
                changed.mix[rarest_first] = changed.mix[rarest_first[::-1]]
            else:
                changed.look = changed.look + np.float32([25, -0.3, 0])
            places = asked(changed.spec(), told, changed.windows(10))
            assert places, f"device {seed} did not notice another {what}"
            assert places[0] <= 1
            assert len(places) <= 2


# -- A device with its gate


@pytest.fixture
def nowhere():
    """A client of a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with CloudClient(f"http://127.0.0.1:{port}", "m", sleep=lambda _: None) as cloud:
        yield cloud


@pytest.fixture
def asked_once(digits_bundle, digits_run, tmp_path, cloud_url, windows):
    """A device that told a cloud of its first window, and runs the edit for it."""
    phone = Device(digits_bundle, tmp_path / "asked-once")
    with CloudClient(cloud_url, digits_run.model) as cloud:
        came = phone.personalise_if_drifted(cloud, windows[0])
    assert isinstance(came.state, OnEdit)
    return phone


def elsewhere(window):
    """The same images, all of them turned inside out."""
    return [1 - window[0]]


def test_a_device_that_asked_asks_no_more_about_the_same_window_and_not_after_a_restart(
    asked_once, nowhere, windows
):
    for phone in (asked_once, Device(asked_once.bundle, asked_once.store.folder)):
        assert phone.personalise_if_drifted(nowhere, windows[0]) == Stay(0)
        assert isinstance(phone.live.state, OnEdit)


def test_a_device_whose_window_has_drifted_asks_and_has_then_told_of_that_one(
    asked_once, cloud_url, digits_run, windows
):
    now = elsewhere(windows[0])
    decision = asked_once.gate(asked_once.observe(now))
    assert decision.reason is AskReason.DRIFTED
    assert decision.drift > 1
    with CloudClient(cloud_url, digits_run.model) as cloud:
        came = asked_once.personalise_if_drifted(cloud, now)
        assert came.state.edit.info.sequence == 2
        assert asked_once.personalise_if_drifted(cloud, now) == Stay(0)
        came = asked_once.personalise_if_drifted(cloud, windows[0])
    assert came.state.edit.info.sequence == 3


def test_a_request_that_the_cloud_did_not_answer_has_told_it_nothing(
    asked_once, nowhere, windows, phone
):
    now = elsewhere(windows[0])
    for device, window, reason in (
        (asked_once, now, AskReason.DRIFTED),
        (phone, windows[0], AskReason.NEVER_ASKED),
    ):
        came = device.personalise_if_drifted(nowhere, window)
        assert "did not answer after 3 attempts" in came.problem
        assert device.gate(device.observe(window)).reason is reason
    assert isinstance(phone.live.state, OnPrototype)


def test_a_device_that_is_asked_by_hand_asks_all_the_same(
    asked_once, cloud_url, digits_run, windows
):
    with CloudClient(cloud_url, digits_run.model) as cloud:
        assert asked_once.personalise(cloud, windows[0]).state.edit.info.sequence == 2


def test_after_a_roll_back_the_base_runs_until_the_window_drifts(asked_once, nowhere, windows):
    asked_once.roll_back()
    assert asked_once.personalise_if_drifted(nowhere, windows[0]) == Stay(0)
    decision = asked_once.gate(asked_once.observe(elsewhere(windows[0])))
    assert decision.reason is AskReason.DRIFTED


def test_a_window_that_cannot_be_observed_is_not_asked_about(asked_once, nowhere, windows):
    came = asked_once.personalise_if_drifted(nowhere, [windows[0][0] * np.float32(np.nan)])
    assert isinstance(came, Personalisation)
    assert "NaN" in came.problem
    assert isinstance(came.state, OnEdit)


def test_an_edit_whose_time_runs_out_is_renewed_while_it_runs_and_afterwards(
    asked_once, issue, windows
):
    observation = asked_once.observe(windows[0])
    now = datetime.now(UTC).replace(microsecond=0)
    data, signature = issue(
        asked_once.store.state.device,
        sequence=9,
        issued_at=now - timedelta(seconds=97),
        expires_at=now + timedelta(seconds=3),
        prototype=1,
    )
    asked_once.accept(data, signature)
    assert asked_once.gate(observation) == Ask(AskReason.EXPIRING)
    assert isinstance(asked_once.live.state, OnEdit)
    wait = (now + timedelta(seconds=3.1) - datetime.now(UTC)).total_seconds()
    time.sleep(max(0, wait))
    assert asked_once.gate(observation) == Ask(AskReason.EXPIRING)
    assert asked_once.live.state == OnPrototype(1)
    again = Device(asked_once.bundle, asked_once.store.folder)
    assert again.gate(observation) == Ask(AskReason.EXPIRING)


def test_what_another_bundle_was_told_and_a_torn_file_are_nothing_told(asked_once, windows):
    observation = asked_once.observe(windows[0])
    told = asked_once.store.folder / "told.safetensors"
    assert told.stat().st_mode & 0o777 == 0o600
    other = Device(replace(asked_once.bundle, digest="ab" * 32), asked_once.store.folder)
    assert other.gate(observation) == Ask(AskReason.NEVER_ASKED)
    told.write_bytes(told.read_bytes()[:-1])
    assert asked_once.gate(observation) == Ask(AskReason.NEVER_ASKED)


def test_a_device_that_the_cloud_no_longer_knows_has_told_it_nothing(
    asked_once, cloud_url, digits_run, windows, monkeypatch
):
    """The cloud goes away just when the device must enrol anew."""

    def away():
        raise OfflineError("the cloud is away")

    asked_once.store.enrolled(asked_once.store.state.device, "no-such-token")
    with CloudClient(cloud_url, digits_run.model) as cloud:
        monkeypatch.setattr(cloud, "enrol", away)
        came = asked_once.personalise(cloud, windows[0])
    assert came.problem == "the cloud is away"
    observation = asked_once.observe(windows[0])
    assert asked_once.gate(observation) == Ask(AskReason.NEVER_ASKED)
