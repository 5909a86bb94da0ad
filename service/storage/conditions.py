"""Conditions that several queries share."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    any_,
    func,
    literal,
    literal_column,
    select,
)
from sqlalchemy.orm import InstrumentedAttribute

from tollwire.service.domain.model import RatingStatus
from tollwire.service.storage.schema.record_tables import CdrReversalRow, CdrRow

_MAX_INT64 = 2**63 - 1
# As a literal: only so do the databases see that the index of the UNRATED calls will do.
IS_UNRATED = CdrRow.status == literal_column(str(int(RatingStatus.UNRATED)))
IS_REVERSED = select(CdrReversalRow.id).where(CdrReversalRow.cdr_id == CdrRow.id).exists()


def in_period(
    moment_ns: InstrumentedAttribute[int], after_ns: int | None, before_ns: int | None
) -> list[ColumnElement[bool]]:
    """A time from ``after_ns`` (inclusive) to ``before_ns`` (exclusive). Bounds outside 64 bits are
    moved in, which changes nothing: no call starts there, and nothing is written there."""
    conditions: list[ColumnElement[bool]] = []
    if after_ns is not None:
        conditions.append(moment_ns >= max(0, min(after_ns, _MAX_INT64)))
    if before_ns is not None:
        conditions.append(moment_ns < max(0, min(before_ns, _MAX_INT64)))
    return conditions


def among(
    connection: Connection, column: ColumnElement[Any], values: Collection[Any]
) -> ColumnElement[bool]:
    """That ``column`` is one of ``values``: one parameter, however many they are."""
    if connection.dialect.name == "sqlite":
        listed = func.json_each(json.dumps(list(values), ensure_ascii=False))
        return column.in_(select(listed.table_valued("value").c.value))
    return column == any_(literal(list(values), ARRAY(column.type)))
