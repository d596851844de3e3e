"""Logs of who met which item when: reading their rows from files, and what is wrong with a row.

Columns are parsed by Arrow. Only a file with faults is walked a second time, line by line, to say
where they are.
"""

import csv
import gzip
import hashlib
import io
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.csv  # type: ignore[import-untyped]
import pyarrow.json  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
from numpy.typing import NDArray

from persona.data.base import DataError
from persona.data.left_out import refuse_many

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_BLOCK = 1 << 24
"""Bytes that Arrow parses at a time; a row must fit."""


@dataclass(frozen=True)
class Log:
    """Events as columns, one entry an event, in any order.

    users: int64 [n], indices into `user_names`. items: int64 [n], indices into `item_names` + 1.
    times: float64 [n], in any unit.
    """

    users: Ints
    items: Ints
    times: Floats
    user_names: tuple[str, ...]
    item_names: tuple[str, ...]

    def fingerprint(self) -> str:
        """sha256 over all columns, in the order of the events."""
        digest = hashlib.sha256()
        for column in (self.users, self.items, self.times):
            digest.update(np.ascontiguousarray(column).data)
        for names in (self.user_names, self.item_names):
            digest.update("\n".join(names).encode())
        return digest.hexdigest()

    def only(self, kept: Bools) -> "Log":
        """The events where `kept` [n] is true, and the users and items that they name."""
        users, user_names = _renumbered(self.users[kept], self.user_names)
        items, item_names = _renumbered(self.items[kept] - 1, self.item_names)
        return Log(users, items + 1, self.times[kept], user_names, item_names)


def _renumbered(codes: Ints, names: tuple[str, ...]) -> tuple[Ints, tuple[str, ...]]:
    used = np.zeros(len(names), bool)
    used[codes] = True
    return (used.cumsum() - 1)[codes], tuple(names[i] for i in np.flatnonzero(used))


# How values are read


def numbers(column: Any) -> Floats:
    """An Arrow column of text or numbers as float64 [n]; nan where there is no finite number."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = pc.cast(column, pa.timestamp("us"))
        return numbers(pc.cast(column, pa.int64())) / 1e6
    try:
        values = pc.cast(column, pa.float64(), safe=False).to_numpy()
    except pa.ArrowInvalid:
        values = np.array([_number(text) for text in column.to_pylist()], np.float64)
    except pa.ArrowNotImplementedError:
        raise DataError(f"a column of numbers was expected, got {column.type}") from None
    return cast(Floats, np.where(np.isfinite(values), values, np.nan))


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return math.nan


def dates(column: Any) -> Floats:
    """An Arrow column of ISO dates, or dates with times, as unix seconds [n]; nan where not."""
    texts = pc.utf8_trim(column, ' "')
    try:
        return numbers(pc.cast(texts, pa.timestamp("s")))
    except pa.ArrowInvalid:
        return np.array([_unix_seconds(text) for text in texts.to_pylist()], np.float64)


def _unix_seconds(text: str | None) -> float:
    try:
        return unix_seconds(text or "")
    except ValueError:
        return math.nan


def unix_seconds(text: str) -> float:
    """An ISO date, or date with time, as unix seconds; UTC where it names no zone.

    Raises ValueError for anything else.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _coded(column: Any, quotes: str = "") -> tuple[Ints, tuple[str, ...]]:
    """A column of ids as indices [n] into its names, sorted; -1 where there is none."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        try:
            column = pc.cast(column, pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(f"a column of ids was expected, got {column.type}") from None
    coded = column.dictionary_encode().combine_chunks()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.chunk(0) if coded.num_chunks else pa.array([], column.type)
        coded = coded if coded else coded.dictionary_encode()
    texts = [text.strip().strip(quotes) for text in coded.dictionary.to_pylist()]
    names = sorted({text for text in texts if text})
    place = {name: i for i, name in enumerate(names)}
    places = np.array([*(place.get(text, -1) for text in texts), -1], np.int64)
    return places[pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)], tuple(names)


# Rows as a file has them


@dataclass(frozen=True)
class Columns:
    """The names of an event's columns; `rating` where it is read."""

    user: str
    item: str
    time: str
    rating: str | None = None

    def names(self) -> tuple[str, ...]:
        """All of them, in this order."""
        named = (self.user, self.item, self.time, self.rating)
        return tuple(name for name in named if name is not None)


