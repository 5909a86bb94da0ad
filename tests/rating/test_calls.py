"""Calls priced from memory: single ones, batches, and explanations."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event

from tests.world import NOON_NS, SECOND_NS, World, call
from tollwire.service.domain.errors import (
    FailedPrecondition,
    InvalidInput,
    NotFound,
    Reason,
    TollwireError,
)
from tollwire.service.domain.model import (
    MAX_COST_E8,
    MAX_DURATION_SECONDS,
    MAX_STARTED_AT_NS,
    BadCall,
    Call,
    Direction,
    Disposition,
    Interval,
    RatedCall,
    RatingStatus,
    Tenant,
    UnratedReason,
)
from tollwire.service.rating.calls import Calls, check_call, resolve_duration
from tollwire.service.storage.engine import Database

_GOOD = call(1, "+44 20", 7, call_id="a", caller_number="101", extension_id=5)


class TestChecks:
    """Checks without a database."""

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"extension_id": 0, "caller_number": "", "destination_number": "", "call_id": ""},
            {"duration_seconds": 0},
            {"duration_seconds": MAX_DURATION_SECONDS},
            {"started_at_ns": 0},
            {"started_at_ns": MAX_STARTED_AT_NS, "ended_at_ns": MAX_STARTED_AT_NS},
            {"ended_at_ns": NOON_NS},
            {"caller_number": "é" * 256, "destination_number": "x" * 256, "call_id": "y" * 255},
        ],
    )
    def test_good_calls(self, fields: dict[str, Any]) -> None:
        assert check_call(replace(_GOOD, **fields)) == []

    @pytest.mark.parametrize(
        ("fields", "wrong"),
        [
            ({"tenant_id": 0}, "tenant_id"),
            ({"tenant_id": -1}, "tenant_id"),
            ({"extension_id": -1}, "extension_id"),
            ({"caller_number": "x" * 257}, "caller_number"),
            ({"caller_number": "1\0"}, "caller_number"),
            ({"destination_number": "x" * 257}, "destination_number"),
            ({"destination_number": "\0"}, "destination_number"),
            ({"duration_seconds": -1}, "duration_seconds"),
            ({"duration_seconds": MAX_DURATION_SECONDS + 1}, "duration_seconds"),
            ({"started_at_ns": -1}, "started_at"),
            ({"started_at_ns": MAX_STARTED_AT_NS + 1}, "started_at"),
            ({"ended_at_ns": NOON_NS - 1}, "ended_at"),
            ({"ended_at_ns": MAX_STARTED_AT_NS + 1}, "ended_at"),
            ({"call_id": "x" * 256}, "call_id"),
            ({"call_id": "a\0b"}, "call_id"),
        ],
    )
    def test_bad_calls(self, fields: dict[str, Any], wrong: str) -> None:
        assert [found.field for found in check_call(replace(_GOOD, **fields))] == [wrong]

    def test_all_wrong_fields_are_named_at_once(self) -> None:
        bad = Call(
            tenant_id=0,
            destination_number="\0",
            direction=Direction.OUTBOUND,
            disposition=Disposition.ANSWERED,
            duration_seconds=-1,
            started_at_ns=-1,
            ended_at_ns=-2,
            extension_id=-1,
            caller_number="\0",
            call_id="\0",
        )
        assert [wrong.field for wrong in check_call(bad)] == [
            "tenant_id",
            "extension_id",
            "caller_number",
            "destination_number",
            "duration_seconds",
            "started_at",
            "ended_at",
            "call_id",
        ]

    @pytest.mark.parametrize(
        ("duration_seconds", "ended_at_ns", "expected"),
        [
            (None, None, None),
            (0, None, 0),
            (9, NOON_NS + 60 * SECOND_NS, 9),
            (-1, NOON_NS, -1),
            (None, NOON_NS, 0),
            (None, NOON_NS + SECOND_NS - 1, 0),
            (None, NOON_NS + SECOND_NS, 1),
            (None, NOON_NS + 61 * SECOND_NS + 999_999_999, 61),
            (None, NOON_NS - SECOND_NS, 0),
        ],
    )
    def test_the_duration(
        self, duration_seconds: int | None, ended_at_ns: int | None, expected: int | None
    ) -> None:
        assert resolve_duration(duration_seconds, NOON_NS, ended_at_ns) == expected


@pytest.fixture
def world(database: Database) -> World:
    """With tenant 1 and the rates of the worked examples, one of them blocked, one with a cost
    above the limit."""
    world = World.over(database)
    world.tenant(country_code="44", national_prefix="0", international_prefix="00")
    world.rate(1, "1", cost_e4=120, increment=60, destination="USA")
    world.rate(1, "44", cost_e4=200, increment=6, destination="UK")
    world.rate(1, "447", cost_e4=1500, increment=6, destination="UK mobile")
    world.rate(1, "4470", cost_e4=1, increment=1, destination="UK premium", blocked=True)
    world.rate(1, "882", cost_e4=99_999_999_9999, increment=86_400, destination="Satellite")
    return world


@pytest.fixture
def calls(world: World) -> Calls:
    return Calls(world.decks)


_WORKED = [
    (call(1, "+44 20 7946 0000", 7), 12, 40_0000),
    (call(1, "447911123456", 63), 66, 1650_0000),
    (call(1, "14155550123", 1), 60, 120_0000),
    (call(1, "020 7946 0000", 7), 12, 40_0000),
    (call(1, "00447911123456", 0), 0, 0),
]


class TestOne:
    @pytest.mark.parametrize(("sent", "bill_seconds", "cost_e8"), _WORKED)
    def test_worked_examples(
        self, calls: Calls, sent: Call, bill_seconds: int, cost_e8: int
    ) -> None:
        rated = calls.rate(sent)
        assert rated.status == RatingStatus.RATED
        assert (rated.bill_seconds, rated.cost_e8) == (bill_seconds, cost_e8)

    def test_the_rate_is_named(self, calls: Calls, world: World) -> None:
        rate = world.rates.get(3)
        assert calls.rate(call(1, "447911123456", 63, call_id="x")) == RatedCall(
            call_id="x",
            status=RatingStatus.RATED,
            bill_seconds=66,
            cost_e8=1650_0000,
            rate_id=rate.id,
            version_id=rate.version_id,
            matched_prefix="447",
            destination="UK mobile",
            cost_per_minute_e8=1500_0000,
            billing_increment=6,
            rate_revision=world.decks.deck(1).revision,
        )

    @pytest.mark.parametrize(
        "fields",
        [
            {"disposition": Disposition.BUSY},
            {"direction": Direction.INBOUND},
            {"direction": Direction.INTERNAL},
            {"direction": Direction.INBOUND, "destination_number": "anonymous"},
        ],
    )
    def test_a_call_that_is_not_billable_costs_nothing(
        self, calls: Calls, world: World, fields: dict[str, Any]
    ) -> None:
        assert calls.rate(replace(call(1, "447911", 600), **fields)) == RatedCall(
            call_id="",
            status=RatingStatus.NOT_BILLABLE,
            bill_seconds=0,
            cost_e8=0,
            rate_revision=world.decks.deck(1).revision,
        )

    @pytest.mark.parametrize(
        ("sent", "kind", "reason", "metadata"),
        [
            (call(9), NotFound, Reason.TENANT_NOT_FOUND, {"tenant_id": "9"}),
            (call(1, "4930"), NotFound, Reason.NO_RATE, {"tenant_id": "1"}),
            (
                call(1, "44701"),
                FailedPrecondition,
                Reason.BLOCKED,
                {"rate_id": "4", "matched_prefix": "4470"},
            ),
            (call(1, "anonymous"), InvalidInput, Reason.INVALID_NUMBER, {}),
            (call(1, ""), InvalidInput, Reason.INVALID_NUMBER, {}),
            (call(1, "882", MAX_DURATION_SECONDS), InvalidInput, Reason.COST_OVERFLOW, {}),
        ],
    )
    def test_calls_without_a_price(
        self,
        calls: Calls,
        sent: Call,
        kind: type[TollwireError],
        reason: Reason,
        metadata: dict[str, str],
    ) -> None:
        with pytest.raises(kind) as raised:
            calls.rate(sent)
        assert raised.value.reason == reason
        assert raised.value.metadata == metadata

    @pytest.mark.parametrize(
        ("sent", "field"),
        [
            (call(1, "x"), "call.destination_number"),
            (call(1, "882", MAX_DURATION_SECONDS), "call.duration_seconds"),
        ],
    )
    def test_errors_of_a_call_name_the_field(self, calls: Calls, sent: Call, field: str) -> None:
        with pytest.raises(InvalidInput) as raised:
            calls.rate(sent)
        assert [violation.field for violation in raised.value.violations] == [field]

    def test_the_greatest_cost_is_exact(self, calls: Calls, world: World) -> None:
        world.rate(
            *(1, "999", 99_999_999_9999, 60),
            intervals=(Interval(600_000_000, 9_999_0000, 60),),
        )
        rated = calls.rate(call(1, "999", 600_000_060))
        assert rated.cost_e8 == 10_000_000 * 99_999_999_9999_0000 + 9_999_0000
        assert rated.cost_e8 <= MAX_COST_E8


class TestBatch:
    def test_each_result_is_that_of_the_single_call(self, calls: Calls, world: World) -> None:
        second = world.tenants.create(Tenant(country_code="1")).id
        world.rate(second, "44", cost_e4=999, increment=1)
        pick = random.Random(5)
        numbers = ["447911", "4420", "1415", "0044701", "882", "49", "x", "", "+", "é"]
        sent = [
            call(
                pick.choice((1, second, 77)),
                pick.choice(numbers),
                pick.choice((0, 1, 63, MAX_DURATION_SECONDS)),
                direction=pick.choice((Direction.OUTBOUND, Direction.INBOUND)),
                call_id=str(index),
            )
            for index in range(400)
        ]
        results = calls.rate_batch(sent)
        assert [result.call_id for result in results] == [one.call_id for one in sent]
        for one, result in zip(sent, results, strict=True):
            assert result == _singly(calls, one), one

    def test_bad_calls_fail_alone(self, calls: Calls) -> None:
        bad = BadCall("direction", "is required", call_id="b")
        results = calls.rate_batch([call(1, "4420", 7), bad, call(1, "4420", 7)])
        assert [result.status for result in results] == [
            RatingStatus.RATED,
            RatingStatus.UNRATED,
            RatingStatus.RATED,
        ]
        assert results[1] == RatedCall(call_id="b", status=RatingStatus.UNRATED, error=bad)

    def test_an_empty_batch(self, calls: Calls) -> None:
        assert calls.rate_batch([]) == []

    def test_a_blocked_call_shows_the_rate_that_blocks_it(self, calls: Calls, world: World) -> None:
        (result,) = calls.rate_batch([call(1, "44701", 7, call_id="x")])
        assert result == RatedCall(
            call_id="x",
            status=RatingStatus.UNRATED,
            unrated_reason=UnratedReason.BLOCKED,
            rate_id=4,
            version_id=4,
            matched_prefix="4470",
            destination="UK premium",
            cost_per_minute_e8=1_0000,
            billing_increment=1,
            rate_revision=world.decks.deck(1).revision,
        )

    def test_calls_that_cannot_be_rated_have_a_reason(self, calls: Calls) -> None:
        unknown, overflowing = calls.rate_batch(
            [call(77, call_id="u"), call(1, "882", MAX_DURATION_SECONDS, call_id="d")]
        )
        assert unknown.error is not None
        assert overflowing.error is not None
        assert (unknown.error.reason, unknown.error.field) == ("TENANT_NOT_FOUND", "tenant_id")
        assert (overflowing.error.reason, overflowing.error.field) == (
            "COST_OVERFLOW",
            "duration_seconds",
        )
        for result in (unknown, overflowing):
            assert result.status == RatingStatus.UNRATED
            assert result.unrated_reason is None
            assert result.cost_e8 is None


def _singly(calls: Calls, sent: Call) -> RatedCall:
    """The result of a batch for a call, derived from the result of the single call."""
    result = RatedCall(call_id=sent.call_id, status=RatingStatus.UNRATED)
    revision = (
        calls.rate(replace(sent, direction=Direction.INBOUND)).rate_revision
        if (sent.tenant_id != 77)
        else 0
    )
    try:
        return calls.rate(sent)
    except InvalidInput as error:
        if error.reason == Reason.INVALID_NUMBER:
            reason = UnratedReason.INVALID_NUMBER
            return replace(result, unrated_reason=reason, rate_revision=revision)
        (wrong,) = error.violations
        bad = BadCall("duration_seconds", wrong.description, "COST_OVERFLOW", sent.call_id)
        return replace(result, error=bad)
    except FailedPrecondition as error:
        rate_id = int(error.metadata["rate_id"])
        return replace(
            result,
            unrated_reason=UnratedReason.BLOCKED,
            rate_id=rate_id,
            version_id=rate_id,
            matched_prefix=error.metadata["matched_prefix"],
            destination="UK premium",
            cost_per_minute_e8=1_0000,
            billing_increment=1,
            rate_revision=revision,
        )
    except NotFound as error:
        if error.reason == Reason.NO_RATE:
            return replace(result, unrated_reason=UnratedReason.NO_RATE, rate_revision=revision)
        bad = BadCall("tenant_id", error.message, "TENANT_NOT_FOUND", sent.call_id)
        return replace(result, error=bad)


def test_many_unknown_tenants_are_one_query(calls: Calls, world: World) -> None:
    looked = []

    @event.listens_for(world.database.engine, "begin")
    def _(connection: object) -> None:
        looked.append(connection)

    rated = calls.rate_batch([call(tenant_id, "447") for tenant_id in range(100, 600)])
    assert {one.error.reason for one in rated if one.error} == {Reason.TENANT_NOT_FOUND}
    assert len(looked) == 1


class TestExplain:
    def test_a_price_is_explained(self, calls: Calls) -> None:
        sent = call(1, "07911 123456", 63)
        rated, explained = calls.explain(sent)
        assert rated == calls.rate(sent)
        assert explained.normalized_number == "447911123456"
        assert [(rate.prefix, rate.won) for rate in explained.considered] == [
            ("447", True),
            ("44", False),
        ]
        assert explained.considered[0].destination == "UK mobile"
        assert all(rate.reason for rate in explained.considered)
        assert explained.steps[-1].result == "0.1650"

    @pytest.mark.parametrize("number", ["4930", "44701", "anonymous"])
    def test_an_explained_call_without_a_price_is_refused_too(
        self, calls: Calls, number: str
    ) -> None:
        with pytest.raises(TollwireError) as rated:
            calls.rate(call(1, number))
        with pytest.raises(TollwireError) as explained:
            calls.explain(call(1, number))
        assert explained.value.message == rated.value.message

    def test_windows_are_shown(self, calls: Calls, world: World) -> None:
        world.rate(1, "46", effective_from_ns=5, effective_to_ns=6)
        world.rate(1, "4")
        _, explained = calls.explain(call(1, "46"))
        hidden = explained.considered[0]
        assert (hidden.effective_from_ns, hidden.effective_to_ns, hidden.won) == (5, 6, False)

    def test_an_unknown_tenant(self, calls: Calls) -> None:
        with pytest.raises(NotFound) as raised:
            calls.explain(call(9))
        assert raised.value.reason == Reason.TENANT_NOT_FOUND
