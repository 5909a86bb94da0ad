"""The enums of the model are those of the wire: same names, same numbers, none missing."""

from __future__ import annotations

from enum import IntEnum

import pytest

from tollwire.service.domain import model, record_model
from tollwire.v1 import types_pb2

PAIRS = [
    (model.Direction, "Direction", "DIRECTION_"),
    (model.Disposition, "Disposition", "DISPOSITION_"),
    (model.RatingStatus, "RatingStatus", "RATING_STATUS_"),
    (model.UnratedReason, "UnratedReason", "UNRATED_REASON_"),
    (model.Rounding, "Rounding", "ROUNDING_"),
    (model.ImportMode, "ImportMode", "IMPORT_MODE_"),
    (model.UsageDimension, "UsageDimension", "USAGE_DIMENSION_"),
    (record_model.LedgerEntryKind, "LedgerEntryKind", "LEDGER_ENTRY_KIND_"),
    (record_model.LedgerDifferenceKind, "LedgerDifferenceKind", "LEDGER_DIFFERENCE_KIND_"),
]


@pytest.mark.parametrize(("kind", "name", "prefix"), PAIRS)
def test_members_are_equal(kind: type[IntEnum], name: str, prefix: str) -> None:
    wire = types_pb2.DESCRIPTOR.enum_types_by_name[name]
    assert {prefix + member.name: member.value for member in kind} | {
        prefix + "UNSPECIFIED": 0
    } == {value.name: value.number for value in wire.values}


def test_no_enum_is_left_out() -> None:
    # What a client wants to see of a result is no part of the model.
    assert set(types_pb2.DESCRIPTOR.enum_types_by_name) - {"RatedCallView"} == {
        name for _, name, _ in PAIRS
    }
    kinds = {
        kind
        for module in (model, record_model)
        for kind in vars(module).values()
        if _is_own_enum(kind)
    }
    assert kinds == {kind for kind, _, _ in PAIRS}


def _is_own_enum(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, IntEnum) and kind is not IntEnum