@dataclass(frozen=True)
class Rows:
    """Columns of a file, not yet checked.

    values: Arrow columns of equal length, in the order of `Columns.names`.
    broken: rows that are not in `values`: the line or row, and what is wrong with it.
    places: the lines or rows of the entries at some indices; 0 for one that is a blank line.
    thing: "line" or "row".
    """

    values: tuple[Any, ...]
    broken: tuple[tuple[int, str], ...]
    places: Callable[[Ints], Ints]
    thing: str


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb"))


def _text(path: Path, errors: str = "strict") -> io.TextIOWrapper:
    return io.TextIOWrapper(_open(path), "utf-8-sig", errors, newline="")


def _not_utf8(path: Path) -> DataError:
    with _open(path) as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return DataError(
                    f"{path.name} should be UTF-8, but byte "
                    f"{error.object[error.start]:#04x} in line {number} is not; save it as UTF-8, "
                    "or convert it, as with iconv"
                )
    return DataError(f"{path.name} should be UTF-8, and is not; convert it, as with iconv")


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path.name} cannot be read: {error}; is it whole? Get it again")


@dataclass(frozen=True)
class TextForm:
    """How a text file has its rows.

    separator: between fields; "::" for MovieLens' .dat files. quotes: whether fields may be in
    double quotes, and then hold separators and line breaks. names: of all columns; None where the
    first line has them.
    """

    separator: str = ","
    quotes: bool = True
    names: tuple[str, ...] | None = None

    def split(self, line: str) -> list[str]:
        """The fields of one row, stripped."""
        if not self.quotes:
            return [field.strip(' "') for field in line.split(self.separator)]
        return [field.strip() for field in next(csv.reader([line], delimiter=self.separator), [])]


def _header(path: Path, form: TextForm) -> tuple[tuple[str, ...], int]:
    """The names of all columns, and how many lines hold them."""
    if form.names is not None:
        return form.names, 0
    with _text(path) as lines:
        if not form.quotes:
            return tuple(form.split(next(lines, "").rstrip("\r\n"))), 1
        reader = csv.reader(lines, delimiter=form.separator)
        return tuple(name.strip() for name in next(reader, [])), max(1, reader.line_num)


def _records(path: Path, form: TextForm) -> Iterator[tuple[int, bool]]:
    """Each record's line, and whether that is blank; with quotes a record may be many lines."""
    with _text(path, "replace") as lines:
        if not form.quotes:
            yield from ((i, not line.strip()) for i, line in enumerate(lines, 1))
            return
        reader = csv.reader(lines, delimiter=form.separator)
        yield from ((reader.line_num, not row) for row in reader)


def read_text(path: Path, form: TextForm, columns: Columns) -> Rows:
    """Read named columns of a text file, or of one with .gz; other columns are ignored.

    Raises DataError where the file is not UTF-8 or damaged, or a column is not there.
    """
    try:
        names, skipped = _header(path, form)
        places = _places(path, names, columns)
        # Arrow separates by one character: a longer separator makes empty columns in between.
        width = len(form.separator)
        broken: list[tuple[int, str]] = []

        def refuse(row: Any) -> str:
            fields = form.split(row.text)
            short = [name for name, place in places.items() if place >= len(fields)]
            said = f"{len(fields)} fields instead of {len(names)}"
            broken.append((row.number, f"{short[0]} is missing" if short else said))
            return "skip"

        wanted = {str(place * width): pa.string() for place in places.values()}
        with _open(path) as file:
            table = pa.csv.read_csv(
                file,
                read_options=pa.csv.ReadOptions(
                    use_threads=False,  # Else rows that are refused have no number.
                    block_size=_BLOCK,
                    skip_rows=skipped,
                    column_names=[str(i) for i in range((len(names) - 1) * width + 1)],
                ),
                parse_options=pa.csv.ParseOptions(
                    delimiter=form.separator[0],
                    quote_char='"' if form.quotes else False,
                    newlines_in_values=form.quotes,
                    ignore_empty_lines=False,
                    invalid_row_handler=refuse,
                ),
                convert_options=pa.csv.ConvertOptions(
                    include_columns=list(wanted), column_types=wanted, strings_can_be_null=False
                ),
            )
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise _not_utf8(path) from None
        if "Empty CSV file" not in str(error):
            raise _damaged(path, error) from None
        table = pa.table({name: pa.array([], kind) for name, kind in wanted.items()})
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise _damaged(path, error) from None
    refused = np.array([number for number, _ in broken], np.int64)

    def lines_of(indices: Ints) -> Ints:
        numbers = indices + skipped + 1
        numbers += np.searchsorted(refused - np.arange(len(refused)), numbers, side="right")
        return _lines(path, form, numbers)

    said = zip(_lines(path, form, refused).tolist(), (text for _, text in broken), strict=True)
    values = tuple(table.column(str(place * width)) for place in places.values())
    return Rows(values, tuple(said), lines_of, "line")


