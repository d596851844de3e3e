"""What a device sees and is asked: a new session, a stale window, a split in time, all items."""

from pathlib import Path

import numpy as np
import pytest

from persona.data import DataError, Device
from persona.data.drifting_interests import DriftingInterests
from persona.data.interactions import Interactions
from persona.data.next_item import NextItem, Scenario

SPLITS = ("adapter", "validation", "test")
USERS, EVENTS, ITEMS = 80, 24, 150


def write_log(path: Path) -> Path:
    """User u meets 24 items, the e-th at time 100 e + u."""
    rows = [
        f"u{u},i{(7 * u + 3 * e) % ITEMS},{100 * e + u}"
        for u in range(USERS)
        for e in range(EVENTS)
    ]
    path.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    return path


@pytest.fixture
def log(tmp_path) -> Path:
    return write_log(tmp_path / "log.csv")


def read(log: Path, **settings: object) -> Interactions:
    return Interactions(log, **{"candidates": 20, "minimum": 12, "queries": 2, **settings})


def events_of(device: Device) -> list[tuple[str, int]]:
    """(item, time) of the device's user, as `write_log` writes them."""
    u = int(device.name.partition("@")[0][1:])
    return [(f"i{(7 * u + 3 * e) % ITEMS}", 100 * e + u) for e in range(EVENTS)]


def seen(data: NextItem, device: Device) -> list[str]:
    return [data.item_names[i - 1] for i in device.window[0]]


def asked(data: NextItem, device: Device) -> list[str]:
    right = device.queries[1][np.arange(len(device.targets)), device.targets]
    return [data.item_names[i - 1] for i in right]


def sessions(data: NextItem, device: Device) -> list[list[str]]:
    return [[data.item_names[i - 1] for i in row[row > 0]] for row in device.queries[0]]


# Staleness


@pytest.mark.parametrize("staleness", [0, 1, 7])
@pytest.mark.parametrize("queries", [1, 3])
def test_a_window_ends_so_many_items_before_the_first_query(log, staleness, queries):
    data = read(log, staleness=staleness, queries=queries, session=2, history=9, minimum=14)
    for split in SPLITS:
        for device in data.devices(split, 200, 0):
            items = [item for item, _ in events_of(device)]
            first = items.index(asked(data, device)[0])
            assert asked(data, device) == items[first : first + queries]
            end = first - staleness
            assert seen(data, device) == items[max(0, end - 9) : end]
            for query, session in enumerate(sessions(data, device)):
                assert session == items[first + query - 2 : first + query]
            if split != "adapter":
                assert first == EVENTS - queries


def test_a_staleness_of_a_session_is_a_new_session(log):
    one, other = read(log, session=4), read(log, session=4, staleness=4)
    for split in SPLITS:
        for a, b in zip(one.devices(split, 99, 0), other.devices(split, 99, 0), strict=True):
            assert a.name == b.name
            assert np.array_equal(a.window[0], b.window[0])
            assert np.array_equal(a.queries[1], b.queries[1])


def test_the_shortest_allowed_history_leaves_a_window_of_one_item(log):
    data = read(log, staleness=7, queries=2, minimum=10)
    lengths = {len(d.window[0]) for d in data.devices("adapter", 10_000, 0)}
    assert min(lengths) == 1


# A split in time

SPLIT = 100 * 15
"""Users have 15 events before it, and 9 from it on; that of user 0 at event 15 is on the dot."""


