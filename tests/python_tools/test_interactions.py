"""Interaction logs become devices that leak nothing, and bad rows are named."""

import gzip
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from persona.data import DataError, Dataset, Device, datasets
from persona.data.drifting_interests import DriftingInterests, generate
from persona.data.interactions import Interactions, NextItem, Scenario, find_log

MOVIELENS = Path(__file__).parents[3] / "shared/data/movielens/ml100k_inter.csv.gz"
SPLITS = ("adapter", "validation", "test")


@pytest.fixture(scope="module")
def generated() -> DriftingInterests:
    return DriftingInterests(users=200, items=300, events=60)


def write_log(
    path: Path, rows: list[str], header: str = "user_id,item_id,rating,timestamp"
) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def plain_rows(users: int = 60, events: int = 20, items: int = 150) -> list[str]:
    """Each user meets `events` different items, one a second; ids are text."""
    return [
        f"u{u},i{(7 * u + 3 * e) % items},5,{1000 + e}" for u in range(users) for e in range(events)
    ]


def small(path: Path, **settings: object) -> Interactions:
    return Interactions(path, candidates=20, minimum=12, validation_share=0.1, **settings)


def events_of(path: Path) -> dict[str, list[tuple[float, str]]]:
    """An independent reading of the file: user -> (time, item), in time."""
    events: dict[str, list[tuple[float, str]]] = {}
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    header, *lines = text.decode().split()
    user, item, moment = map(header.split(",").index, ("user_id", "item_id", "timestamp"))
    for line in lines:
        fields = line.split(",")
        events.setdefault(fields[user], []).append((float(fields[moment]), fields[item]))
    return {u: sorted(e) for u, e in events.items()}


def positives(device: Device) -> list[int]:
    return device.queries[1][np.arange(len(device.targets)), device.targets].tolist()


def same(one: Device, other: Device) -> bool:
    arrays = (
        zip((*d.window, *d.queries, d.targets), (*o.window, *o.queries, o.targets), strict=True)
        for d, o in [(one, other)]
    )
    return one.name == other.name and all(np.array_equal(a, b) for a, b in next(arrays))


# What a device is


@pytest.mark.parametrize("split", SPLITS)
def test_no_query_item_and_no_session_item_is_in_the_window(generated, split):
    for device in generated.devices(split, 100, seed=0):
        window = set(device.window[0].tolist())
        histories, candidates = device.queries
        assert window.isdisjoint(histories.ravel().tolist())
        assert window.isdisjoint(positives(device))
        assert window.isdisjoint(candidates.ravel().tolist())


def test_windows_sessions_and_targets_follow_the_file_in_time(tmp_path):
    path = write_log(tmp_path / "log.csv", plain_rows())
    data = small(path, queries=4, session=3, history=6)
    events = events_of(path)
    devices = [d for split in SPLITS for d in data.devices(split, 1000, seed=0)]
    assert {d.name.partition("@")[0] for d in devices} < set(events)
    for device in devices:
        name, _, cut = device.name.partition("@")
        items = [item for _, item in events[name]]
        before = int(cut) if cut else len(items) - 3 - 4
        seen = [data.item_names[i - 1] for i in device.window[0]]
        assert seen == items[max(0, before - 6) : before]
        assert [data.item_names[i - 1] for i in positives(device)] == items[before + 3 :][:4]
        for query, history in enumerate(device.queries[0]):
            assert (history[:-3] == 0).all()
            assert [data.item_names[i - 1] for i in history[-3:]] == items[before + query :][:3]


def test_only_the_last_session_items_of_a_history_are_filled():
    data = DriftingInterests(users=100, events=40, session=1, length=4)
    for device in data.devices("test", 10, seed=0):
        assert ((device.queries[0] > 0) == [False, False, False, True]).all()
    (histories, _), _ = data.batch(np.random.default_rng(0), 64)
    assert ((histories > 0) == [False, False, False, True]).all()


