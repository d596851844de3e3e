"""Douban reviews of films, books or music, from the dump used for cross-domain recommendation."""

from pathlib import Path
from typing import Any

from persona.data.base import DataError, datasets
from persona.data.interaction_log import Columns, find_file, make_log, with_unread
from persona.data.next_item import NextItem, Scenario
from persona.data.rows import TextForm, dated_times, read_text

FILES = {
    "movie": "moviereviews_cleaned.txt",
    "book": "bookreviews_cleaned.txt",
    "music": "musicreviews_cleaned.txt",
}
"""Domain -> its file; the items' column is named after the domain, as in movie_id."""

_REMEDY = "give the dump with text, which has times"

# A comment may hold any quote, so quotes are not what separates fields.
_FORM = TextForm("\t", quotes=False)


@datasets.register("douban")
class Douban(NextItem):
    """Douban reviews of films, books or music (the dump with text): rank the next item.

    Reads the "douban dataset (text information)" of F. Zhu et al. (DTCDR, CIKM 2019; GA-DTCDR,
    IJCAI 2020): `moviereviews_cleaned.txt`, `bookreviews_cleaned.txt` and
    `musicreviews_cleaned.txt`, UTF-8, a row a line with tabs between, text in double quotes, with
    the header "user_id", "movie_id" (or "book_id", "music_id"), "rating", "labels", "comment",
    "useful_num", "time", "ID". Of these user_id, the item's id and time (an ISO date, such as
    2010-05-01, or date with time) are read. Its other packing, the ratings.dat with users, items
    and ratings alone, has no time and cannot be used.
    root: a folder with these files, or one of them. domain: movie, book or music; it can be left
    out where only one file is there. bad_rows: the share of unusable rows to put up with.
    Further settings are those of `Scenario`. `faults` names the rows left out, and files of the
    domain in other folders.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        domain: str | None = None,
        bad_rows: float = 0.001,
        **scenario: Any,
    ) -> None:
        if domain is not None and domain not in FILES:
            raise DataError(f"domain must be one of {', '.join(FILES)}, got {domain!r}")
        settings = Scenario(**scenario)
        wanted = tuple(FILES.values()) if domain is None else (FILES[domain],)
        path = find_file(root, wanted, "douban reviews")
        here = [name for name in wanted if (path.parent / name).is_file()]
        if domain is None and root is not None and root.is_dir() and len(here) > 1:
            raise DataError(f"{root} has {', '.join(here)}: set domain to {', '.join(FILES)}")
        named = {file: name for name, file in FILES.items()}
        if path.name not in named:
            raise DataError(f"expected a file named {', '.join(named)}, got {path.name}")
        columns = Columns("user_id", f"{named[path.name]}_id", "time")
        rows = read_text(path, _FORM, columns.names(), _REMEDY)
        read = make_log(rows, columns, path.name, bad_rows, clock=dated_times)
        read = with_unread(read, root, path, wanted)
        super().__init__(read.log, settings, read.left_out)
        self.faults = read.faults
