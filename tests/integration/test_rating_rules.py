"""The rating rules through the wire: every method that rates, on a real server."""

from __future__ import annotations

import time
from itertools import product

import grpc
import pytest

from tests.integration.client import (
    ANSWERED,
    BUSY,
    INBOUND,
    INTERNAL,
    NOON_NS,
    NOT_BILLABLE,
    OUTBOUND,
    RATED,
    SECOND_NS,
    UNRATED,
    Client,
    invalid,
    make_call,
    not_found,
    outcome,
    refused,
)
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2 as types

NO_RATE = types.UNRATED_REASON_NO_RATE
BLOCKED = types.UNRATED_REASON_BLOCKED
INVALID_NUMBER = types.UNRATED_REASON_INVALID_NUMBER
MAX_SECONDS = 2_147_483_647


WORKED_EXAMPLES = [
    ("+44 20 7946 0000", 7, OUTBOUND, ANSWERED, (RATED, 0, 12, "0.0040")),
    ("447911123456", 63, OUTBOUND, ANSWERED, (RATED, 0, 66, "0.1650")),
    ("14155550123", 1, OUTBOUND, ANSWERED, (RATED, 0, 60, "0.0120")),
    ("4930123456", 10, OUTBOUND, ANSWERED, (UNRATED, NO_RATE, None, None)),
    ("447911123456", 0, OUTBOUND, BUSY, (NOT_BILLABLE, 0, 0, "0.0000")),
    ("any number", 600, INBOUND, ANSWERED, (NOT_BILLABLE, 0, 0, "0.0000")),
]


def test_the_worked_examples_are_the_same_in_every_method(client: Client, deck: int) -> None:
    calls = [
        make_call(deck, number, seconds, direction=direction, disposition=disposition)
        for number, seconds, direction, disposition, _ in WORKED_EXAMPLES
    ]
    expected = [row[-1] for row in WORKED_EXAMPLES]
    assert [outcome(rated) for rated in client.batch(calls)] == expected
    stream = client.rating.StreamRateCalls(
        iter([rating_pb.StreamRateCallsRequest(calls=calls)] * 2)
    )
    answers = list(stream)
    assert len(answers) == 2
    for answer in answers:
        assert [outcome(rated) for rated in answer.rated] == expected
    for call, wanted in zip(calls, expected, strict=True):
        if wanted[0] == UNRATED:
            with not_found("NO_RATE"):
                client.rate(call)
        else:
            assert outcome(client.rate(call)) == wanted


def test_a_rated_call_names_the_rate_that_priced_it(client: Client, deck: int) -> None:
    rates = {rate.prefix: rate for rate in client.list_rates(tenant_id=deck)}
    rated = client.rate(make_call(deck, "+447911123456", 63, call_id="c-1"))
    assert rated.call_id == "c-1"
    assert rated.rate_id == rates["447"].id
    assert rated.matched_prefix == "447"
    assert rated.destination == "UK mobile"
    assert rated.cost_per_minute == "0.1500"
    assert rated.billing_increment == 6
    assert rated.rate_revision > 0
    assert not rated.HasField("error")


def test_rule_1_only_outbound_answered_calls_cost_money(client: Client, deck: int) -> None:
    pairs = list(product(types.Direction.values()[1:], types.Disposition.values()[1:]))
    assert len(pairs) == 18
    calls = [
        make_call(deck, "447911123456", 60, direction=direction, disposition=disposition)
        for direction, disposition in pairs
    ]
    for pair, rated in zip(pairs, client.batch(calls), strict=True):
        if pair == (OUTBOUND, ANSWERED):
            assert outcome(rated) == (RATED, 0, 60, "0.1500")
        else:
            assert outcome(rated) == (NOT_BILLABLE, 0, 0, "0.0000"), pair
            assert (rated.rate_id, rated.matched_prefix) == (0, "")


def test_rule_1_a_call_that_is_not_billable_may_have_any_number(client: Client, deck: int) -> None:
    for number in ("", "anonymous", "9" * 256, "+"):
        rated = client.rate(make_call(deck, number, 60, direction=INTERNAL))
        assert outcome(rated) == (NOT_BILLABLE, 0, 0, "0.0000")