@pytest.mark.parametrize("split", SPLITS)
def test_negatives_are_distinct_and_never_met(tmp_path, split):
    path = write_log(tmp_path / "log.csv", plain_rows(items=60))
    data = small(path)
    events = events_of(path)
    for device in data.devices(split, 100, seed=0):
        met = {item for _, item in events[device.name.partition("@")[0]]}
        for candidates, target in zip(device.queries[1], device.targets, strict=True):
            items = [data.item_names[i - 1] for i in candidates]
            assert len(set(items)) == 20
            assert met & set(items) == {items[target]}


def test_negatives_of_a_batch_are_distinct_and_never_met_even_in_a_tiny_catalogue():
    met: dict[int, set[int]] = {}
    log = generate(80, 60, 12, 40, 1.5, 0.01, 2.0, 0)
    data = NextItem(log, Scenario(candidates=20))
    for user, item in zip(log.users, log.items, strict=True):
        met.setdefault(int(user), set()).add(int(item))
    (histories, candidates), targets = data.batch(np.random.default_rng(0), 500)
    for history, row, target in zip(histories, candidates, targets, strict=True):
        assert len(set(row.tolist())) == 20
        negatives = set(row.tolist()) - {int(row[target])}
        seen = {int(row[target]), *history[history > 0].tolist()}
        assert any(seen <= items and not negatives & items for items in met.values())


def test_negatives_are_uniform_over_the_items_a_user_has_not_met(tmp_path):
    rows = [f"u{u},i{e},0,{e}" for u in range(60) for e in range(20)]
    rows += [f"rare,i{e},0,{e}" for e in range(20, 60)]
    data = small(write_log(tmp_path / "log.csv", rows))
    (_, candidates), targets = data.batch(np.random.default_rng(0), 4000)
    negatives = np.ones(candidates.shape, bool)
    negatives[np.arange(4000), targets] = False
    counts = np.bincount(candidates[negatives], minlength=61)
    unmet = [i + 1 for i, name in enumerate(data.item_names) if int(name[1:]) >= 20]
    assert counts.sum() == counts[unmet].sum() == 4000 * 19
    # The standard deviation of a count is about 31.
    assert np.abs(counts[unmet] - 1900).max() < 5 * 31


def test_the_right_item_is_anywhere_among_the_candidates(generated):
    _, targets = generated.batch(np.random.default_rng(0), 5000)
    assert np.bincount(targets, minlength=100).min() > 20


def test_all_devices_of_a_call_have_equally_many_queries_of_the_asked_shape(generated):
    for split in SPLITS:
        for device in generated.devices(split, 50, seed=0):
            assert device.queries[0].shape == (5, 10)
            assert device.queries[1].shape == (5, 100)
            assert device.targets.shape == (5,)
            assert 1 <= len(device.window[0]) <= 100
            assert {a.dtype for a in (*device.window, *device.queries)} == {np.dtype(np.int64)}


# Splits and seeds


def test_no_user_is_in_two_splits_and_devices_come_from_their_own(generated):
    names = generated.split_names()
    assert all(set(names[a]).isdisjoint(names[b]) for a, b in combinations(names, 2))
    for split in SPLITS:
        devices = generated.devices(split, 10_000, seed=0)
        assert {d.name.partition("@")[0] for d in devices} == set(names[split])


def test_a_user_stays_in_its_split_when_more_users_come(tmp_path):
    few = small(write_log(tmp_path / "few.csv", plain_rows(users=60))).split_names()
    many = small(write_log(tmp_path / "many.csv", plain_rows(users=90))).split_names()
    assert all(set(few[split]) <= set(many[split]) for split in few)


def test_batches_come_from_backbone_users_alone(tmp_path):
    rows = [f"u{u},i{20 * u + e},0,{e}" for u in range(60) for e in range(20)]
    data = small(write_log(tmp_path / "log.csv", rows))
    owners = {f"i{20 * u + e}": f"u{u}" for u in range(60) for e in range(20)}
    names = data.split_names()

    def users(inputs: tuple[np.ndarray, ...], targets: np.ndarray) -> set[str]:
        right = inputs[1][np.arange(len(targets)), targets]
        return {owners[data.item_names[i - 1]] for i in (*right, *inputs[0][inputs[0] > 0])}

    assert users(*data.batch(np.random.default_rng(0), 2000)) == set(names["backbone"])
    assert users(*data.held_out()) == set(names["validation"])


