"""Checks that a rate is valid: the limits of the rating rules, and a message for each.

CreateRate, UpdateRate and ImportRates reject the same rates with the same messages.
ratingcore/wire/rate_intake.pyx accepts the rates of a deck that are plainly valid; this module
checks only the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import ratingcore
from tollwire.service.domain.checks import check_id, check_number, check_text
from tollwire.service.domain.errors import FieldViolation
from tollwire.service.domain.model import (
    MAX_BILLING_INCREMENT,
    MAX_DURATION_SECONDS,
    MAX_INTERVALS,
    MAX_NAME_CHARS,
    MAX_PREFIX_DIGITS,
    MAX_PRICE_E8,
    MAX_TIMESTAMP_NS,
    MIN_TIMESTAMP_NS,
    Rate,
)
from tollwire.service.domain.money import format_price


def check_rate(rate: Rate) -> list[FieldViolation]:
    """The violations of a rate, with field paths from the rate. The prefix may have a leading +."""
    return [*check_id("tenant_id", rate.tenant_id), *check_terms(rate)]


def check_terms(rate: Rate) -> list[FieldViolation]:
    """As ``check_rate``, for a rate whose owner is known."""
    return [
        *_check_prefix(rate.prefix),
        *check_text("destination", rate.destination, MAX_NAME_CHARS),
        *_check_price("cost_per_minute", rate.cost_per_minute_e8),
        *check_number("billing_increment", rate.billing_increment, 1, MAX_BILLING_INCREMENT),
        *_check_price("connect_fee", rate.connect_fee_e8),
        *check_number("minimum_seconds", rate.minimum_seconds, 0, MAX_DURATION_SECONDS),
        *_check_intervals(rate),
        *_check_window(rate),
    ]


def normalized(rate: Rate) -> Rate:
    """The rate with its prefix as digits only. The rate has passed ``check_terms``."""
    prefix = ratingcore.normalize_prefix(rate.prefix)
    assert prefix is not None
    return rate if prefix == rate.prefix else replace(rate, prefix=prefix)


def _check_prefix(prefix: str) -> Iterator[FieldViolation]:
    if ratingcore.normalize_prefix(prefix) is None:
        hint = "; leave it empty for the catch-all" if prefix.strip() in ("", "+") else ""
        yield FieldViolation(
            "prefix",
            f"must be 0 to {MAX_PREFIX_DIGITS} ASCII digits with one optional leading +, without"
            f" spaces, separators, ranges or lists; got {prefix[:40]!r}{hint}",
        )


def _check_price(field: str, price_e8: int) -> Iterator[FieldViolation]:
    if not 0 <= price_e8 <= MAX_PRICE_E8:
        yield FieldViolation(
            field, f"must be 0 to {format_price(MAX_PRICE_E8)}, got {format_price(price_e8)}"
        )


def _check_intervals(rate: Rate) -> Iterator[FieldViolation]:
    if len(rate.intervals) > MAX_INTERVALS:
        yield FieldViolation(
            "intervals", f"must be at most {MAX_INTERVALS}, got {len(rate.intervals)}"
        )
        return
    last_start = 0
    for index, interval in enumerate(rate.intervals):
        path = f"intervals[{index}]"
        start = interval.start_seconds
        field = f"{path}.start_seconds"
        yield from check_number(field, start, 1, MAX_DURATION_SECONDS)
        if index and 1 <= start <= last_start:
            yield FieldViolation(
                field, f"must be above that of the previous interval, {last_start}; got {start}"
            )
        yield from _check_price(f"{path}.cost_per_minute", interval.cost_per_minute_e8)
        yield from check_number(
            f"{path}.billing_increment", interval.billing_increment, 1, MAX_BILLING_INCREMENT
        )
        last_start = max(last_start, start)


def _check_window(rate: Rate) -> Iterator[FieldViolation]:
    start, end = rate.effective_from_ns, rate.effective_to_ns
    for field, time_ns in (("effective_from", start), ("effective_to", end)):
        if time_ns is not None and not MIN_TIMESTAMP_NS <= time_ns <= MAX_TIMESTAMP_NS:
            yield FieldViolation(field, "must be within the years 1 to 9999")
    if start is not None and end is not None and end <= start:
        yield FieldViolation("effective_to", "must be after effective_from")