def test_rule_3_the_longest_prefix_wins(client: Client, tenant: types.Tenant) -> None:
    digits = "12345678901234567890123456789012"
    for length in (0, 1, 2, 3, 9, 10, 17, 31, 32):
        client.new_rate(tenant.id, digits[:length])
    for length, matched in [(1, 1), (8, 3), (9, 9), (16, 10), (30, 17), (31, 31), (32, 32)]:
        rated = client.rate(make_call(tenant.id, digits[:length]))
        assert len(rated.matched_prefix) == matched
    assert client.rate(make_call(tenant.id, "9")).matched_prefix == ""
    assert client.rate(make_call(tenant.id, "1299")).matched_prefix == "12"


def test_rule_3_a_rate_is_in_effect_from_its_start_to_before_its_end(
    client: Client, tenant: types.Tenant
) -> None:
    client.new_rate(tenant.id, "447", effective_from=NOON_NS + 1, effective_to=NOON_NS + SECOND_NS)
    client.new_rate(tenant.id, "44")
    moments = [NOON_NS, NOON_NS + 1, NOON_NS + SECOND_NS - 1, NOON_NS + SECOND_NS]
    matched = [
        client.rate(make_call(tenant.id, started_at=moment)).matched_prefix for moment in moments
    ]
    assert matched == ["44", "447", "447", "44"]


def test_rule_3_of_one_prefix_the_later_start_wins(client: Client, tenant: types.Tenant) -> None:
    day = 86_400 * SECOND_NS
    client.new_rate(tenant.id, "44", destination="open")
    client.new_rate(tenant.id, "44", destination="first", effective_from=NOON_NS)
    client.new_rate(
        tenant.id,
        "44",
        destination="second",
        effective_from=NOON_NS + day,
        effective_to=NOON_NS + 2 * day,
    )
    at = {
        offset: client.rate(make_call(tenant.id, started_at=NOON_NS + offset)).destination
        for offset in (-1, 0, day - 1, day, 2 * day - 1, 2 * day)
    }
    assert list(at.values()) == ["open", "first", "first", "second", "second", "first"]


def test_rule_4_no_match_and_blocked_have_no_cost(client: Client, tenant: types.Tenant) -> None:
    client.new_rate(tenant.id, "44")
    barred = client.new_rate(tenant.id, "4490", "1.5", 60, destination="Premium", blocked=True)
    no_rate, blocked = make_call(tenant.id, "33123456"), make_call(tenant.id, "449012345")
    with not_found("NO_RATE"):
        client.rate(no_rate)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "BLOCKED"):
        client.rate(blocked)
    results = client.batch([no_rate, blocked])
    assert outcome(results[0]) == (UNRATED, NO_RATE, None, None)
    assert outcome(results[1]) == (UNRATED, BLOCKED, None, None)
    assert (results[0].rate_id, results[1].rate_id) == (0, barred.id)
    assert (results[1].matched_prefix, results[1].destination) == ("4490", "Premium")


def test_rule_4_a_blocked_catch_all_hides_nothing_longer(
    client: Client, tenant: types.Tenant
) -> None:
    client.new_rate(tenant.id, "", blocked=True)
    client.new_rate(tenant.id, "44")
    results = client.batch([make_call(tenant.id, "44123"), make_call(tenant.id, "33123")])
    assert [rated.status for rated in results] == [RATED, UNRATED]
    assert results[1].unrated_reason == BLOCKED


def test_rule_4_a_blocked_rate_that_is_not_in_effect_blocks_nothing(
    client: Client, tenant: types.Tenant
) -> None:
    client.new_rate(tenant.id, "44")
    client.new_rate(tenant.id, "447", blocked=True, effective_to=NOON_NS)
    assert client.rate(make_call(tenant.id)).matched_prefix == "44"


@pytest.mark.parametrize(
    ("duration", "increment", "minimum", "bill_seconds"),
    [
        (0, 60, 0, 0),
        (0, 60, 30, 0),
        (1, 1, 0, 1),
        (1, 60, 0, 60),
        (59, 60, 0, 60),
        (60, 60, 0, 60),
        (61, 60, 0, 120),
        (7, 6, 0, 12),
        (1, 1, 30, 30),
        (29, 1, 30, 30),
        (30, 1, 30, 30),
        (31, 1, 30, 31),
        (1, 60, 61, 120),
        (1, 86_400, 0, 86_400),
        (MAX_SECONDS, 86_400, 0, 2_147_558_400),
        (1, 1, MAX_SECONDS, MAX_SECONDS),
    ],
)
def test_rule_5_billed_seconds(
    client: Client,
    tenant: types.Tenant,
    duration: int,
    increment: int,
    minimum: int,
    bill_seconds: int,
) -> None:
    client.new_rate(tenant.id, "4", "0.0001", increment, minimum_seconds=minimum)
    rated = client.rate(make_call(tenant.id, "44", duration))
    assert rated.status == RATED
    assert rated.bill_seconds == bill_seconds


