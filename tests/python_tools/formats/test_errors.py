"""The codes: the page lists every one, in the order of the enumeration."""

import re
from pathlib import Path

from persona.formats.errors import Code, FormatError

PAGE = Path(__file__).parents[3] / "docs" / "edit-format.md"


def test_the_page_lists_every_code_and_no_other():
    section = PAGE.read_text("utf-8").split("\n## Error codes\n")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `([a-z_.]+)` \|", section, re.MULTILINE)
    assert listed == [code.value for code in Code]


def test_the_page_names_no_code_that_there_is_not():
    families = sorted({code.value.split(".")[0] for code in Code})
    named = re.findall(rf"`((?:{'|'.join(families)})\.[a-z_]+)`", PAGE.read_text("utf-8"))
    fields = {"probe.expected", "manifest.json"}
    assert set(named) - fields == {code.value for code in Code}


def test_an_error_says_its_message_and_its_code():
    error = FormatError(Code.EXPIRED, "the edit expired yesterday; ask again")
    assert str(error) == "the edit expired yesterday; ask again [edit.expired]"
    assert error.code == "edit.expired"
