"""The cases of `persona.edit/1`: valid edits, and every way to be wrong, one file or more each."""

from . import broken_containers, broken_edits, good_edits, signatures, two_faults
from .drafts import Edits


def edit_cases() -> Edits:
    """All cases of edits."""
    edits = Edits()
    for family in (
        good_edits.good_values,
        good_edits.good_containers,
        signatures.size_and_signature,
        broken_containers.boundaries,
        broken_containers.header_json,
        broken_containers.header_numbers,
        broken_containers.entries,
        broken_containers.layout,
        broken_edits.metadata,
        broken_edits.addressee_and_time,
        broken_edits.slots,
        broken_edits.values,
        two_faults.order,
    ):
        family(edits)
    return edits
