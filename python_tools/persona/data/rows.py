"""Rows of files with named columns: reading them, and saying where a bad one is.

Columns are parsed by Arrow. Only a file with faults is walked a second time, line by line, to say
where they are.
"""

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

Clock = Callable[[Any], tuple[Floats, str]]
"""Reads a column of times [n], nan where there is none, and says what it looked for: "a date"."""

_BLOCK = 1 << 24
"""Bytes that Arrow parses at a time; a row must fit."""

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


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


def plain_times(column: Any) -> tuple[Floats, str]:
    """Times that are numbers: see `Clock`."""
    return numbers(column), "a number"


def dated_times(column: Any) -> tuple[Floats, str]:
    """Times that are ISO dates: see `Clock`."""
    return dates(column), "a date"


def any_times(column: Any) -> tuple[Floats, str]:
    """Times that are numbers, or ISO dates where most are no numbers: see `Clock`."""
    moments = numbers(column)
    known = int(np.isfinite(moments).sum())
    if 2 * known > len(moments) or not _is_text(column):
        return moments, "a number"
    days = dates(column)
    if np.isfinite(days).sum() > known:
        return days, "a date"
    return moments, "a number" if known else "a number or an ISO date"


def _is_text(column: Any) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def coded(column: Any, quotes: str = "") -> tuple[Ints, tuple[str, ...]]:
    """A column of ids as indices [n] into its names, sorted; -1 where there is none."""
    if not _is_text(column):
        try:
            column = pc.cast(column, pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(f"a column of ids was expected, got {column.type}") from None
    found = column.dictionary_encode().combine_chunks()
    if isinstance(found, pa.ChunkedArray):
        found = found.chunk(0) if found.num_chunks else pa.array([], column.type)
        found = found if found else found.dictionary_encode()
    texts = [text.strip().strip(quotes) for text in found.dictionary.to_pylist()]
    names = sorted({text for text in texts if text})
    place = {name: i for i, name in enumerate(names)}
    places = np.array([*(place.get(text, -1) for text in texts), -1], np.int64)
    return places[pc.fill_null(found.indices, -1).to_numpy(zero_copy_only=False)], tuple(names)


def wrong(name: str, value: Any, expected: str) -> str:
    """What to say of a value that is not what was expected, such as "a number"."""
    if value is None or value == "":
        return f"{name} is missing"
    return f"{name} should be {expected}, is {value!r}"


# Rows as a file has them


@dataclass(frozen=True)
class Rows:
    """Columns of a file, not yet checked.

    values: Arrow columns of equal length, in the order in which they were asked for.
    broken: rows that are not in `values`: the line or row, and what is wrong with it.
    before: how many entries of `values` stand before each of those.
    places: the lines or rows of the entries at some indices; 0 for one that is a blank line.
    thing: "line" or "row".
    """

    values: tuple[Any, ...]
    broken: tuple[tuple[int, str], ...]
    before: Ints
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


def check_separator(separator: str) -> None:
    """Raises DataError for what cannot stand between the fields of a text file."""
    if len(separator) != 1 or separator in '"\r\n':
        raise DataError(
            f"separator must be one character, such as a comma, a semicolon or \\t, got "
            f"{separator!r}"
        )


def column_names(path: Path, form: TextForm) -> tuple[str, ...]:
    """The names of all columns. Raises DataError where the file is not UTF-8 or damaged."""
    return _header(path, form)[0]


def _header(path: Path, form: TextForm) -> tuple[tuple[str, ...], int]:
    """The names of all columns, and how many lines hold them."""
    if form.names is not None:
        return form.names, 0
    try:
        with _text(path) as lines:
            if not form.quotes:
                return tuple(form.split(next(lines, "").rstrip("\r\n"))), 1
            reader = csv.reader(lines, delimiter=form.separator)
            return tuple(name.strip() for name in next(reader, [])), max(1, reader.line_num)
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise _damaged(path, error) from None


def _records(path: Path, form: TextForm) -> Iterator[tuple[int, bool]]:
    """Each record's line, and whether that is blank; with quotes a record may be many lines."""
    with _text(path, "replace") as lines:
        if not form.quotes:
            yield from ((i, not line.strip()) for i, line in enumerate(lines, 1))
            return
        reader = csv.reader(lines, delimiter=form.separator)
        yield from ((reader.line_num, not row) for row in reader)


def read_text(path: Path, form: TextForm, wanted: Sequence[str], remedy: str) -> Rows:
    """Read named columns of a text file, or of one with .gz; other columns are ignored.

    wanted: names of columns. remedy: what to do where one is not there.
    Raises DataError where the file is not UTF-8 or damaged, or a column is not there.
    """
    names, skipped = _header(path, form)
    places = _places(path, names, wanted, remedy, form)
    try:
        # Arrow separates by one character: a longer separator makes empty columns in between.
        width = len(form.separator)
        broken: list[tuple[int, str]] = []

        def refuse(row: Any) -> str:
            fields = form.split(row.text)
            short = [name for name, place in places.items() if place >= len(fields)]
            said = f"{len(fields)} fields instead of {len(names)}"
            broken.append((row.number, f"{short[0]} is missing" if short else said))
            return "skip"

        kinds = {str(place * width): pa.string() for place in places.values()}
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
                    include_columns=list(kinds), column_types=kinds, strings_can_be_null=False
                ),
            )
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise _not_utf8(path) from None
        if "Empty CSV file" not in str(error):
            raise _damaged(path, error) from None
        table = pa.table({name: pa.array([], kind) for name, kind in kinds.items()})
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise _damaged(path, error) from None
    refused = np.array([number for number, _ in broken], np.int64)
    # Records that are not refused, up to each that is.
    kept = refused - np.arange(len(refused))

    def lines_of(indices: Ints) -> Ints:
        numbers = indices + skipped + 1
        numbers += np.searchsorted(kept, numbers, side="right")
        return _lines(path, form, numbers)

    said = zip(_lines(path, form, refused).tolist(), (text for _, text in broken), strict=True)
    values = tuple(table.column(str(places[name] * width)) for name in wanted)
    return Rows(values, tuple(said), kept - skipped - 1, lines_of, "line")