def test_batches_hold_every_position_of_a_history(tmp_path):
    rows = [f"u{u},i{20 * u + e},0,{e}" for u in range(60) for e in range(20)]
    data = small(write_log(tmp_path / "log.csv", rows))
    inputs, targets = data.batch(np.random.default_rng(0), 5000)
    right = inputs[1][np.arange(5000), targets]
    places = [int(data.item_names[i - 1][1:]) % 20 for i in right]
    assert set(places) == set(range(1, 20))
    filled = (inputs[0] > 0).sum(1)
    assert (filled == np.minimum(places, 3)).all()


def test_the_same_seed_gives_the_same_devices_and_another_seed_others(generated):
    for split in SPLITS:
        one = generated.devices(split, 20, seed=3)
        again = DriftingInterests(users=200, items=300, events=60).devices(split, 20, seed=3)
        other = generated.devices(split, 20, seed=4)
        assert all(same(a, b) for a, b in zip(one, again, strict=True))
        assert not any(same(a, b) for a, b in zip(one, other, strict=False))


def test_names_are_unique_and_fewer_devices_are_the_first_of_more(generated):
    for split in SPLITS:
        every = generated.devices(split, 10_000, seed=0)
        assert len({d.name for d in every}) == len(every)
        assert all(map(same, generated.devices(split, 7, seed=0), every[:7]))


def test_adapter_users_come_at_several_moments_once_all_have_come():
    data = DriftingInterests(users=100, events=60, moments=8)
    users = len(data.split_names()["adapter"])
    first = data.devices("adapter", users, seed=0)
    assert len({d.name.partition("@")[0] for d in first}) == users
    assert len(data.devices("adapter", 10_000, seed=0)) == 8 * users


def test_the_held_out_set_is_fixed(generated):
    (h, c), t = generated.held_out()
    (h2, c2), t2 = generated.held_out()
    assert len(t) > 100
    assert np.array_equal(h, h2)
    assert np.array_equal(c, c2)
    assert np.array_equal(t, t2)


# Reading files


def test_the_order_of_rows_and_foreign_columns_do_not_matter(tmp_path):
    rows = plain_rows()
    one = small(write_log(tmp_path / "one.csv", rows))
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    moved = [",".join(reversed(row.split(","))) for row in shuffled]
    other = small(write_log(tmp_path / "two.csv", moved, "timestamp,rating,item_id,user_id"))
    for split in SPLITS:
        pairs = zip(one.devices(split, 9, seed=0), other.devices(split, 9, seed=0), strict=True)
        assert all(same(a, b) for a, b in pairs)


def test_items_of_equal_times_are_not_ordered_as_in_the_file(tmp_path):
    rows = [f"u{u},i{100 + u + e},0,77" for u in range(60) for e in range(40)]
    data = small(write_log(tmp_path / "log.csv", rows))
    steps = [(np.diff(device.window[0]) > 0).mean() for device in data.devices("test", 100, seed=0)]
    assert 0.4 < np.mean(steps) < 0.6


def test_columns_can_have_other_names_and_a_folder_one_compressed_file(tmp_path):
    rows = plain_rows()
    plain = small(write_log(tmp_path / "plain.csv", rows))
    folder = tmp_path / "folder"
    folder.mkdir()
    with gzip.open(folder / "log.csv.gz", "wt") as file:
        file.write("\n".join(["who,what,stars,when", *rows]))
    named = small(folder, user="who", item="what", time="when")
    assert named.fingerprint() == plain.fingerprint()
    assert named.backbone_settings() == plain.backbone_settings() == {"items": 150, "length": 10}