def test_the_backbone_trains_on_nothing_from_the_split_on(tmp_path):
    """Items are each user's own, so that an item tells whose event it is, and which."""
    rows = [f"u{u},u{u}-{e},{100 * e + u}" for u in range(USERS) for e in range(EVENTS)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    data = read(path, split_time=SPLIT)
    names = data.split_names()
    drawn = {
        "backbone": data.batch(np.random.default_rng(0), 5000),
        "validation": data.held_out(),
    }
    for split, ((history, candidates), targets) in drawn.items():
        right = candidates[np.arange(len(targets)), targets]
        events = {data.item_names[i - 1] for i in (*right, *history[history > 0])}
        assert {event.partition("-")[0] for event in events} == set(names[split])
        # User 0's event at 15 is on the dot, so it is late; the last early one is the 14th.
        assert {int(event.partition("-")[2]) for event in events} == set(range(15))


def test_windows_end_and_queries_begin_at_the_split_exactly(log):
    data = read(log, split_time=SPLIT, session=2, history=6, minimum=10)
    for split in ("validation", "test"):
        devices = data.devices(split, 200, 0)
        assert {d.name for d in devices} == set(data.split_names()[split])
        for device in devices:
            early = [item for item, moment in events_of(device) if moment < SPLIT]
            later = [item for item, moment in events_of(device) if moment >= SPLIT]
            assert seen(data, device) == early[-6:]
            assert asked(data, device) == later[:2]
            assert sessions(data, device)[0] == early[-2:]
    stale = read(log, split_time=SPLIT, staleness=3, history=6, minimum=10)
    for device in stale.devices("test", 200, 0):
        early = [item for item, moment in events_of(device) if moment < SPLIT]
        assert seen(stale, device) == early[-9:-3]


def test_adapter_devices_lie_before_the_split_with_all_they_are_asked(log):
    data = read(log, split_time=SPLIT, minimum=6)
    devices = data.devices("adapter", 10_000, 0)
    assert len(devices) > 5 * len(data.split_names()["adapter"])
    for device in devices:
        early = {item for item, moment in events_of(device) if moment < SPLIT}
        assert {*seen(data, device), *asked(data, device)} <= early
        assert set(seen(data, device)).isdisjoint(asked(data, device))


def test_training_ranks_no_item_that_nobody_met_before_the_split(tmp_path):
    """New items come from the split on: they are asked about, and train nobody as negatives."""
    rows = [
        f"u{u},{'new' if e >= 15 else 'old'}{(7 * u + 3 * e) % 120},{100 * e + u}"
        for u in range(USERS)
        for e in range(EVENTS)
    ]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    data = read(path, split_time=SPLIT)
    new = {i for i, name in enumerate(data.item_names, 1) if name.startswith("new")}
    assert new
    rng = np.random.default_rng(0)
    taught = [d.queries[1] for d in data.devices("adapter", 100, 0)]
    for candidates in (data.batch(rng, 500)[0][1], data.held_out()[0][1], *taught):
        assert new.isdisjoint(candidates.ravel().tolist())
    for device in data.devices("test", 100, 0):
        assert all(name.startswith("new") for name in asked(data, device))
        right = device.queries[1][np.arange(len(device.targets)), device.targets]
        assert (new & set(device.queries[1].ravel().tolist())) - set(right.tolist())


def test_users_without_enough_on_either_side_of_the_split_are_left_out_and_counted(tmp_path):
    rows = write_log(tmp_path / "log.csv").read_text().splitlines()
    late = [f"late{n},i{e},{SPLIT + e}" for n in range(30) for e in range(20)]
    early = [f"early{n},i{e},{e}" for n in range(30) for e in range(20)]
    scarce = [f"scarce{n},i{e},{SPLIT - 9 + e}" for n in range(30) for e in range(20)]
    (tmp_path / "log.csv").write_text("\n".join([*rows, *late, *early, *scarce]))
    data = read(tmp_path / "log.csv", split_time=SPLIT)
    names = {split: set(users) for split, users in data.split_names().items()}
    everyone = set().union(*names.values())
    assert not any(name.startswith(("late", "scarce")) for name in everyone)
    assert data.left_out["users with too few events before split_time"] == 60
    # Who leaves early can still teach the backbone and the adapter, and has no queries.
    gone = {f"early{n}" for n in range(30)}
    assert gone & names["backbone"]
    assert not gone & (names["validation"] | names["test"])
    left = data.left_out["users with too few events after split_time"]
    assert left == len(gone - everyone) > 0


def test_a_date_is_the_same_as_its_seconds(log):
    one = read(log, split_time="1970-01-01 00:25:00").devices("test", 9, 0)
    other = read(log, split_time=1500).devices("test", 9, 0)
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.window[0], b.window[0])
        assert np.array_equal(a.queries[1], b.queries[1])


def test_a_split_that_leaves_no_queries_says_so(log):
    with pytest.raises(DataError, match=r"no users for validation, test: .*or split_time"):
        read(log, split_time="2014-01-01")


# All items


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_full_ranking_has_every_unmet_item_once_and_zeros_at_the_end(tmp_path, split):
    rows = write_log(tmp_path / "log.csv").read_text().splitlines()
    rows += [f"u{u},extra{e},{50 * e}" for u in range(0, USERS, 3) for e in range(u % 7)]
    (tmp_path / "log.csv").write_text("\n".join(rows))
    data = read(tmp_path / "log.csv", full_ranking=True)
    met = {f"u{u}": {f"i{(7 * u + 3 * e) % ITEMS}" for e in range(EVENTS)} for u in range(USERS)}
    for u in range(0, USERS, 3):
        met[f"u{u}"] |= {f"extra{e}" for e in range(u % 7)}
    devices = data.devices(split, 200, 0)
    padded = 0
    for device in devices:
        assert device.queries[1].shape == devices[0].queries[1].shape
        for row, target in zip(device.queries[1], device.targets, strict=True):
            size = int((row > 0).sum())
            assert (row[:size] > 0).all()
            assert target < size
            names = [data.item_names[i - 1] for i in row[:size]]
            unmet = set(data.item_names) - met[device.name]
            assert len(names) == len(set(names))
            assert set(names) == unmet | {names[target]}
            assert names[target] in met[device.name]
            padded += size < len(row)
    assert padded > 0


def test_in_a_full_ranking_the_target_is_anywhere_and_training_is_sampled():
    data = DriftingInterests(users=400, items=120, candidates=20, full_ranking=True)
    devices = data.devices("test", 10_000, 0)
    places = np.concatenate([d.targets for d in devices])
    assert 0.35 < (places < devices[0].queries[1].shape[1] / 2).mean() < 0.65
    assert data.devices("adapter", 3, 0)[0].queries[1].shape == (5, 20)
    assert data.held_out()[0][1].shape[1] == 20
    sampled = DriftingInterests(users=400, items=120, candidates=20).devices("test", 10_000, 0)
    for a, b in zip(devices, sampled, strict=True):
        assert a.name == b.name
        assert np.array_equal(a.window[0], b.window[0])
        right = [d.queries[1][np.arange(5), d.targets] for d in (a, b)]
        assert np.array_equal(*right)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"staleness": -1}, "staleness must be 0 or more, got -1"),
        ({"staleness": 11}, r"minimum must exceed staleness \+ queries = 16, got 16"),
        ({"split_time": "last week"}, "unix seconds or an ISO date such as 2014-01-31"),
        ({"split_time": "nan"}, "unix seconds or an ISO date"),
        ({"queries": 0}, "queries must be 1 or more, got 0"),
        ({"history": 0}, "history must be 1 or more, got 0"),
        ({"candidates": 1}, "candidates must be 2 or more, got 1"),
        ({"moments": 0}, "moments must be 1 or more, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        Scenario(**settings)
