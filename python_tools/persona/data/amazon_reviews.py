"""Amazon reviews of 2014 and 2018 as UCSD publishes them: who bought what next."""

import re
from pathlib import Path
from typing import Any

from persona.data.base import DataError, datasets
from persona.data.interaction_log import (
    Columns,
    ReadLog,
    find_file,
    k_core,
    make_log,
    with_unread,
)
from persona.data.next_item import NextItem, Scenario
from persona.data.rows import TextForm, first_rows, read_json_lines, read_text

PATTERNS = ("*.json.gz", "*.json", "*.csv", "*.csv.gz")

ORDERS = {
    2014: ("user", "item", "rating", "timestamp"),
    2018: ("item", "user", "rating", "timestamp"),
}
"""Edition -> the columns of its files of ratings, which have no header."""

_RATINGS = Columns("user", "item", "timestamp", "rating")
_REVIEWS = Columns("reviewerID", "asin", "unixReviewTime", "overall")

_USER = re.compile(r"A[0-9A-Z]{9,20}|#oc-[0-9A-Z]+")
_ITEM = re.compile(r"[0-9B][0-9A-Z]{9}")
_LOOKED_AT = 1000


def edition_of(path: Path) -> int | None:
    """The edition of a file of ratings, told by its ids; None where they do not tell.

    A reviewer's id begins with A, or with #oc-, and a product's id, of ten characters, with a
    digit or B. In 2014 the reviewer comes first, in 2018 the product.
    """
    rows = first_rows(path, TextForm(quotes=False), _LOOKED_AT)

    def are(kinds: tuple[re.Pattern[str], ...]) -> bool:
        fit = [
            len(row) > 1 and all(k.fullmatch(f) for k, f in zip(kinds, row, strict=False))
            for row in rows
        ]
        return bool(fit) and sum(fit) >= 0.99 * len(fit)

    if are((_USER, _ITEM)):
        return 2014
    return 2018 if are((_ITEM, _USER)) else None


def read_reviews(path: Path, edition: int | None, bad_rows: float) -> ReadLog:
    """Read a file of ratings or of reviews. Raises DataError where its edition is not clear."""
    if path.name.endswith((".json", ".json.gz")):
        rows = read_json_lines(path, _REVIEWS.names())
        return make_log(rows, _REVIEWS, path.name, bad_rows)
    told = edition_of(path)
    if edition is not None and told not in (None, edition):
        raise DataError(
            f"{path.name} is in the order of {told} ({','.join(ORDERS[told])}), but edition = "
            f"{edition} was set; leave edition out"
        )
    if edition is None and told is None:
        raise DataError(
            f"the ids in {path.name} do not tell its edition: set edition = 2014 where a row is "
            f"{','.join(ORDERS[2014])}, or edition = 2018 where it is {','.join(ORDERS[2018])}"
        )
    form = TextForm(",", quotes=False, names=ORDERS[edition or told or 2014])
    rows = read_text(path, form, _RATINGS.names(), "give the file as UCSD publishes it")
    return make_log(rows, _RATINGS, path.name, bad_rows)


@datasets.register("amazon-reviews")
class AmazonReviews(NextItem):
    """Amazon reviews of one category, 2014 or 2018, in a core: rank the next product.

    root: a file, or a folder holding one. Ratings are CSV without a header: user, item, rating and
    unix seconds in 2014 (`ratings_Beauty.csv`), item, user, rating and unix seconds in 2018
    (`All_Beauty.csv`); which it is, the ids tell (see `edition_of`). Reviews have one JSON object a
    line (`reviews_Beauty_5.json.gz` in 2014, `All_Beauty_5.json.gz` in 2018), with the same keys in
    both: reviewerID, asin, overall and unixReviewTime. They are preferred where both are there.
    edition: 2014 or 2018, for ratings whose ids do not tell it.
    core: users and items with fewer events are left out, in turns, until none is left; 1 keeps all.
    bad_rows: the share of unusable rows to put up with. Further settings are those of `Scenario`.
    `faults` names the rows left out, and files that were not read.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        edition: int | None = None,
        core: int = 5,
        bad_rows: float = 0.001,
        **scenario: Any,
    ) -> None:
        if edition not in (None, *ORDERS):
            raise DataError(f"edition must be 2014 or 2018, got {edition}")
        if core < 1:
            raise DataError(f"core must be 1 or more, got {core}")
        settings = Scenario(**scenario)
        path = find_file(root, PATTERNS, "amazon reviews")
        read = k_core(read_reviews(path, edition, bad_rows), core)
        read = with_unread(read, root, path, PATTERNS)
        super().__init__(read.log, settings, read.left_out)
        self.faults = read.faults