def first_rows(path: Path, form: TextForm, count: int) -> list[list[str]]:
    """The fields of the first rows of a text file, whatever is wrong with them."""
    try:
        with _text(path, "replace") as lines:
            return [form.split(line.rstrip("\r\n")) for line in islice(lines, count)]
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from None


def _places(path: Path, names: Sequence[str], columns: Columns) -> dict[str, int]:
    missing = [name for name in columns.names() if name not in names]
    if missing:
        raise DataError(
            f"{path.name} has no column {', '.join(missing)}; its columns are "
            f"{', '.join(filter(None, names)) or 'none'}; name the right ones as user, item and "
            "time"
        )
    return {name: names.index(name) for name in columns.names()}


def _lines(path: Path, form: TextForm, numbers: Ints) -> Ints:
    """The lines of some records, counted from 1; 0 for one that is blank."""
    if not len(numbers):
        return numbers
    wanted = set(numbers.tolist())
    last = max(wanted)
    found: dict[int, int] = {}
    for number, (line, blank) in enumerate(_records(path, form), 1):
        if number in wanted:
            found[number] = 0 if blank else line
        if number == last:
            break
    return np.array([found.get(number, number) for number in numbers.tolist()], np.int64)


def read_parquet(path: Path, columns: Columns) -> Rows:
    """Read named columns of a Parquet file: ids of any plain type, times as numbers or timestamps.

    Raises DataError where the file is damaged, or a column is not there.
    """
    try:
        _places(path, pa.parquet.read_schema(path).names, columns)
        table = pa.parquet.read_table(path, columns=list(columns.names()))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None
    values = tuple(table.column(name) for name in columns.names())
    return Rows(values, (), lambda indices: indices + 1, "row")


def read_json_lines(path: Path, columns: Columns) -> Rows:
    """Read named keys of a file, or of one with .gz, that has one JSON object a line.

    Raises DataError where the file is damaged.
    """
    kinds = (pa.string(), pa.string(), pa.int64(), pa.float64())
    schema = pa.schema(dict(zip(columns.names(), kinds, strict=False)))
    parse = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        with _open(path) as file:
            options = pa.json.ReadOptions(use_threads=False, block_size=_BLOCK)
            table = pa.json.read_json(file, options, parse)
        if not any(table.column(name).null_count for name in columns.names()):
            values = tuple(table.column(name) for name in columns.names())
            return Rows(values, (), lambda indices: indices + 1, "line")
        return _json_line_by_line(path, columns)
    except pa.ArrowInvalid:
        return _json_line_by_line(path, columns)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from None


def _json_line_by_line(path: Path, columns: Columns) -> Rows:
    """As `read_json_lines`, for a file with faults: says where they are."""
    found: list[list[str]] = []
    at: list[int] = []
    broken: list[tuple[int, str]] = []
    try:
        with _text(path) as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    review = json.loads(line)
                except ValueError:
                    review = None
                if isinstance(review, dict):
                    values = (review.get(name) for name in columns.names())
                    found.append(["" if value is None else str(value) for value in values])
                    at.append(number)
                else:
                    broken.append((number, "no JSON object"))
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from None
    texts = list(zip(*found, strict=True)) or [() for _ in columns.names()]
    numbers_of = np.array(at, np.int64)
    return Rows(
        tuple(pa.chunked_array([pa.array(column, pa.string())]) for column in texts),
        tuple(broken),
        lambda indices: numbers_of[indices],
        "line",
    )


# From rows to a log


@dataclass(frozen=True)
class ReadLog:
    """A log, what was wrong with each row that is not in it, and what was left out, by reason."""

    log: Log
    faults: tuple[str, ...]
    left_out: Counter[str]


