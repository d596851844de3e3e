"""MovieLens ratings as GroupLens publishes them, from 100K to 32M."""

from pathlib import Path
from typing import Any

from persona.data.base import DataError, datasets
from persona.data.interaction_log import Columns, find_file, make_log, with_unread
from persona.data.next_item import NextItem, Scenario
from persona.data.rows import TextForm, read_text

_NAMES = ("user id", "item id", "rating", "timestamp")

FORMS = {
    "u.data": TextForm("\t", quotes=False, names=_NAMES),
    "ratings.dat": TextForm("::", quotes=False, names=_NAMES),
    "ratings.csv": TextForm(",", quotes=True),
}
"""File -> its form: 100K has u.data; 1M and 10M ratings.dat; 20M, 25M and 32M ratings.csv."""

_REMEDY = "give the file as GroupLens' zip holds it, or use the data set 'interactions'"

_CSV = Columns("userId", "movieId", "timestamp", "rating")
_PLAIN = Columns("user id", "item id", "timestamp", "rating")


@datasets.register("movielens")
class MovieLens(NextItem):
    """MovieLens as unpacked from GroupLens' zip, 100K to 32M: rank the next film.

    root: the unpacked folder, or the file of ratings in it: `u.data` (100K; user, item, rating and
    unix seconds, with tabs between), `ratings.dat` (1M, 10M; the same with ::) or `ratings.csv`
    (20M, 25M, 32M; the header userId,movieId,rating,timestamp). The file's name tells which.
    minimum_rating: ratings below it are no events. bad_rows: the share of unusable rows to put up
    with. Further settings are those of `Scenario`. `faults` names the rows left out, and
    other files of ratings.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        minimum_rating: float | None = None,
        bad_rows: float = 0.001,
        **scenario: Any,
    ) -> None:
        settings = Scenario(**scenario)
        path = find_file(root, tuple(FORMS), "movielens ratings")
        if path.name not in FORMS:
            raise DataError(
                f"expected a file named {', '.join(FORMS)} as GroupLens names it, got {path.name}; "
                "for any other CSV file use the data set 'interactions'"
            )
        columns = _CSV if path.name == "ratings.csv" else _PLAIN
        rows = read_text(path, FORMS[path.name], columns.names(), _REMEDY)
        read = make_log(rows, columns, path.name, bad_rows, minimum_rating=minimum_rating)
        read = with_unread(read, root, path, tuple(FORMS))
        super().__init__(read.log, settings, read.left_out)
        self.faults = read.faults