def test_repeated_events_are_dropped_and_counted(tmp_path):
    rows = plain_rows()
    again = [row.rsplit(",", 1)[0] + ",5000" for row in rows[:30]]
    one = small(write_log(tmp_path / "one.csv", rows))
    other = small(write_log(tmp_path / "two.csv", rows + again))
    assert other.left_out["repeated events"] == 30
    pairs = zip(one.devices("test", 9, seed=0), other.devices("test", 9, seed=0), strict=True)
    assert all(same(a, b) for a, b in pairs)


def test_users_with_few_events_are_left_out_and_counted_but_their_items_stay(tmp_path):
    rows = [*plain_rows(), *(f"short,only{e},1,{e}" for e in range(11))]
    data = small(write_log(tmp_path / "log.csv", rows))
    assert data.left_out["users with too few events"] == 1
    assert "short" not in {name for split in data.split_names().values() for name in split}
    assert "only0" in data.item_names
    assert "1 users with too few events" in data.summary()


def test_a_few_bad_rows_are_left_out_and_named_by_line(tmp_path):
    rows = plain_rows()
    rows[3] = "u0,,5,1003"
    rows[9] = "u0,i27,5,yesterday"
    rows[11] = "u0"
    rows[12] = "u0,i36,5,nan"
    data = small(write_log(tmp_path / "log.csv", rows), bad_rows=0.01)
    assert data.faults == (
        "line 5: item_id is missing",
        "line 11: timestamp should be a number, is 'yesterday'",
        "line 13: item_id is missing",
        "line 14: timestamp should be a number, is 'nan'",
    )
    assert data.left_out["unusable rows"] == 4


def test_too_many_bad_rows_are_refused_with_their_lines_and_the_way_out(tmp_path):
    rows = plain_rows()
    rows[3], rows[4] = "u0,i9,5,", "u0,i12,5,x"
    path = write_log(tmp_path / "log.csv", rows)
    with pytest.raises(DataError) as caught:
        small(path)
    message = str(caught.value)
    assert "2 of 1200 rows" in message
    assert "line 5: timestamp is missing; line 6: timestamp should be a number, is 'x'" in message
    assert "raise bad_rows" in message


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path):
    path = write_log(tmp_path / "log.csv", plain_rows(), "user_id,movie,rating,timestamp")
    with pytest.raises(DataError, match=r"no column item_id; its columns are user_id, movie"):
        Interactions(path)


@pytest.mark.parametrize("text", ["", "user_id,item_id,timestamp\n"])
def test_an_empty_file_is_refused(tmp_path, text):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(DataError, match=r"has no column|no rows"):
        Interactions(tmp_path / "log.csv")


def test_a_folder_must_hold_exactly_one_log(tmp_path):
    with pytest.raises(DataError, match=r"found none"):
        find_log(tmp_path)
    write_log(tmp_path / "a.csv", [])
    assert find_log(tmp_path) == tmp_path / "a.csv"
    write_log(tmp_path / "b.csv", [])
    with pytest.raises(DataError, match=r"found a\.csv, b\.csv"):
        find_log(tmp_path)


@pytest.mark.parametrize("root", [None, Path("nowhere.csv")])
def test_a_root_is_needed(root):
    with pytest.raises(DataError, match="need a root"):
        Interactions(root)


def test_too_few_users_are_refused_with_what_was_left_out(tmp_path):
    path = write_log(tmp_path / "log.csv", plain_rows(users=3))
    with pytest.raises(DataError, match=r"no users for .*: 3 of 3 can be used"):
        small(path)