def test_rule_5_duration_0_pays_no_connect_fee(client: Client, tenant: types.Tenant) -> None:
    client.new_rate(tenant.id, "4", "1", 60, connect_fee="0.5", minimum_seconds=10)
    assert outcome(client.rate(make_call(tenant.id, "44", 0))) == (RATED, 0, 0, "0.0000")
    assert outcome(client.rate(make_call(tenant.id, "44", 1))) == (RATED, 0, 60, "1.5000")


@pytest.mark.parametrize(
    ("price", "increment", "fee", "duration", "cost"),
    [
        ("0.02", 1, "0", 60, "0.0200"),  # rounded once: not 60 rounded seconds
        ("0.05", 1, "0", 60, "0.0500"),
        ("0.1386", 60, "0", 60, "0.1386"),
        ("0", 60, "0.01", 5, "0.0100"),
        ("0", 60, "0", 5, "0.0000"),
        ("0.0001", 1, "0", 29, "0.0000"),
        ("0.0001", 1, "0", 30, "0.0001"),
        ("99999999.9999", 60, "99999999.9999", 60, "199999999.9998"),
    ],
)
def test_rule_6_cost(
    client: Client,
    tenant: types.Tenant,
    price: str,
    increment: int,
    fee: str,
    duration: int,
    cost: str,
) -> None:
    client.new_rate(tenant.id, "4", price, increment, connect_fee=fee)
    assert client.rate(make_call(tenant.id, "44", duration)).cost == cost


INTERVALS = [
    types.Interval(start_seconds=60, cost_per_minute="0.3000", billing_increment=30),
    types.Interval(start_seconds=100, cost_per_minute="0.0600", billing_increment=60),
]


@pytest.mark.parametrize(
    ("duration", "bill_seconds", "cost"),
    [
        (0, 0, "0.0000"),
        (1, 7, "0.1700"),  # fee 0.10 + 7 s at 0.60
        (56, 56, "0.6600"),
        (57, 63, "0.7300"),  # ends before 60: rounded up by its own 7, past the next start
        (59, 63, "0.7300"),
        (60, 60, "0.7000"),  # reaches 60: never billed past it
        (61, 90, "0.8500"),  # 60 + 30 at 0.30
        (90, 90, "0.8500"),
        (91, 120, "1.0000"),  # 60 + 60 at 0.30: ends before 100
        (99, 120, "1.0000"),
        (100, 100, "0.9000"),  # 60 + 40
        (101, 160, "0.9600"),  # 60 + 40 + 60 at 0.06
        (160, 160, "0.9600"),
        (161, 220, "1.0200"),
    ],
)
def test_rule_7_intervals(
    client: Client, tenant: types.Tenant, duration: int, bill_seconds: int, cost: str
) -> None:
    client.new_rate(tenant.id, "4", "0.6", 7, connect_fee="0.1", intervals=INTERVALS)
    rated = client.rate(make_call(tenant.id, "44", duration))
    assert outcome(rated) == (RATED, 0, bill_seconds, cost)


def test_rule_7_the_sum_of_the_parts_is_rounded_once(client: Client, tenant: types.Tenant) -> None:
    # 1 s at 0.0029 and 1 s at 0.0001: 0.00004833… + 0.00000166… is 0.00005 exactly.
    interval = types.Interval(start_seconds=1, cost_per_minute="0.0001", billing_increment=1)
    client.new_rate(tenant.id, "4", "0.0029", 1, intervals=[interval])
    assert client.rate(make_call(tenant.id, "44", 2)).cost == "0.0001"


# 0.0001 a minute, 30 s: 0.00005 exactly; 0.0003: 0.00015 exactly; 20 s of 0.0001: 0.0000333…
ROUNDINGS = {
    types.ROUNDING_UNSPECIFIED: ("0.0001", "0.0002", "0.0000", "0.0001"),
    types.ROUNDING_HALF_UP: ("0.0001", "0.0002", "0.0000", "0.0001"),
    types.ROUNDING_HALF_EVEN: ("0.0000", "0.0002", "0.0000", "0.0001"),
    types.ROUNDING_UP: ("0.0001", "0.0002", "0.0001", "0.0001"),
    types.ROUNDING_DOWN: ("0.0000", "0.0001", "0.0000", "0.0000"),
}


