"""The checks of a rate, without a database."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tollwire.service.domain.model import (
    MAX_DURATION_SECONDS,
    MAX_PRICE_E8,
    MAX_TIMESTAMP_NS,
    MIN_TIMESTAMP_NS,
    Interval,
    Rate,
)
from tollwire.service.rating.rate_checks import check_rate, check_terms, normalized

_GOOD = Rate(tenant_id=1, prefix="44", destination="UK", cost_per_minute_e8=200_0000)


def _wrong(rate: Rate) -> list[str]:
    return [violation.field for violation in check_rate(rate)]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"prefix": ""},
        {"prefix": "0" * 32},
        {"prefix": "+44020"},
        {"prefix": "0044"},
        {"destination": "x" * 200},
        {"destination": ""},
        {"cost_per_minute_e8": 0},
        {"cost_per_minute_e8": MAX_PRICE_E8, "connect_fee_e8": MAX_PRICE_E8},
        {"billing_increment": 1},
        {"billing_increment": 86_400},
        {"minimum_seconds": MAX_DURATION_SECONDS},
        {"effective_from_ns": MIN_TIMESTAMP_NS, "effective_to_ns": MAX_TIMESTAMP_NS},
        {"effective_from_ns": 5, "effective_to_ns": 6},
        {"effective_to_ns": MIN_TIMESTAMP_NS},
        {"intervals": (Interval(1, 0, 1), Interval(MAX_DURATION_SECONDS, MAX_PRICE_E8, 86_400))},
        {"intervals": tuple(Interval(start, 1, 1) for start in range(1, 65))},
    ],
)
def test_good_rates(fields: dict[str, Any]) -> None:
    assert _wrong(replace(_GOOD, **fields)) == []


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"tenant_id": 0}, "tenant_id"),
        ({"tenant_id": -1}, "tenant_id"),
        ({"prefix": "0" * 33}, "prefix"),
        ({"prefix": "44x"}, "prefix"),
        ({"prefix": "4+4"}, "prefix"),
        ({"prefix": "٤٤"}, "prefix"),
        ({"prefix": "44\0"}, "prefix"),
        ({"prefix": "44\n"}, "prefix"),
        # Would become the catch-all by accident.
        ({"prefix": "+"}, "prefix"),
        ({"prefix": " "}, "prefix"),
        ({"prefix": "tel:"}, "prefix"),
        ({"prefix": ";44"}, "prefix"),
        ({"prefix": "tel:+44"}, "prefix"),
        # Would become another prefix.
        ({"prefix": "79298 3-9"}, "prefix"),
        ({"prefix": "44/45"}, "prefix"),
        ({"destination": "x" * 201}, "destination"),
        ({"destination": "a\0"}, "destination"),
        ({"cost_per_minute_e8": -1}, "cost_per_minute"),
        ({"cost_per_minute_e8": MAX_PRICE_E8 + 1}, "cost_per_minute"),
        ({"billing_increment": 0}, "billing_increment"),
        ({"billing_increment": -60}, "billing_increment"),
        ({"billing_increment": 86_401}, "billing_increment"),
        ({"connect_fee_e8": -1}, "connect_fee"),
        ({"connect_fee_e8": MAX_PRICE_E8 + 1}, "connect_fee"),
        ({"minimum_seconds": -1}, "minimum_seconds"),
        ({"minimum_seconds": MAX_DURATION_SECONDS + 1}, "minimum_seconds"),
        ({"effective_from_ns": MIN_TIMESTAMP_NS - 1}, "effective_from"),
        ({"effective_to_ns": MAX_TIMESTAMP_NS + 1}, "effective_to"),
        ({"effective_from_ns": 5, "effective_to_ns": 5}, "effective_to"),
        ({"effective_from_ns": 6, "effective_to_ns": 5}, "effective_to"),
        ({"intervals": tuple(Interval(start, 1, 1) for start in range(1, 66))}, "intervals"),
        ({"intervals": (Interval(0, 1, 1),)}, "intervals[0].start_seconds"),
        ({"intervals": (Interval(-1, 1, 1),)}, "intervals[0].start_seconds"),
        (
            {"intervals": (Interval(MAX_DURATION_SECONDS + 1, 1, 1),)},
            "intervals[0].start_seconds",
        ),
        ({"intervals": (Interval(9, 1, 1), Interval(9, 1, 1))}, "intervals[1].start_seconds"),
        ({"intervals": (Interval(9, 1, 1), Interval(8, 1, 1))}, "intervals[1].start_seconds"),
        ({"intervals": (Interval(9, -1, 1),)}, "intervals[0].cost_per_minute"),
        ({"intervals": (Interval(9, MAX_PRICE_E8 + 1, 1),)}, "intervals[0].cost_per_minute"),
        ({"intervals": (Interval(9, 1, 0),)}, "intervals[0].billing_increment"),
        ({"intervals": (Interval(9, 1, 86_401),)}, "intervals[0].billing_increment"),
    ],
)
def test_bad_rates(fields: dict[str, Any], wrong: str) -> None:
    assert _wrong(replace(_GOOD, **fields)) == [wrong]


def test_all_wrong_fields_are_named_at_once() -> None:
    rate = Rate(
        prefix="x",
        destination="\0",
        cost_per_minute_e8=-1_0000,
        billing_increment=0,
        intervals=(Interval(9, 1, 1), Interval(3, -1, 0)),
    )
    assert _wrong(rate) == [
        "tenant_id",
        "prefix",
        "destination",
        "cost_per_minute",
        "billing_increment",
        "intervals[1].start_seconds",
        "intervals[1].cost_per_minute",
        "intervals[1].billing_increment",
    ]


def test_messages_name_the_limits_and_the_value() -> None:
    (wrong,) = check_terms(replace(_GOOD, cost_per_minute_e8=MAX_PRICE_E8 + 1))
    assert wrong.description == "must be 0 to 99999999.99999999, got 100000000.0000"
    (wrong,) = check_terms(replace(_GOOD, billing_increment=0))
    assert wrong.description == "must be 1 to 86400, got 0"
    (wrong,) = check_terms(replace(_GOOD, prefix="4470-4479"))
    assert wrong.description == (
        "must be 0 to 32 ASCII digits with one optional leading +, without spaces, separators,"
        " ranges or lists; got '4470-4479'"
    )
    (wrong,) = check_terms(replace(_GOOD, prefix="+"))
    assert wrong.description.endswith("got '+'; leave it empty for the catch-all")


@pytest.mark.parametrize(
    ("prefix", "digits"), [("", ""), ("44", "44"), ("+4420", "4420"), ("0044", "0044")]
)
def test_prefixes_are_kept_as_digits(prefix: str, digits: str) -> None:
    rate = replace(_GOOD, prefix=prefix)
    assert normalized(rate) == replace(_GOOD, prefix=digits)
