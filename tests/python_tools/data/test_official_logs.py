"""Public logs are read in the formats that their publishers chose, and bad rows are named."""

import gzip
import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import packs
import pyarrow as pa
import pyarrow.parquet
import pytest

from persona.data import DataError, datasets
from persona.data.amazon_reviews import AmazonReviews, edition_of
from persona.data.douban import Douban
from persona.data.interaction_log import Columns, Log, ReadLog, k_core, make_log
from persona.data.interactions import Interactions, read_log
from persona.data.movielens import MovieLens
from persona.data.next_item import NextItem
from persona.data.rows import read_json_lines, unix_seconds

Event = packs.Event
SETTINGS = {"candidates": 20, "minimum": 12}


def events(users: int = 60, each: int = 20, items: int = 150) -> list[Event]:
    """(user, item, time), each user meeting different items, one a second, in shuffled order."""
    rows = [
        (str(u), str((7 * u + 3 * e) % items), 1000 + e) for u in range(users) for e in range(each)
    ]
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]


def histories(rows: list[Event]) -> dict[str, list[str]]:
    """An independent ordering: user -> items in time."""
    found: dict[str, list[tuple[int, str]]] = {}
    for user, item, moment in rows:
        found.setdefault(user, []).append((moment, item))
    return {user: [item for _, item in sorted(met)] for user, met in found.items()}


def in_order(data: NextItem) -> dict[str, list[str]]:
    """user -> items in time, as the devices of validation and test show them."""
    found = {}
    for split in ("validation", "test"):
        for device in data.devices(split, 10**6, 0):
            histories_, candidates = device.queries
            right = candidates[np.arange(len(device.targets)), device.targets]
            session = histories_[0][histories_[0] > 0]
            ids = [*device.window[0], *session, *right]
            found[device.name] = [data.item_names[i - 1] for i in ids]
    return found


def agrees(data: NextItem, rows: list[Event]) -> None:
    found, expected = in_order(data), histories(rows)
    assert len(found) > 5
    for user, items in found.items():
        assert items == expected[user]


# MovieLens


def write_u_data(path: Path, rows: list[Event]) -> None:
    path.write_text("".join(f"{u}\t{i}\t4\t{t}\n" for u, i, t in rows))


def write_ratings_dat(path: Path, rows: list[Event]) -> None:
    path.write_text("".join(f"{u}::{i}::4.5::{t}\n" for u, i, t in rows))


def write_ratings_csv(path: Path, rows: list[Event]) -> None:
    lines = "".join(f"{u},{i},4.5,{t}\r\n" for u, i, t in rows)
    path.write_bytes(f"userId,movieId,rating,timestamp\r\n{lines}".encode())


WRITERS = {
    "u.data": write_u_data,
    "ratings.dat": write_ratings_dat,
    "ratings.csv": write_ratings_csv,
}


@pytest.mark.parametrize("name", WRITERS)
def test_movielens_is_read_from_its_folder_or_file_in_every_official_format(tmp_path, name):
    rows = events()
    (tmp_path / "README").write_text("not data")
    (tmp_path / "movies.csv").write_text("movieId,title\n1,\xe9t\xe9\n", encoding="latin-1")
    WRITERS[name](tmp_path / name, rows)
    data = MovieLens(tmp_path, **SETTINGS)
    agrees(data, rows)
    assert data.backbone_settings() == {"items": 150, "length": 10}
    assert MovieLens(tmp_path / name, **SETTINGS).fingerprint() == data.fingerprint()


def test_all_formats_of_movielens_give_the_same_data(tmp_path):
    prints = set()
    for name, write in WRITERS.items():
        folder = tmp_path / name.partition(".")[2]
        folder.mkdir(exist_ok=True)
        write(folder / name, events())
        prints.add(MovieLens(folder / name, **SETTINGS).fingerprint())
    assert len(prints) == 1


def test_a_movielens_folder_without_ratings_says_what_was_expected_and_what_is_there(tmp_path):
    (tmp_path / "movies.dat").write_text("")
    with pytest.raises(DataError, match=r"u\.data, ratings\.dat, ratings\.csv .*movies\.dat"):
        MovieLens(tmp_path)
    with pytest.raises(DataError, match=r"use the data set 'interactions'"):
        MovieLens(tmp_path / "movies.dat")
    with pytest.raises(DataError, match=r"need a root: .*u\.data"):
        MovieLens(None)