@pytest.mark.parametrize("rounding", list(ROUNDINGS))
def test_rule_8_the_tenants_rounding(client: Client, rounding: types.Rounding.ValueType) -> None:
    tenant = client.new_tenant(rounding=rounding)
    client.new_rate(tenant.id, "1", "0.0001", 1)
    client.new_rate(tenant.id, "3", "0.0003", 1)
    rated = client.batch(
        make_call(tenant.id, number, seconds)
        for number, seconds in [("1", 30), ("3", 30), ("1", 20), ("1", 40)]
    )
    assert tuple(one.cost for one in rated) == ROUNDINGS[rounding]


def test_a_change_of_the_rounding_holds_for_the_next_call(
    client: Client, tenant: types.Tenant
) -> None:
    client.new_rate(tenant.id, "1", "0.0001", 1)
    assert client.rate(make_call(tenant.id, "1", 20)).cost == "0.0000"
    tenant.rounding = types.ROUNDING_UP
    client.tenants.UpdateTenant(tenant_pb.UpdateTenantRequest(tenant=tenant))
    assert client.rate(make_call(tenant.id, "1", 20)).cost == "0.0001"


def test_the_largest_cost_and_the_first_that_is_refused(
    client: Client, tenant: types.Tenant
) -> None:
    # 10 million minutes at the highest price are 999,999,999,999,000.
    seconds = 600_000_000
    client.new_rate(tenant.id, "41", "99999999.9999", 60, connect_fee="999.9999")
    client.new_rate(tenant.id, "42", "99999999.9999", 60, connect_fee="1000")
    fits, over = make_call(tenant.id, "41", seconds), make_call(tenant.id, "42", seconds)
    longest = make_call(tenant.id, "41", MAX_SECONDS)
    assert client.rate(fits).cost == "999999999999999.9999"
    for call in (over, longest):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "COST_OVERFLOW", "call.duration_seconds"):
            client.rate(call)
    results = client.batch([over, fits, longest])
    assert results[1].cost == "999999999999999.9999"
    for result in (results[0], results[2]):
        assert outcome(result) == (UNRATED, 0, None, None)
        assert (result.error.reason, result.error.field) == ("COST_OVERFLOW", "duration_seconds")


def test_a_duration_that_is_not_given_is_the_time_between(
    client: Client, tenant: types.Tenant
) -> None:
    client.new_rate(tenant.id, "4", "60", 1)
    spans = {0: "0.0000", SECOND_NS - 1: "0.0000", SECOND_NS: "1.0000", 3 * SECOND_NS - 1: "2.0000"}
    for span, cost in spans.items():
        start = NOON_NS + 999_999_999
        call = make_call(tenant.id, "44", None, started_at=start, ended_at=start + span)
        assert client.rate(call).cost == cost, span
    # A duration that is given is taken as it is.
    call = make_call(tenant.id, "44", 7, ended_at=NOON_NS + 100 * SECOND_NS)
    assert client.rate(call).cost == "7.0000"
    with invalid("call.duration_seconds"):
        client.rate(make_call(tenant.id, "44", None))
    with invalid("call.ended_at"):
        client.rate(make_call(tenant.id, "44", 7, ended_at=NOON_NS - 1))


def test_a_call_without_a_start_is_rated_as_of_now(client: Client, tenant: types.Tenant) -> None:
    an_hour_ago = time.time_ns() - 3600 * SECOND_NS
    in_an_hour = an_hour_ago + 7200 * SECOND_NS
    client.new_rate(tenant.id, "4", destination="before", effective_to=an_hour_ago)
    client.new_rate(
        tenant.id, "4", destination="now", effective_from=an_hour_ago, effective_to=in_an_hour
    )
    client.new_rate(tenant.id, "4", destination="after", effective_from=in_an_hour)
    call = make_call(tenant.id, "44")
    call.ClearField("started_at")
    assert client.rate(call).destination == "now"
    assert client.batch([call])[0].destination == "now"


def test_nothing_is_stored_by_rating(client: Client, deck: int) -> None:
    client.rate(make_call(deck))
    client.batch([make_call(deck)])
    assert client.list_cdrs(tenant_id=deck) == []


def test_calls_of_ten_thousand_unknown_tenants_each_get_an_error(client: Client, deck: int) -> None:
    calls = [make_call(2**40 + index, "44") for index in range(9_999)]
    results = client.batch([*calls, make_call(deck, "44", 60)])
    assert {result.error.reason for result in results[:-1]} == {"TENANT_NOT_FOUND"}
    assert {result.error.field for result in results[:-1]} == {"tenant_id"}
    assert results[-1].cost == "0.0200"
