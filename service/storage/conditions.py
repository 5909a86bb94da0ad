"""Conditions that several queries share."""

from __future__ import annotations

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import InstrumentedAttribute

from tollwire.service.storage.schema.record_tables import CdrReversalRow, CdrRow

_MAX_INT64 = 2**63 - 1
IS_REVERSED = select(CdrReversalRow.id).where(CdrReversalRow.cdr_id == CdrRow.id).exists()


def in_period(
    moment_ns: InstrumentedAttribute[int], after_ns: int | None, before_ns: int | None
) -> list[ColumnElement[bool]]:
    """That a time is from ``after_ns`` (inclusive) to ``before_ns`` (exclusive). Bounds outside 64
    bits become the nearest possible one: no row has a time beyond it."""
    conditions: list[ColumnElement[bool]] = []
    if after_ns is not None:
        conditions.append(moment_ns >= max(0, min(after_ns, _MAX_INT64)))
    if before_ns is not None:
        conditions.append(moment_ns < max(0, min(before_ns, _MAX_INT64)))
    return conditions
