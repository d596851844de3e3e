"""Your own interaction log, in a CSV or Parquet file with named columns."""

from pathlib import Path
from typing import Any

from persona.data.base import DataError, datasets
from persona.data.interaction_log import Columns, ReadLog, make_log, with_unread
from persona.data.left_out import visible
from persona.data.next_item import NextItem, Scenario
from persona.data.rows import TextForm, any_times, check_separator, read_parquet, read_text

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")

_REMEDY = "name the right ones as user, item and time, and what stands between fields as separator"


def find_log(root: Path) -> Path:
    """The file that `root` is, or the only CSV or Parquet file in the folder that it is.

    Raises DataError when there is none, or more than one.
    """
    if root.is_file():
        return root
    found = visible(root, [f"*{suffix}" for suffix in SUFFIXES])
    if len(found) != 1:
        came = ", ".join(p.name for p in found) or "none"
        raise DataError(
            f"expected one file ending in {', '.join(SUFFIXES)} in {root}, found {came}; give the "
            "file itself as the data set's root"
        )
    return found[0]


def read_log(
    path: Path, user: str, item: str, time: str, bad_rows: float, separator: str = ","
) -> ReadLog:
    """Read three named columns of a text file with a header, or of a Parquet file.

    user, item: columns of ids. time: a column of numbers, ascending in time, or of ISO dates, with
    or without times; positions in a user's history will do. In a Parquet file it may hold
    timestamps. bad_rows: the share of rows that may be unusable; those are left out.
    separator: the character between the fields of a text file.
    Raises DataError where columns are missing, too many rows are bad or no row is left.
    """
    columns = Columns(user, item, time)
    if path.suffix == ".parquet":
        rows = read_parquet(path, columns.names(), _REMEDY)
    else:
        rows = read_text(path, TextForm(separator), columns.names(), _REMEDY)
    return make_log(rows, columns, path.name, bad_rows, clock=any_times)


@datasets.register("interactions")
class Interactions(NextItem):
    """A log of who met which item when, in a CSV or Parquet file: rank the next item.

    root: a .csv, .tsv or .parquet file, the first two gzipped or not, or a folder holding one.
    user, item, time: names of the columns. time holds numbers, such as unix seconds, or ISO dates,
    such as 2014-01-31 or 2014-01-31T10:00:00; positions will do where there is no clock.
    separator: the character between fields: "," unless told otherwise, as by "\\t" or ";".
    bad_rows: the share of unusable rows to put up with. Further settings are those of `Scenario`.
    `faults` names the rows left out, and files that were not read.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        user: str = "user_id",
        item: str = "item_id",
        time: str = "timestamp",
        separator: str = ",",
        bad_rows: float = 0.001,
        **scenario: Any,
    ) -> None:
        check_separator(separator)
        if root is None or not root.exists():
            raise DataError(f"interactions need a root: a .csv, .tsv or .parquet file, got {root}")
        settings = Scenario(**scenario)
        path = find_log(root)
        read = read_log(path, user, item, time, bad_rows, separator)
        read = with_unread(read, root, path, ("*",))
        super().__init__(read.log, settings, read.left_out)
        self.faults = read.faults