def make_log(
    rows: Rows,
    columns: Columns,
    origin: str,
    bad_rows: float,
    clock: Callable[[Any], Floats] = numbers,
    minimum_rating: float | None = None,
) -> ReadLog:
    """Check rows, and leave out those without a user, an item, or a time (or rating) to read.

    origin: the file's name. bad_rows: the share of rows that may be unusable.
    clock: reads the column of times: `numbers`, or `dates`.
    minimum_rating: events rated lower are left out, too, and counted; needs a column of ratings.
    Raises DataError where too many rows are bad, or no row is left.
    """
    users, user_names = _coded(rows.values[0], '"')
    items, item_names = _coded(rows.values[1], '"')
    read = [clock(rows.values[2]), *(numbers(column) for column in rows.values[3:])]
    bad = (users < 0) | (items < 0) | np.any([np.isnan(values) for values in read], axis=0)
    indices = np.flatnonzero(bad)
    places = rows.places(indices)
    expected = "a date" if clock is dates else "a number"
    named = [
        (int(place), _fault(rows, columns, int(index), users, items, read, expected))
        for index, place in zip(indices, places, strict=True)
        if place
    ]
    faults = tuple(
        f"{rows.thing} {place}: {said}" for place, said in sorted([*rows.broken, *named])
    )
    total = len(users) - int((places == 0).sum()) + len(rows.broken)
    refuse_many(faults, total, origin, "rows", "bad_rows", bad_rows)
    good = ~bad
    if not good.any():
        raise DataError(f"{origin} has no rows; expected one row an event")
    left_out = Counter({"unusable rows": len(faults)})
    if minimum_rating is not None:
        low = good & (read[1] < minimum_rating)
        left_out[f"events rated below {minimum_rating:g}"] = int(low.sum())
        good &= ~low
        if not good.any():
            raise DataError(
                f"{origin} has no event rated {minimum_rating:g} or more; lower minimum_rating"
            )
    log = Log(users, items + 1, read[0], user_names, item_names)
    return ReadLog(log if good.all() else log.only(good), faults, left_out)


def _fault(
    rows: Rows,
    columns: Columns,
    index: int,
    users: Ints,
    items: Ints,
    read: list[Floats],
    expected: str,
) -> str:
    """What is wrong with the row at `index`: the first thing that is."""
    if users[index] < 0:
        return f"{columns.user} is missing"
    if items[index] < 0:
        return f"{columns.item} is missing"
    checks = zip(columns.names()[2:], rows.values[2:], read, (expected, "a number"), strict=False)
    for name, column, values, kind in checks:
        if np.isnan(values[index]):
            value = column[index].as_py()
            if value is None or value == "":
                return f"{name} is missing"
            return f"{name} should be {kind}, is {value!r}"
    raise AssertionError("no fault in a row that has one")


def k_core(read: ReadLog, core: int) -> ReadLog:
    """The largest part of a log where each user met, and each item was met by, `core` others.

    Users and items with fewer are left out in turns, until none is left that has fewer. A user who
    meets an item again counts once. Raises DataError where nothing is left.
    """
    log, left_out = read.log, Counter(read.left_out)
    pairs = log.users * (len(log.item_names) + 1) + log.items
    counted = np.zeros(len(pairs), bool)
    counted[np.unique(pairs, return_index=True)[1]] = True
    kept = np.ones(len(pairs), bool)
    while True:
        seen = kept & counted
        users = np.bincount(log.users[seen], minlength=len(log.user_names))
        items = np.bincount(log.items[seen] - 1, minlength=len(log.item_names))
        fewer = kept & ((users[log.users] < core) | (items[log.items - 1] < core))
        if not fewer.any():
            break
        kept &= ~fewer
    if not kept.any():
        raise DataError(f"nothing is left with core = {core}; lower it, or give more events")
    left = log.only(kept) if not kept.all() else log
    for things, before, after in (
        ("events", len(log.users), len(left.users)),
        ("users", len(log.user_names), len(left.user_names)),
        ("items", len(log.item_names), len(left.item_names)),
    ):
        left_out[f"{things} outside the {core}-core"] = before - after
    return replace(read, log=left, left_out=left_out)


def find_file(root: Path | None, patterns: Sequence[str], what: str) -> Path:
    """The file that `root` is, or the only one in the folder that it is with such a name.

    patterns: as for `Path.glob`, in the order of preference: the first with a file decides.
    what: the data set's name, for messages.
    Raises DataError when there is none, or more than one.
    """
    expected = ", ".join(patterns)
    if root is None or not root.exists():
        raise DataError(f"{what} need a root: a file or folder with {expected}, got {root}")
    if root.is_file():
        return root
    for pattern in patterns:
        found = sorted(path for path in root.glob(pattern) if path.is_file())
        if len(found) == 1:
            return found[0]
        if found:
            came = ", ".join(path.name for path in found)
            raise DataError(
                f"expected one {pattern} in {root}, found {came}; give the file itself as the "
                "data set's root"
            )
    there = sorted(path.name for path in root.iterdir())
    came = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "")
    raise DataError(f"expected {expected} in {root}, found {came or 'none'}")
