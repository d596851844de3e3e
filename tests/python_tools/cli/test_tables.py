"""What commands print of the data that was not used."""

from persona.cli.tables import left_out_lines
from persona.evaluation.results import LeftOut


def test_what_was_left_out_is_counted_and_the_first_faults_are_printed():
    faults = tuple(f"log.csv: line {i}: no item" for i in range(20))
    lines = left_out_lines(LeftOut({"unusable rows": 2100, "repeated events": 3}, faults))
    assert lines == [
        "left out of the data: 2,100 unusable rows, 3 repeated events",
        *(f"  such as log.csv: line {i}: no item" for i in range(5)),
    ]


def test_nothing_is_said_where_all_was_used():
    assert left_out_lines(LeftOut({}, ())) == []