def first_rows(path: Path, form: TextForm, count: int) -> list[list[str]]:
    """The fields of the first rows of a text file, whatever is wrong with them."""
    try:
        with _text(path, "replace") as lines:
            return [form.split(line.rstrip("\r\n")) for line in islice(lines, count)]
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from None


def _places(
    path: Path, names: Sequence[str], wanted: Sequence[str], remedy: str, form: TextForm | None
) -> dict[str, int]:
    """Name -> its place among the columns. Raises DataError where one is not there."""
    missing = [name for name in wanted if name not in names]
    if missing:
        there = ", ".join(filter(None, names)) or "none"
        raise DataError(
            f"{path.name} has no column {', '.join(missing)}; its columns are {there}"
            f"{_other_separator(names, form)}; {remedy}"
        )
    return {name: names.index(name) for name in wanted}


def _other_separator(names: Sequence[str], form: TextForm | None) -> str:
    """What to say where the only name holds what separates fields in other files."""
    if form is None or len(names) != 1:
        return ""
    held = {text: names[0].count(text) for text in _SEPARATORS if text != form.separator}
    likely = max(held, key=lambda text: held[text])
    expected = _SEPARATORS.get(form.separator, repr(form.separator))
    return (
        f"; its fields seem to have {_SEPARATORS[likely]} between them, where {expected} were "
        "expected"
        if held[likely]
        else ""
    )


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


def read_parquet(path: Path, wanted: Sequence[str], remedy: str) -> Rows:
    """Read named columns of a Parquet file: ids of any plain type, times as numbers or timestamps.

    remedy: what to do where a column is not there.
    Raises DataError where the file is damaged, or a column is not there.
    """
    try:
        _places(path, pa.parquet.read_schema(path).names, wanted, remedy, None)
        table = pa.parquet.read_table(path, columns=list(wanted))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None
    values = tuple(table.column(name) for name in wanted)
    return Rows(values, (), np.array([], np.int64), lambda indices: indices + 1, "row")