def test_low_ratings_are_no_events_and_are_counted(tmp_path):
    rows = events()
    low = [f"{u}::{i}::2::{t}" for u, i, t in events(users=10, each=5, items=1000)]
    lines = [f"{u}::{500 + int(i)}::4::{t}" for u, i, t in rows]
    (tmp_path / "ratings.dat").write_text("\n".join([*low, *lines]))
    data = MovieLens(tmp_path, minimum_rating=3, **SETTINGS)
    assert data.left_out["events rated below 3"] == 50
    agrees(data, [(u, str(500 + int(i)), t) for u, i, t in rows])
    assert data.backbone_settings()["items"] == 150
    with pytest.raises(DataError, match="no event rated 5 or more; lower minimum_rating"):
        MovieLens(tmp_path, minimum_rating=5)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("7::9::5", "line 3: timestamp is missing"),
        ("7::9::5::1::2", "line 3: 5 fields instead of 4"),
        ("7::::5::1000", "line 3: item id is missing"),
        ("7::9::five::1000", "line 3: rating should be a number, is 'five'"),
        ("7::9::5::then", "line 3: timestamp should be a number, is 'then'"),
        ("7::9::5::inf", "line 3: timestamp should be a number, is 'inf'"),
        ("garbage", "line 3: item id is missing"),
    ],
)
def test_a_broken_row_of_ratings_dat_is_named_and_left_out(tmp_path, line, said):
    lines = [f"{u}::{i}::4::{t}" for u, i, t in events()]
    (tmp_path / "ratings.dat").write_text("\n".join([*lines[:2], line, *lines[2:]]) + "\n")
    data = MovieLens(tmp_path, **SETTINGS)
    assert data.faults == (said,)
    agrees(data, events())
    with pytest.raises(DataError, match=r"1 of 1201 rows .*first line 3: "):
        MovieLens(tmp_path, bad_rows=0, **SETTINGS)


def test_movielens_1m_written_as_ratings_dat_keeps_every_users_order(tmp_path):
    """All 6,040 users. Times are positions: the pack has no clock for users from 3000 on."""
    rows = packs.movielens_1m(tmp_path)
    data = MovieLens(tmp_path, history=10_000, backbone_share=0.01, adapter_share=0.01)
    agrees(data, rows)
    asked = data.split_names()
    assert len(asked["validation"]) + len(asked["test"]) > 5700
    assert data.backbone_settings()["items"] == 3706


# Amazon


def amazon(rows: list[Event]) -> list[tuple[str, str, int]]:
    return [(f"A{int(u):013d}", f"B{int(i):09d}", t) for u, i, t in rows]


def write_amazon(path: Path, rows: list[Event], edition: int) -> Path:
    order = (lambda u, i: f"{u},{i}") if edition == 2014 else (lambda u, i: f"{i},{u}")
    path.write_text("".join(f"{order(u, i)},5.0,{t}\n" for u, i, t in rows))
    return path


@pytest.mark.parametrize("edition", [2014, 2018])
def test_the_ids_of_amazon_ratings_tell_the_edition(tmp_path, edition):
    rows = amazon(events())
    path = write_amazon(tmp_path / "Beauty.csv", rows, edition)
    assert edition_of(path) == edition
    agrees(AmazonReviews(tmp_path, **SETTINGS), rows)
    other = {2014: 2018, 2018: 2014}[edition]
    with pytest.raises(DataError, match=f"is in the order of {edition} .* leave edition out"):
        AmazonReviews(tmp_path, edition=other)


def test_real_rows_of_both_editions_are_told_apart(tmp_path):
    """First rows of ratings_Beauty.csv (2014) and, with a book's ISBN, the order of 2018."""
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text("A39HTATAQ9V7YF,0205616461,5.0,1369699200\nA3JM6GV9MNOF9X,0558925278,3.0,1\n")
    new.write_text("0143026860,A1V6B6TNIC10QE,1.0,1424304000\n000100039X,A2SUAM1J3GNN3B,5.0,1\n")
    assert (edition_of(old), edition_of(new)) == (2014, 2018)


