"""Your own interaction log, in a CSV or Parquet file with named columns."""

from pathlib import Path
from typing import Any

from persona.data.base import DataError, datasets
from persona.data.interaction_log import (
    Columns,
    ReadLog,
    TextForm,
    make_log,
    read_parquet,
    read_text,
)
from persona.data.next_item import NextItem, Scenario

SUFFIXES = (".csv", ".csv.gz", ".parquet")


def find_log(root: Path) -> Path:
    """The file that `root` is, or the only CSV or Parquet file in the folder that it is.

    Raises DataError when there is none, or more than one.
    """
    if root.is_file():
        return root
    found = sorted(p for p in root.glob("*") if p.name.endswith(SUFFIXES))
    if len(found) != 1:
        came = ", ".join(p.name for p in found) or "none"
        raise DataError(
            f"expected one .csv, .csv.gz or .parquet file in {root}, found {came}; "
            "give the file itself as the data set's root"
        )
    return found[0]


def read_log(path: Path, user: str, item: str, time: str, bad_rows: float) -> ReadLog:
    """Read three named columns of a CSV file with a header, or of a Parquet file.

    user, item: columns of ids. time: a column of numbers, ascending in time; positions in a
    user's history will do. In a Parquet file it may hold timestamps.
    bad_rows: the share of rows that may be unusable; those are left out.
    Raises DataError where columns are missing, too many rows are bad or no row is left.
    """
    columns = Columns(user, item, time)
    if path.suffix == ".parquet":
        rows = read_parquet(path, columns)
    else:
        rows = read_text(path, TextForm(), columns)
    return make_log(rows, columns, path.name, bad_rows)


@datasets.register("interactions")
class Interactions(NextItem):
    """A log of who met which item when, in a CSV or Parquet file: rank the next item.

    root: a .csv, .csv.gz or .parquet file, or a folder holding one.
    user, item, time: names of the columns; time may count positions where there is no clock.
    bad_rows: the share of unusable rows to put up with. Further settings are those of `Scenario`.
    `faults` names the rows left out.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        user: str = "user_id",
        item: str = "item_id",
        time: str = "timestamp",
        bad_rows: float = 0.001,
        **scenario: Any,
    ) -> None:
        if root is None or not root.exists():
            raise DataError(
                f"interactions need a root: a .csv, .csv.gz or .parquet file, got {root}"
            )
        settings = Scenario(**scenario)
        read = read_log(find_log(root), user, item, time, bad_rows)
        super().__init__(read.log, settings, read.left_out)
        self.faults = read.faults
