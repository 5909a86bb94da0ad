"""Decks from the wire: the core accepts the rates that the path of a single rate accepts; that path
words the errors of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tollwire.service.domain.errors import FailedPrecondition, InvalidInput, Reason, Unwanted
from tollwire.service.domain.model import ImportMode, ImportPlan, Interval, Rate, RateError
from tollwire.service.domain.request import Request
from tollwire.service.domain.thread_context import handling
from tollwire.service.rating.deck_import import Intake, IntakeMemory
from tollwire.service.rating.rate_checks import check_terms, normalized
from tollwire.service.rpc.conversion.fields import Violations
from tollwire.service.rpc.conversion.imports import IncomingRequests
from tollwire.service.rpc.conversion.rates import read_rate
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1 import types_pb2

MERGE = types_pb2.IMPORT_MODE_MERGE
REPLACE = types_pb2.IMPORT_MODE_REPLACE
HEAD: dict[str, Any] = {"tenant_id": 7, "mode": MERGE}


def message(**changes: Any) -> types_pb2.Rate:
    fields: dict[str, Any] = {
        "id": 3,
        "prefix": "44",
        "destination": "UK",
        "cost_per_minute": "0.15",
        "billing_increment": 6,
    }
    return types_pb2.Rate(**(fields | changes))


def incoming(*requests: pb.ImportRatesRequest, told: list[bool] | None = None) -> IncomingRequests:
    """``told`` gets an item when the number of requests is known to be complete."""
    has_all: list[bool] = [] if told is None else told
    return IncomingRequests(
        iter([request.SerializeToString() for request in requests]),
        lambda: AssertionError("malformed"),
        lambda: has_all.append(True),
    )


def deck(*requests: pb.ImportRatesRequest, told: list[bool] | None = None) -> Intake:
    """All that is in the requests."""
    intake = Intake(7, IntakeMemory(2**30))
    incoming(*requests, told=told).fill(intake)
    return intake


def rates_in(intake: Intake) -> list[Rate]:
    intake.deck.sort()
    return [_rate(*row[2:]) for row in intake.deck.rows(0, len(intake.deck))]


def _rate(
    prefix: str,
    destination: str,
    price_e8: int,
    increment: int,
    connect_fee_e8: int,
    minimum_seconds: int,
    intervals: Sequence[tuple[int, int, int]],
    from_ns: int | None,
    to_ns: int | None,
    blocked: bool,
) -> Rate:
    return Rate(
        prefix=prefix,
        destination=destination,
        cost_per_minute_e8=price_e8,
        billing_increment=increment,
        connect_fee_e8=connect_fee_e8,
        minimum_seconds=minimum_seconds,
        intervals=tuple(Interval(*part) for part in intervals),
        effective_from_ns=from_ns,
        effective_to_ns=to_ns,
        blocked=blocked,
    )


def wrong_fields(call: Any) -> list[str]:
    with pytest.raises(InvalidInput) as refused:
        call()
    return sorted(violation.field for violation in refused.value.violations)


def singly(
    rate: types_pb2.Rate, start_ns: int | None = None
) -> tuple[list[Rate], list[tuple[str, str]]]:
    """The rate as CreateRate reads it, or the violations. ``start_ns``: its effective_from if it
    states none."""
    violations = Violations()
    read = read_rate(rate, violations)
    if not rate.HasField("effective_from"):
        read = replace(read, effective_from_ns=start_ns)
    unreadable = bool(violations)
    violations.merge(check_terms(read))
    if not unreadable and rate.tenant_id not in (0, 7):
        violations.add("tenant_id", f"must be 0 or the import's, 7; got {rate.tenant_id}")
    if violations:
        return [], [(violation.field, violation.description) for violation in violations]
    return [replace(normalized(read), id=0, tenant_id=0)], []


PRICES = st.one_of(
    st.sampled_from(
        [
            *(
                "",
                "0",
                "0.",
                ".5",
                "1.2345",
                "1.23456",
                "1.2345678900",
                "1.234567891",
                "99999999.99999999",
                "99999999.999999999",
            ),
            *("100000000", "000000000001", "00000001.5", "1,5", "-1", "+1", " 1", "1e3", "1."),
            *("\u0661", "1.2.3"),
        ]
    ),
    st.from_regex(r"[0-9]{1,9}(\.[0-9]{0,5})?", fullmatch=True),
)
STAMPS = st.one_of(
    st.none(),
    st.builds(
        Timestamp,
        seconds=st.sampled_from(
            [0, 5, -1, -62_135_596_800, -62_135_596_801, 253_402_300_799, 253_402_300_800, 2**62]
        ),
        nanos=st.sampled_from([0, 1, 999_999_999, 10**9, -1]),
    ),
)
MESSAGES = st.builds(
    message,
    tenant_id=st.sampled_from([0, 0, 7, 8, -1, 2**62]),
    prefix=st.one_of(
        st.sampled_from(["", "4" * 32, "4" * 33, "+44", "+", "4 4", "tel:44", "4x", "\0", "٤"]),
        st.text("0123456789+-. ", max_size=8),
    ),
    destination=st.one_of(
        st.sampled_from(["", "UK", "é" * 200, "é" * 201, "x" * 201, "\0", "a\0", "☎" * 200]),
        st.text(max_size=5),
    ),
    cost_per_minute=PRICES,
    connect_fee=PRICES,
    billing_increment=st.sampled_from([0, 1, 60, 86_400, 86_401, -1, 2**31 - 1]),
    minimum_seconds=st.sampled_from([0, 1, 2**31 - 1, -1]),
    intervals=st.sampled_from(
        [
            [],
            [],
            [types_pb2.Interval(start_seconds=1, cost_per_minute="1", billing_increment=1)],
            [types_pb2.Interval()],
        ]
    ),
    effective_from=STAMPS,
    effective_to=STAMPS,
    blocked=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(MESSAGES)
@example(message())
@example(message(destination="x" * 200, connect_fee="0.0001", minimum_seconds=1, blocked=True))
def test_a_rate_of_a_deck_is_read_as_a_single_one(rate: types_pb2.Rate) -> None:
    intake = deck(pb.ImportRatesRequest(**HEAD, rates=[rate]))
    expected, violations = singly(rate)
    assert rates_in(intake) == expected
    rejected, errors = intake.result()
    assert [(error.field, error.message) for error in errors] == violations
    assert rejected == (1 if violations else 0)


@pytest.mark.parametrize(
    ("changes", "plain"),
    [
        ({}, True),
        ({"tenant_id": 7, "connect_fee": "99999999.9999", "minimum_seconds": 2**31 - 1}, True),
        ({"prefix": "+4420", "destination": "Ö" * 200, "blocked": True}, True),
        ({"effective_from": Timestamp(seconds=-5, nanos=3), "effective_to": Timestamp()}, True),
        ({"intervals": [types_pb2.Interval()]}, False),
        ({"cost_per_minute": "1.000000001"}, False),
    ],
)
def test_ordinary_rates_need_no_object(changes: dict[str, Any], plain: bool) -> None:
    intake = Intake(7, IntakeMemory(2**30))
    request = pb.ImportRatesRequest(rates=[message(**changes)])
    left = list(intake.read(request.SerializeToString()))
    assert [types_pb2.Rate.FromString(data) for _, data in left] == (
        [] if plain else [message(**changes)]
    )


def test_a_deck_over_many_messages() -> None:
    requests = (
        pb.ImportRatesRequest(tenant_id=7, mode=REPLACE, dry_run=True),
        pb.ImportRatesRequest(rates=[message(prefix="1"), message(prefix="2")]),
        pb.ImportRatesRequest(tenant_id=7, mode=REPLACE, dry_run=True),
        pb.ImportRatesRequest(rates=[message(prefix="3", tenant_id=0)]),
    )
    head = incoming(*requests)
    assert head.plan == ImportPlan(7, ImportMode.REPLACE, dry_run=True)
    assert [rate.prefix for rate in rates_in(deck(*requests))] == ["1", "2", "3"]


PART = types_pb2.Interval(start_seconds=60, cost_per_minute="1", billing_increment=1)


def test_a_deck_that_holds_from_a_date_on() -> None:
    start = Timestamp(seconds=86_400, nanos=7)
    first = pb.ImportRatesRequest(**HEAD, effective_from=start, allow_gap=True)
    plan = incoming(first).plan
    assert (plan.effective_from_ns, plan.allow_gap) == (86_400 * 10**9 + 7, True)
    intake = Intake(7, IntakeMemory(2**30), plan.effective_from_ns)
    own = Timestamp(seconds=5)
    requests = (
        first,
        pb.ImportRatesRequest(
            rates=[
                message(prefix="1"),
                message(prefix="2", effective_from=own),
                message(prefix="3", intervals=[PART]),  # not read by the core
                message(prefix="4", effective_to=own),
                message(prefix="5", effective_to=own, cost_per_minute="x"),
            ]
        ),
    )
    incoming(*requests).fill(intake)
    assert [(rate.prefix, rate.effective_from_ns) for rate in rates_in(intake)] == [
        *(("1", plan.effective_from_ns), ("2", 5 * 10**9), ("3", plan.effective_from_ns))
    ]
    rejected, errors = intake.result()
    assert (rejected, [(error.index, error.field) for error in errors]) == (
        *(2, [(3, "effective_to"), (4, "cost_per_minute"), (4, "effective_to")]),
    )


def test_errors_of_a_deck_count_over_its_messages() -> None:
    bad = message(cost_per_minute="x", billing_increment=0, effective_to=Timestamp(nanos=-1))
    many = [message(prefix=f"1{index}") for index in range(5000)]
    intake = deck(
        pb.ImportRatesRequest(**HEAD, rates=[*many, message()]),
        pb.ImportRatesRequest(rates=[message(prefix="2"), bad, message(prefix="3")]),
    )
    rejected, errors = intake.result()
    assert rejected == 1
    assert {error.index for error in errors} == {5002}
    assert sorted(error.field for error in errors) == [
        *("billing_increment", "cost_per_minute", "effective_to")
    ]
    assert len(intake.deck) == 5003


def test_a_message_of_nothing_but_bad_rates() -> None:
    """No more of them are checked than a response shows, also in later messages."""
    message = pb.ImportRatesRequest(**HEAD, rates=[types_pb2.Rate()] * 10_000)
    requests = iter([message.SerializeToString()] * 2)
    intake = Intake(7, IntakeMemory(2**30))
    IncomingRequests(requests, lambda: AssertionError("malformed"), lambda: None).fill(intake)
    rejected, errors = intake.result()
    assert rejected == 500
    assert isinstance(errors[-1], RateError) and errors[-1].index == 499  # two errors each
    assert list(requests) == []


def test_too_many_rates_are_refused_before_any_is_checked() -> None:
    many = pb.ImportRatesRequest(rates=[types_pb2.Rate()]).SerializeToString() * 5_000_001
    first = pb.ImportRatesRequest(**HEAD).SerializeToString()
    intake = Intake(7, IntakeMemory(2**30))
    deck = IncomingRequests(iter([first + many]), lambda: AssertionError(), lambda: None)
    assert wrong_fields(lambda: deck.fill(intake)) == ["rates"]
    assert intake.deck.seen == 0


def test_the_search_for_repeated_rates_ends_with_the_client() -> None:
    intake = deck(pb.ImportRatesRequest(**HEAD, rates=[message()] * 10_000))
    looks = iter([True, True, False])
    with handling(Request(is_wanted=lambda: next(looks))), pytest.raises(Unwanted):
        intake.result()
    assert list(looks) == []


@pytest.mark.parametrize("is_plain", [True, False])
def test_the_work_for_a_deck_ends_with_its_client(is_plain: bool) -> None:
    """Within a message too."""
    interval = types_pb2.Interval(start_seconds=60, cost_per_minute="1", billing_increment=1)
    one = message() if is_plain else message(intervals=[interval])
    first = pb.ImportRatesRequest(**HEAD).SerializeToString()
    many = pb.ImportRatesRequest(rates=[one]).SerializeToString() * 200_000
    deck = IncomingRequests(iter([first + many]), lambda: AssertionError(), lambda: None)
    looks = iter([True, False])
    intake = Intake(7, IntakeMemory(2**30))
    with handling(Request(is_wanted=lambda: next(looks))), pytest.raises(Unwanted):
        deck.fill(intake)
    assert intake.deck.seen == (65_536 if is_plain else 4_096)


@pytest.mark.parametrize(
    ("first", "fields"),
    [
        (pb.ImportRatesRequest(), ["mode", "tenant_id"]),
        (pb.ImportRatesRequest(tenant_id=-1, mode=MERGE), ["tenant_id"]),
        (pb.ImportRatesRequest(tenant_id=1, mode=9), ["mode"]),
        (
            pb.ImportRatesRequest(tenant_id=1, mode=MERGE, effective_from=Timestamp(nanos=-1)),
            ["effective_from"],
        ),
    ],
)
def test_a_first_message_without_its_tenant_or_mode(
    first: pb.ImportRatesRequest, fields: list[str]
) -> None:
    assert wrong_fields(lambda: incoming(first)) == fields


def test_a_deck_without_any_message() -> None:
    assert wrong_fields(incoming) == ["tenant_id"]


@pytest.mark.parametrize(
    ("later", "field"),
    [
        (pb.ImportRatesRequest(tenant_id=8), "tenant_id"),
        (pb.ImportRatesRequest(mode=REPLACE), "mode"),
        (pb.ImportRatesRequest(dry_run=True), "dry_run"),
        (pb.ImportRatesRequest(allow_gap=True), "allow_gap"),
        (pb.ImportRatesRequest(effective_from=Timestamp(seconds=5)), "effective_from"),
    ],
)
def test_a_later_message_that_contradicts_the_first(
    later: pb.ImportRatesRequest, field: str
) -> None:
    assert wrong_fields(lambda: deck(pb.ImportRatesRequest(**HEAD), later)) == [field]


TWO = [message(prefix="1"), message(prefix="x")]


@pytest.mark.parametrize(
    "requests",
    [
        (pb.ImportRatesRequest(**HEAD, rate_count=2, rates=TWO),),
        (pb.ImportRatesRequest(**HEAD, rate_count=0),),
        (pb.ImportRatesRequest(**HEAD, rate_count=2), pb.ImportRatesRequest(rates=TWO)),
        (pb.ImportRatesRequest(**HEAD, rates=TWO), pb.ImportRatesRequest(rate_count=2)),
        (
            pb.ImportRatesRequest(**HEAD, rates=TWO[:1], rate_count=2),
            pb.ImportRatesRequest(rates=TWO[1:], rate_count=2),
        ),
    ],
)
def test_a_deck_of_as_many_rates_as_it_states(requests: tuple[pb.ImportRatesRequest, ...]) -> None:
    told: list[bool] = []
    assert deck(*requests, told=told).deck.seen in (0, 2)
    assert told


@pytest.mark.parametrize(("stated", "late"), [(0, False), (1, False), (3, False), (3, True)])
def test_a_deck_of_more_or_fewer_rates_than_it_states(stated: int, late: bool) -> None:
    """It is refused at its end: none of its rates is imported."""
    told: list[bool] = []
    first, second = (
        pb.ImportRatesRequest(**HEAD, rates=TWO, rate_count=None if late else stated),
        pb.ImportRatesRequest(rate_count=stated if late else None),
    )
    with pytest.raises(FailedPrecondition) as refused:
        deck(first, second, told=told)
    assert refused.value.reason is Reason.IMPORT_INCOMPLETE
    assert refused.value.metadata == {"expected_count": str(stated), "received_count": "2"}
    assert not told


@pytest.mark.parametrize(
    ("first", "second"), [({"rate_count": -1}, {}), ({"rate_count": 2}, {"rate_count": 3})]
)
def test_an_impossible_count(first: dict[str, int], second: dict[str, int]) -> None:
    assert wrong_fields(
        lambda: deck(
            pb.ImportRatesRequest(**HEAD, **first, rates=TWO), pb.ImportRatesRequest(**second)
        )
    ) == ["rate_count"]