def test_amazon_ratings_whose_ids_do_not_tell_need_the_setting(tmp_path):
    write_amazon(tmp_path / "ratings_Beauty.csv", events(), 2014)
    with pytest.raises(DataError, match="set edition = 2014 where a row is user,item"):
        AmazonReviews(tmp_path)
    agrees(AmazonReviews(tmp_path, edition=2014, **SETTINGS), events())
    with pytest.raises(DataError, match="edition must be 2014 or 2018, got 2023"):
        AmazonReviews(tmp_path, edition=2023)


def reviews(rows: list[Event]) -> list[str]:
    """As in both editions; the text holds what could lead a careless reader astray."""
    return [
        json.dumps(
            {"reviewerID": u, "asin": i, "reviewerName": 'J. "Mc"', "helpful": [2, 3],
             "style": {"Size:": "L, XL"}, "reviewText": "fine,\nreally\u2028\xe9", "overall": 5.0,
             "unixReviewTime": t, "reviewTime": "09 13, 2009", "verified": True}
        )
        for u, i, t in rows
    ]  # fmt: skip


def test_amazon_reviews_are_read_from_compressed_json_lines(tmp_path):
    rows = amazon(events())
    with gzip.open(tmp_path / "reviews_Beauty_5.json.gz", "wt") as file:
        file.write("\n".join(reviews(rows)) + "\n")
    agrees(AmazonReviews(tmp_path, **SETTINGS), rows)


