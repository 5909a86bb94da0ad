"""Checks of single values that several subjects share. Each yields the violations, so that all
violations of a request can be reported together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tollwire.service.domain.errors import FieldViolation, invalid_fields
from tollwire.service.domain.model import MAX_ID


def check_text(
    field: str, text: str, max_chars: int, *, required: bool = False
) -> Iterator[FieldViolation]:
    if required and not text:
        yield FieldViolation(field, "is required")
    if len(text) > max_chars:
        yield FieldViolation(field, f"must have at most {max_chars} characters, got {len(text)}")
    if "\0" in text:
        yield FieldViolation(field, "must not contain the NUL character")


def check_number(field: str, number: int, least: int, greatest: int) -> Iterator[FieldViolation]:
    if not least <= number <= greatest:
        yield FieldViolation(field, f"must be {least} to {greatest}, got {number}")


def check_id(field: str, number: int, *, required: bool = True) -> Iterator[FieldViolation]:
    """The violations of an id. 0 means none, which is a violation if an id is ``required``."""
    if required and number == 0:
        yield FieldViolation(field, "is required")
    elif not 0 <= number <= MAX_ID:
        yield FieldViolation(field, f"must be above 0, got {number}")


def check_period(
    after_ns: int | None, before_ns: int | None, what: str = "started"
) -> Iterator[FieldViolation]:
    """The violations of a period from ``after_ns`` (inclusive) to ``before_ns`` (exclusive)."""
    if after_ns is not None and before_ns is not None and after_ns > before_ns:
        yield FieldViolation(f"{what}_before", f"must not be before {what}_after")


def refuse(violations: Iterable[FieldViolation], prefix: str = "") -> None:
    """Raise InvalidInput with all violations, if there are any. ``prefix``: the path of the
    resource within the request, such as "rate."."""
    found = [FieldViolation(prefix + wrong.field, wrong.description) for wrong in violations]
    if found:
        raise invalid_fields(found)