def read_json_lines(path: Path, wanted: Sequence[str]) -> Rows:
    """Read named keys of a file, or of one with .gz, that has one JSON object a line.

    wanted: two keys of text, then one of a whole number, then one of a number.
    Raises DataError where the file is damaged.
    """
    kinds = (pa.string(), pa.string(), pa.int64(), pa.float64())
    schema = pa.schema(dict(zip(wanted, kinds, strict=False)))
    parse = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        with _open(path) as file:
            options = pa.json.ReadOptions(use_threads=False, block_size=_BLOCK)
            table = pa.json.read_json(file, options, parse)
        if not any(table.column(name).null_count for name in wanted):
            values = tuple(table.column(name) for name in wanted)
            none = np.array([], np.int64)
            return Rows(values, (), none, lambda indices: indices + 1, "line")
        return _json_line_by_line(path, wanted)
    except pa.ArrowInvalid:
        return _json_line_by_line(path, wanted)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from None


def _json_line_by_line(path: Path, wanted: Sequence[str]) -> Rows:
    """As `read_json_lines`, for a file with faults: says where they are."""
    found: list[list[str]] = []
    at: list[int] = []
    broken: list[tuple[int, str]] = []
    before: list[int] = []
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
                    values = (review.get(name) for name in wanted)
                    found.append(["" if value is None else str(value) for value in values])
                    at.append(number)
                else:
                    broken.append((number, "no JSON object"))
                    before.append(len(at))
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from None
    texts = list(zip(*found, strict=True)) or [() for _ in wanted]
    numbers_of = np.array(at, np.int64)
    return Rows(
        tuple(pa.chunked_array([pa.array(column, pa.string())]) for column in texts),
        tuple(broken),
        np.array(before, np.int64),
        lambda indices: numbers_of[indices],
        "line",
    )


# Rows of numbers


@dataclass(frozen=True)
class NumberTable:
    """Rows of numbers, without the bad ones.

    values: float64 [n, columns]. breaks: places in `values` before which bad rows were left out.
    faults: the line of each bad row, and what is wrong with it. total: rows, bad ones included.
    """

    values: Floats
    breaks: tuple[int, ...]
    faults: tuple[tuple[int, str], ...]
    total: int


def number_table(rows: Rows, names: Sequence[str]) -> NumberTable:
    """The rows where each column has a finite number. names: of the columns."""
    values = np.stack([numbers(column) for column in rows.values], axis=1)
    bad = np.isnan(values).any(axis=1)
    indices = np.flatnonzero(bad)
    places = rows.places(indices)
    faults = list(rows.broken)
    for index, place in zip(indices.tolist(), places.tolist(), strict=True):
        if place:
            column = int(np.isnan(values[index]).argmax())
            value = rows.values[column][index].as_py()
            faults.append((place, wrong(names[column], value, "a number")))
    good_before = np.concatenate([[0], np.cumsum(~bad)])
    breaks = {*good_before[indices[places > 0]].tolist(), *good_before[rows.before].tolist()}
    total = len(values) - int((places == 0).sum()) + len(rows.broken)
    return NumberTable(values[~bad], tuple(sorted(breaks)), tuple(sorted(faults)), total)


def read_numbers(path: Path, columns: int) -> tuple[Floats, list[int], list[tuple[int, str]]]:
    """A table of numbers between spaces, without a header: [rows, columns], and each row's line.

    A bad row is nan, and named with its line and what is wrong with it. Blank lines are no rows.
    Raises DataError where the file is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    lines = text.splitlines()
    at = [number for number, line in enumerate(lines, 1) if line.strip()]
    if at:
        try:
            table = np.loadtxt(lines, ndmin=2, comments=None)
        except ValueError:
            table = np.zeros((0, 0))
        if table.shape[1] == columns and np.isfinite(table).all():
            return table, at, []
    found: list[list[float]] = []
    faults = []
    for number in at:
        fields = lines[number - 1].split()
        row = [_number(field) for field in fields]
        bad = next((i for i, value in enumerate(row) if not math.isfinite(value)), None)
        if len(row) != columns:
            faults.append((number, f"{len(row)} fields instead of {columns}"))
        elif bad is not None:
            faults.append((number, wrong(f"field {bad + 1}", fields[bad], "a number")))
        ok = len(row) == columns and bad is None
        found.append(row if ok else [math.nan] * columns)
    return np.array(found, np.float64).reshape(-1, columns), at, faults