def test_broken_reviews_are_named_and_the_rest_is_the_same_as_without_them(tmp_path):
    rows = amazon(events())
    lines = reviews(rows)
    clean, broken = tmp_path / "clean.json", tmp_path / "broken.json"
    clean.write_text("\n".join(lines))
    without = {"asin": "B000000001", "overall": 5.0, "unixReviewTime": 1000}
    text = {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": "soon"}
    bad = [lines[0][:40], "[1]", json.dumps(without), json.dumps(text)]
    broken.write_text("\n".join([lines[0], *bad[:2], "", *lines[1:], *bad[2:]]))
    data = AmazonReviews(broken, bad_rows=0.01, **SETTINGS)
    assert data.faults == (
        "line 2: no JSON object",
        "line 3: no JSON object",
        "line 1204: reviewerID is missing",
        "line 1205: unixReviewTime should be a number, is 'soon'",
    )
    assert data.fingerprint() == AmazonReviews(clean, **SETTINGS).fingerprint()


def core_of(rows: list[Event], core: int) -> set[tuple[str, str]]:
    """Another way to the core: drop one poor user or item at a time."""
    pairs = {(u, i) for u, i, _ in rows}
    while True:
        users, items = Counter(u for u, _ in pairs), Counter(i for _, i in pairs)
        poor = [u for u in users if users[u] < core][:1]
        poor_items = [i for i in items if items[i] < core][:1]
        if not poor and not poor_items:
            return pairs
        pairs = {(u, i) for u, i in pairs if u not in poor and i not in poor_items}


@pytest.mark.parametrize("core", [1, 3, 5])
def test_the_core_is_the_one_that_dropping_one_by_one_leaves(core):
    rng = np.random.default_rng(1)
    users, items = rng.geometric(0.03, 900) % 79, rng.geometric(0.03, 900) % 90
    rows = [(f"{u:02d}", f"{i:02d}", t) for t, (u, i) in enumerate(zip(users, items, strict=True))]
    log = Log(
        users, items + 1, np.arange(900.0),
        tuple(f"{u:02d}" for u in range(79)), tuple(f"{i:02d}" for i in range(90)),
    )  # fmt: skip
    left = k_core(ReadLog(log, (), Counter()), core)
    names = zip(left.log.users, left.log.items, strict=True)
    pairs = {(left.log.user_names[u], left.log.item_names[i - 1]) for u, i in names}
    assert pairs == core_of(rows, core)
    assert left.left_out[f"events outside the {core}-core"] == 900 - len(left.log.users)
    assert left.left_out[f"users outside the {core}-core"] == len(
        {u for u, _, _ in rows} - {u for u, _ in pairs}
    )


def test_a_core_that_leaves_nothing_is_refused_and_a_core_below_one_too(tmp_path):
    path = write_amazon(tmp_path / "a.csv", amazon(events()), 2014)
    with pytest.raises(DataError, match="nothing is left with core = 100"):
        AmazonReviews(path, core=100)
    with pytest.raises(DataError, match="core must be 1 or more"):
        AmazonReviews(path, core=0)


# Douban


def write_douban(path: Path, rows: list[Event], item: str) -> Path:
    names = ("user_id", item, "rating", "labels", "comment", "useful_num", "time", "ID")
    lines = ["\t".join(f'"{name}"' for name in names)]
    for n, (u, i, t) in enumerate(rows):
        day = np.datetime64("2010-05-01") + t
        lines.append(f'{u}\t{i}\t4\t"a|b"\t"好 "quoted, 5\\" odd"\t0\t"{day}"\t{n}')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_douban_reviews_are_read_with_their_dates_and_odd_quotes(tmp_path):
    rows = events()
    write_douban(tmp_path / "moviereviews_cleaned.txt", rows, "movie_id")
    data = Douban(tmp_path, **SETTINGS)
    assert data.faults == ()
    agrees(data, rows)


def test_a_douban_folder_with_several_domains_needs_to_know_which(tmp_path):
    rows = events()
    write_douban(tmp_path / "bookreviews_cleaned.txt", rows, "book_id")
    write_douban(tmp_path / "musicreviews_cleaned.txt", rows[::2], "music_id")
    with pytest.raises(DataError, match=r"bookreviews.*musicreviews.* set domain"):
        Douban(tmp_path)
    agrees(Douban(tmp_path, domain="book", **SETTINGS), rows)
    with pytest.raises(DataError, match="domain must be one of movie, book, music, got 'film'"):
        Douban(tmp_path, domain="film")
    with pytest.raises(DataError, match=r"expected moviereviews_cleaned\.txt in"):
        Douban(tmp_path, domain="movie")


def test_a_douban_row_without_a_date_is_named(tmp_path):
    path = write_douban(tmp_path / "musicreviews_cleaned.txt", events(), "music_id")
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[4] = '1\t2\t4\t""\t"a tab\there"\t0\t"2010-05-01"\t9'
    lines[5] = '1\t2\t4\t""\t""\t0\t"in May"\t9'
    path.write_text("\n".join(lines), encoding="utf-8")
    data = Douban(path, bad_rows=0.01, **SETTINGS)
    assert data.faults == (
        "line 5: 9 fields instead of 8",
        "line 6: time should be a date, is '\"in May\"'",
    )


def test_dates_are_seconds_in_utc_unless_they_name_a_zone():
    assert unix_seconds("1970-01-02") == 86400
    assert unix_seconds("1970-01-02 00:00:01") == 86401
    assert unix_seconds("1970-01-02T01:00:00+01:00") == 86400


# Your own files


def test_a_csv_file_that_is_not_utf8_is_refused_with_the_line(tmp_path):
    lines = [f"{u},{i},{t}" for u, i, t in events()]
    text = "\n".join(["user_id,item_id,timestamp", *lines[:5], "caf\xe9,1,5", *lines[5:]])
    path = tmp_path / "log.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"log\.csv should be UTF-8, but byte 0xe9 in line 7 "):
        Interactions(path)
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(DataError, match=r"should be UTF-8, but byte 0xff in line 1 "):
        Interactions(path)
    path.write_text("\ufeff" + text, encoding="utf-8")
    assert Interactions(path, **SETTINGS).faults == ()


def test_a_torn_gzip_file_is_refused(tmp_path):
    lines = [f"{u},{i},{t}" for u, i, t in events()]
    whole = gzip.compress("\n".join(["user_id,item_id,timestamp", *lines]).encode())
    for torn in (whole[:-200], whole[:40] + b"\0\0\0\0" + whole[44:], b"no gzip at all"):
        (tmp_path / "log.csv.gz").write_bytes(torn)
        with pytest.raises(DataError, match=r"log\.csv\.gz cannot be read: .*is it whole"):
            Interactions(tmp_path / "log.csv.gz")


def test_quoted_fields_blank_lines_and_windows_line_ends_keep_line_numbers_right(tmp_path):
    rows = [f'"{u}","{i}",{t},"a\r\nb"' for u, i, t in events()]
    lines = ["user_id,item_id,timestamp,note", "", rows[0], "x,,3,", *rows[1:], "", 'y,"2",,']
    (tmp_path / "log.csv").write_bytes("\r\n".join(lines).encode())
    data = Interactions(tmp_path, bad_rows=0.01, **SETTINGS)
    agrees(data, events())
    # Each of the 1,200 notes takes two lines.
    last = 2 + 2 * 1200 + 1 + 1 + 1
    assert data.faults == ("line 5: item_id is missing", f"line {last}: timestamp is missing")


def test_faults_are_named_at_their_lines_also_far_into_a_large_file(tmp_path):
    """Against a plain count over the lines; the file is larger than what is parsed at a time."""
    good, bad = "some-user-with-a-long-name,item,1000\n" * 9_999, "short\nu,,5\nu,i,never\n"
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\n" + (good + bad) * 50)
    read = read_log(path, "user_id", "item_id", "timestamp", 0.01)
    expected = []
    for number, line in enumerate(path.read_text().splitlines()[1:], 2):
        if line in ("short", "u,,5"):
            expected.append(f"line {number}: item_id is missing")
        elif line == "u,i,never":
            expected.append(f"line {number}: timestamp should be a number, is 'never'")
    assert path.stat().st_size > 1 << 24
    assert list(read.faults) == expected
    assert len(read.log.users) == 9_999 * 50


def test_parquet_files_are_read_like_csv_with_ids_of_any_type_and_timestamps(tmp_path):
    rows = events()
    columns = {
        "user_id": pa.array([int(u) for u, _, _ in rows]),
        "item_id": pa.array([i for _, i, _ in rows]).dictionary_encode(),
        "timestamp": pa.array([t for _, _, t in rows], pa.timestamp("s")),
    }
    pa.parquet.write_table(pa.table(columns), tmp_path / "log.parquet")
    (tmp_path / "plain").mkdir()
    lines = [f"{u},{i},{t}" for u, i, t in rows]
    (tmp_path / "plain/log.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    data = Interactions(tmp_path, **SETTINGS)
    agrees(data, rows)
    assert data.fingerprint() == Interactions(tmp_path / "plain", **SETTINGS).fingerprint()


def test_bad_rows_and_columns_of_a_parquet_file_are_named(tmp_path):
    path = tmp_path / "log.parquet"
    rows = events()
    users: list[int | None] = [int(u) for u, _, _ in rows]
    users[4] = None
    times = [float(t) for _, _, t in rows]
    times[6] = float("nan")
    items = [int(i) for _, i, _ in rows]
    pa.parquet.write_table(pa.table({"user_id": users, "item_id": items, "pos": times}), path)
    data = Interactions(path, time="pos", bad_rows=0.01, **SETTINGS)
    assert data.faults == (
        "row 5: user_id is missing",
        "row 7: pos should be a number, is nan",
    )
    with pytest.raises(DataError, match=r"no column timestamp; its columns are user_id, item_id"):
        Interactions(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"log\.parquet cannot be read"):
        Interactions(path)


def days(rows: list[Event], form: str) -> list[str]:
    """The same order as by their times, in another form."""
    moments = [datetime(2014, 1, 31, tzinfo=UTC) + timedelta(seconds=t) for _, _, t in rows]
    return [moment.strftime(form) for moment in moments]


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S.250", "%Y%m%dT%H%M%S"]
)
def test_iso_dates_are_times_and_the_same_as_their_seconds(tmp_path, form):
    rows = events()
    lines = [f"{u},{i},{day}" for (u, i, _), day in zip(rows, days(rows, form), strict=True)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    agrees(Interactions(path, **SETTINGS), rows)
    fraction = 0.25 if form.endswith("250") else 0
    begin = datetime(2014, 1, 31, tzinfo=UTC).timestamp() + fraction
    expected = [begin + t for _, _, t in rows]
    assert read_log(path, "user_id", "item_id", "timestamp", 0).log.times.tolist() == expected
    early = "2014-01-31 00:16:50"  # 1010 seconds after midnight.
    split = Interactions(path, split_time=early, **SETTINGS | {"minimum": 8, "queries": 3})
    device = split.devices("test", 1, 0)[0]
    when = {(u, i): t for u, i, t in rows}
    seen = [when[device.name, split.item_names[i - 1]] for i in device.window[0]]
    assert max(seen) < 1010


def test_a_bad_date_among_dates_is_named_as_no_date_and_a_bad_number_as_no_number(tmp_path):
    rows = events()
    moments = days(rows, "%Y-%m-%d %H:%M:%S")
    dated = [f"{u},{i},{day}" for (u, i, _), day in zip(rows, moments, strict=True)]
    plain = [f"{u},{i},{t}" for u, i, t in rows]
    path = tmp_path / "log.csv"
    for lines, value, said in (
        (dated, "31.1.2014", "line 6: timestamp should be a date, is '31.1.2014'"),
        (plain, "2014-01-31", "line 6: timestamp should be a number, is '2014-01-31'"),
    ):
        changed = [*lines[:4], f"1,2,{value}", *lines[5:]]
        path.write_text("\n".join(["user_id,item_id,timestamp", *changed]))
        assert Interactions(path, **SETTINGS).faults == (said,)
    lines = [f"{u},{i},31.1.2014" for u, i, _ in rows]
    path.write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    with pytest.raises(DataError, match=r"timestamp should be a number or an ISO date, is '31\.1"):
        Interactions(path, **SETTINGS)


def test_dates_as_text_in_a_parquet_file_are_times(tmp_path):
    rows = events()
    columns = {
        "user_id": [u for u, _, _ in rows],
        "item_id": [i for _, i, _ in rows],
        "timestamp": days(rows, "%Y-%m-%dT%H:%M:%S"),
    }
    pa.parquet.write_table(pa.table(columns), tmp_path / "log.parquet")
    agrees(Interactions(tmp_path, **SETTINGS), rows)


@pytest.mark.parametrize(
    ("separator", "name"), [("\t", "tabs"), (";", "semicolons"), ("|", "bars")]
)
def test_another_separator_is_taken_where_set_and_told_where_not(tmp_path, separator, name):
    rows = events()
    lines = [f"{u},{i},{t}".replace(",", separator) for u, i, t in rows]
    header = f'user_id{separator}item_id{separator}timestamp{separator}"a{separator}note"'
    text = "\n".join([header, *(f'{line}{separator}"one{separator}field"' for line in lines)])
    (tmp_path / "log.tsv.gz").write_bytes(gzip.compress(text.encode()))
    data = Interactions(tmp_path, separator=separator, **SETTINGS)
    agrees(data, rows)
    assert data.faults == ()
    told = f"fields seem to have {name} between them, where commas were expected; name .* separator"
    with pytest.raises(DataError, match=told):
        Interactions(tmp_path, **SETTINGS)
    for nonsense in ("", "::", '"', "\n"):
        with pytest.raises(DataError, match="separator must be one character"):
            Interactions(tmp_path, separator=nonsense)


# Other files


def test_other_files_of_a_folder_are_counted_and_named(tmp_path):
    rows = events()
    (tmp_path / "old").mkdir()
    for name in ("log.csv", "old/log.csv", ".hidden.csv"):
        lines = [f"{u},{i},{t}" for u, i, t in rows]
        (tmp_path / name).write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    (tmp_path / "notes.txt").write_text("")
    data = Interactions(tmp_path, **SETTINGS)
    assert data.faults == ("notes.txt: not read; log.csv was", "old/log.csv: not read; log.csv was")
    assert data.left_out["files that were not read"] == 2
    assert data.summary() == "2 files that were not read"
    assert Interactions(tmp_path / "log.csv", **SETTINGS).summary() == ""


def test_other_files_of_ratings_are_counted_and_companions_are_not(tmp_path):
    write_u_data(tmp_path / "u.data", events())
    for name in ("README", "u.item", "u1.base", "mku.sh"):
        (tmp_path / name).write_text("")
    assert MovieLens(tmp_path, **SETTINGS).summary() == ""
    (tmp_path / "ml-1m").mkdir()
    write_ratings_dat(tmp_path / "ml-1m/ratings.dat", events())
    write_ratings_csv(tmp_path / "ratings.csv", events())
    data = MovieLens(tmp_path, **SETTINGS)
    said = "not read; u.data was"
    assert data.faults == (f"ml-1m/ratings.dat: {said}", f"ratings.csv: {said}")
    assert data.summary() == "2 files that were not read"


def test_the_file_that_reviews_are_preferred_to_is_named(tmp_path):
    rows = amazon(events())
    write_amazon(tmp_path / "ratings_Beauty.csv", rows, 2014)
    (tmp_path / "reviews_Beauty_5.json").write_text("\n".join(reviews(rows)))
    data = AmazonReviews(tmp_path, **SETTINGS)
    assert data.faults == ("ratings_Beauty.csv: not read; reviews_Beauty_5.json was",)


def test_douban_files_in_a_deeper_folder_are_named(tmp_path):
    write_douban(tmp_path / "moviereviews_cleaned.txt", events(), "movie_id")
    (tmp_path / "again").mkdir()
    write_douban(tmp_path / "again/moviereviews_cleaned.txt", events(), "movie_id")
    (tmp_path / "users_cleaned.txt").write_text("")
    said = "again/moviereviews_cleaned.txt: not read; moviereviews_cleaned.txt was"
    assert Douban(tmp_path, **SETTINGS).faults == (said,)


# Real rows


def test_movielens_100k_written_as_u_data_is_read_whole(tmp_path):
    """As published: 100,000 ratings of 943 users and 1,682 films; and each user's order."""
    rows = packs.movielens_100k(tmp_path)
    data = MovieLens(tmp_path, history=10_000)
    assert data.backbone_settings()["items"] == 1682
    assert sum(map(len, data.split_names().values())) == 943
    assert data.summary() == ""
    times = {(u, i): t for u, i, t in rows}
    for name, items in in_order(data).items():
        met = [times[name, item] for item in items]
        assert met == sorted(met)
    assert len(times) == 100_000


def test_amazon_beauty_written_as_ratings_is_its_own_5_core(tmp_path):
    """As published: 198,502 reviews of 12,101 products by 22,363 people, each with five or more."""
    rows = packs.amazon_beauty(tmp_path)
    settings = {"minimum": 5, "queries": 1, "session": 1, "candidates": 20}
    data = AmazonReviews(tmp_path, **settings)
    assert data.summary() == ""
    assert data.backbone_settings()["items"] == 12101
    assert sum(map(len, data.split_names().values())) == 22363
    when = {(u, i): t for u, i, t in rows}
    assert len(when) == 198502
    for device in data.devices("test", 200, 0):
        met = [when[device.name, data.item_names[i - 1]] for i in device.window[0]]
        assert met == sorted(met)


def test_a_column_of_positions_is_fine_as_time(tmp_path):
    rows = events()
    lines = [f"{u},{i},{t - 1000}" for u, i, t in rows]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,pos", *lines]))
    agrees(Interactions(tmp_path, time="pos", **SETTINGS), rows)


def test_all_are_registered_by_name():
    kinds = {
        "movielens": MovieLens,
        "amazon-reviews": AmazonReviews,
        "douban": Douban,
        "interactions": Interactions,
    }
    for name, kind in kinds.items():
        assert datasets[name] is kind
        assert kind.needs_root


def test_a_million_rows_are_read_in_seconds(tmp_path):
    rng = np.random.default_rng(0)
    columns = (rng.integers(20_000, size=10**6), rng.integers(5_000, size=10**6), range(10**6))
    rows = zip(*columns, strict=True)
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    start = time.process_time()
    read = read_log(path, "user_id", "item_id", "timestamp", 0)
    assert time.process_time() - start < 6
    assert (read.log.times == np.arange(10**6)).all()


def test_fast_and_line_by_line_reading_of_json_agree(tmp_path):
    rows = amazon(events(users=5))
    columns = Columns("reviewerID", "asin", "unixReviewTime", "overall")
    path = tmp_path / "reviews.json"
    path.write_text("\n".join(reviews(rows)))
    fast = make_log(read_json_lines(path, columns.names()), columns, "reviews", 0)
    path.write_text("\n".join([*reviews(rows), "{"]))
    slow = make_log(read_json_lines(path, columns.names()), columns, "reviews", 1)
    assert slow.faults == (f"line {len(rows) + 1}: no JSON object",)
    assert fast.log.fingerprint() == slow.log.fingerprint()