def test_users_who_met_nearly_everything_are_left_out(tmp_path):
    rows = [*plain_rows(), *(f"glutton,i{e},1,{e}" for e in range(140))]
    data = small(write_log(tmp_path / "log.csv", rows))
    assert data.left_out["users with too few unmet items"] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"session": 11}, r"session must be 1 to length \(10\), got 11"),
        ({"session": 0}, "got 0"),
        ({"minimum": 8}, r"must exceed session \+ queries = 8, got 8"),
        ({"backbone_share": 0.8}, "leave some for testing"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(DataError, match=message):
        Scenario(**settings)


def test_the_fingerprint_changes_with_any_value_that_is_read_and_with_no_other(tmp_path):
    rows = plain_rows()

    def fingerprint(row: str) -> str:
        return small(write_log(tmp_path / "log.csv", [row, *rows[1:]])).fingerprint()

    first = fingerprint(rows[0])
    assert rows[0] == "u0,i0,5,1000"
    assert fingerprint("u0,i0,4,1000") == first
    assert len(first) == 64
    changed = {fingerprint(row) for row in ("u0,i0,5,999", "u0,i1,5,1000", "u1,i0,5,1000")}
    assert len(changed | {first}) == 4


# The generated log and the real one


def test_both_are_registered_and_only_files_need_a_root():
    assert datasets["interactions"] is Interactions
    assert datasets["drifting-interests"] is DriftingInterests
    assert Interactions.needs_root
    assert not DriftingInterests.needs_root


def test_the_generated_log_is_quick_and_repeatable():
    start = time.process_time()
    one = DriftingInterests()
    assert time.process_time() - start < 5
    assert one.fingerprint() == DriftingInterests().fingerprint()
    assert one.fingerprint() != DriftingInterests(generator_seed=1).fingerprint()


def cluster_rank(devices: list[Device], clusters: int, *, window: bool) -> float:
    """Mean rank, 0 to 1, of the right candidate by how often its cluster was met."""
    ranks = []
    for device in devices:
        for query, (history, candidates) in enumerate(zip(*device.queries, strict=True)):
            seen = device.window[0] if window else history[history > 0]
            met = np.bincount((seen - 1) % clusters, minlength=clusters)
            scores = met[(candidates - 1) % clusters]
            right = scores[device.targets[query]]
            ranks.append(((scores > right).sum() + 0.5 * ((scores == right).sum() - 1)) / 99)
    return float(np.mean(ranks))


def test_in_the_generated_log_a_history_tells_more_than_a_session():
    data = DriftingInterests(chain=0.0)
    devices = data.devices("adapter", 300, seed=0)
    session = cluster_rank(devices, 16, window=False)
    history = cluster_rank(devices, 16, window=True)
    moved = [
        Device(d.name, other.window, d.queries, d.targets)
        for d, other in zip(devices, devices[1:] + devices[:1], strict=True)
    ]
    assert history < session - 0.02 < 0.5
    assert cluster_rank(moved, 16, window=True) > session


def test_interests_drift_in_the_generated_log():
    log = generate(300, 1000, 10, 100, 2.0, 0.03, 0.0, 0)
    clusters = np.full((300, 100), -1)
    clusters[log.users, log.times.astype(int)] = (log.items - 1) % 10

    def agreement(apart: int) -> float:
        return float((clusters[:, :10] == clusters[:, apart : apart + 10]).mean())

    assert agreement(1) > agreement(20) + 0.03 > agreement(40) + 0.05


def test_the_generated_catalogue_has_a_long_tail():
    log = generate(600, 300, 12, 80, 1.5, 0.01, 2.0, 0)
    counts = np.sort(np.bincount(log.items, minlength=301)[1:])[::-1]
    assert counts[:30].mean() > 3 * counts[-100:].mean()


@pytest.mark.skipif(not MOVIELENS.exists(), reason=f"MovieLens-100k is not there: {MOVIELENS}")
def test_movielens_100k_is_read_whole():
    data: Dataset = Interactions(MOVIELENS)
    assert data.backbone_settings() == {"items": 1682, "length": 10}
    assert sum(len(users) for users in data.split_names().values()) == 943
    assert set(data.left_out.values()) == {0}
    events = events_of(MOVIELENS)
    for device in data.devices("test", 200, seed=0):
        times = {item: moment for moment, item in events[device.name]}
        window = [times[data.item_names[i - 1]] for i in device.window[0]]
        targets = [times[data.item_names[i - 1]] for i in positives(device)]
        assert window == sorted(window)
        assert targets == sorted(targets)
        assert window[-1] <= targets[0]
        assert len(device.window[0]) == min(100, len(times) - 8)
