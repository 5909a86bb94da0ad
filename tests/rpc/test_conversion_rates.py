"""Rates and decks, from the wire and to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from tollwire.service.domain import model
from tollwire.service.domain.errors import InvalidInput
from tollwire.service.domain.model import ImportOutcome, Interval, Rate, RateError
from tollwire.service.rpc.conversion import rates
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1 import types_pb2

UPDATABLE = {
    "prefix": "prefix",
    "destination": "destination",
    "cost_per_minute": "cost_per_minute_e8",
    "billing_increment": "billing_increment",
    "connect_fee": "connect_fee_e8",
    "minimum_seconds": "minimum_seconds",
    "intervals": "intervals",
    "effective_from": "effective_from_ns",
    "effective_to": "effective_to_ns",
    "blocked": "blocked",
}
OUTPUT_ONLY = {"id": 0, "created_at_ns": 0, "updated_at_ns": 0, "version_id": 0}


def message(**changes: Any) -> types_pb2.Rate:
    fields: dict[str, Any] = {
        "id": 3,
        "tenant_id": 7,
        "prefix": "+447",
        "destination": "UK mobile",
        "cost_per_minute": "0.15",
        "billing_increment": 6,
    }
    fields.update(changes)
    return types_pb2.Rate(**{name: value for name, value in fields.items() if value is not None})


def create(sent: types_pb2.Rate) -> Rate:
    return rates.rate_to_create(pb.CreateRateRequest(rate=sent))


def update(sent: types_pb2.Rate, *paths: str) -> tuple[Rate, frozenset[str]]:
    request = pb.UpdateRateRequest(rate=sent)
    request.update_mask.paths.extend(paths)
    return rates.rate_to_update(request)


def wrong_fields(act: Callable[[], object]) -> list[str]:
    with pytest.raises(InvalidInput) as refused:
        act()
    assert refused.value.reason == "INVALID_FIELD"
    return sorted(violation.field for violation in refused.value.violations)


prices_e4 = st.integers(0, model.MAX_PRICE_E8)
increments = st.integers(1, model.MAX_BILLING_INCREMENT)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)


@st.composite
def some_rates(draw: st.DrawFn) -> Rate:
    starts = draw(st.sets(st.integers(1, model.MAX_DURATION_SECONDS), max_size=4))
    ends = draw(
        st.lists(
            st.integers(model.MIN_TIMESTAMP_NS, model.MAX_TIMESTAMP_NS),
            min_size=2,
            max_size=2,
            unique=True,
        )
    )
    return Rate(
        id=draw(st.integers(1, model.MAX_ID)),
        tenant_id=draw(st.integers(1, model.MAX_ID)),
        prefix=draw(st.text("0123456789", max_size=32)),
        destination=draw(texts),
        cost_per_minute_e8=draw(prices_e4),
        billing_increment=draw(increments),
        connect_fee_e8=draw(prices_e4),
        minimum_seconds=draw(st.integers(0, model.MAX_DURATION_SECONDS)),
        intervals=tuple(
            Interval(start, draw(prices_e4), draw(increments)) for start in sorted(starts)
        ),
        effective_from_ns=draw(st.sampled_from([None, min(ends)])),
        effective_to_ns=draw(st.sampled_from([None, max(ends)])),
        blocked=draw(st.booleans()),
        created_at_ns=draw(st.integers(0, 2**62)),
        updated_at_ns=draw(st.integers(0, 2**62)),
        version_id=draw(st.integers(1, model.MAX_ID)),
    )


@given(some_rates())
def test_a_shown_rate_can_be_sent_back(rate: Rate) -> None:
    shown = rates.rate(rate)
    assert shown.etag == f"v{rate.version_id}"
    assert shown.created_at.seconds * 10**9 + shown.created_at.nanos == rate.created_at_ns
    assert replace(create(shown), **OUTPUT_ONLY) == replace(rate, **OUTPUT_ONLY)
    read, changed = update(shown)
    assert changed == frozenset(UPDATABLE.values())
    assert replace(read, **OUTPUT_ONLY) == replace(rate, **OUTPUT_ONLY)
    assert read.id == rate.id


def test_defaults() -> None:
    rate = create(message())
    assert rate == Rate(
        id=3,
        tenant_id=7,
        prefix="+447",
        destination="UK mobile",
        cost_per_minute_e8=1500_0000,
        billing_increment=6,
    )


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"prefix": "44a"}, ["prefix"]),
    ({"prefix": "+"}, ["prefix"]),
    ({"prefix": "4" * 33}, ["prefix"]),
    ({"prefix": "4\0"}, ["prefix"]),
    ({"destination": "x" * 201}, ["destination"]),
    ({"destination": "\0"}, ["destination"]),
    ({"cost_per_minute": None}, ["cost_per_minute"]),
    ({"cost_per_minute": "1,5"}, ["cost_per_minute"]),
    ({"cost_per_minute": "0.123456789"}, ["cost_per_minute"]),
    ({"cost_per_minute": "-1"}, ["cost_per_minute"]),
    ({"cost_per_minute": "100000000"}, ["cost_per_minute"]),
    ({"billing_increment": None}, ["billing_increment"]),
    ({"billing_increment": -1}, ["billing_increment"]),
    ({"billing_increment": 86_401}, ["billing_increment"]),
    ({"connect_fee": "x"}, ["connect_fee"]),
    ({"connect_fee": "100000000"}, ["connect_fee"]),
    ({"minimum_seconds": -1}, ["minimum_seconds"]),
    (
        {"intervals": [types_pb2.Interval(), types_pb2.Interval(cost_per_minute="x")]},
        [
            "intervals[0].billing_increment",
            "intervals[0].cost_per_minute",
            "intervals[0].start_seconds",
            "intervals[1].billing_increment",
            "intervals[1].cost_per_minute",
            "intervals[1].start_seconds",
        ],
    ),
    (
        {
            "intervals": [
                types_pb2.Interval(start_seconds=60, cost_per_minute="0", billing_increment=1),
                types_pb2.Interval(start_seconds=60, cost_per_minute="0", billing_increment=1),
            ]
        },
        ["intervals[1].start_seconds"],
    ),
    (
        {
            "intervals": [
                types_pb2.Interval(start_seconds=index, cost_per_minute="0", billing_increment=1)
                for index in range(1, 66)
            ]
        },
        ["intervals"],
    ),
    ({"effective_from": Timestamp(nanos=-1)}, ["effective_from"]),
    ({"effective_to": Timestamp(seconds=2**40)}, ["effective_to"]),
    ({"effective_from": Timestamp(), "effective_to": Timestamp()}, ["effective_to"]),
    (
        {"prefix": "x", "cost_per_minute": "x", "billing_increment": 0},
        ["billing_increment", "cost_per_minute", "prefix"],
    ),
]


@pytest.mark.parametrize(("changes", "fields"), WRONG)
def test_every_wrong_field_is_named_at_once(changes: dict[str, Any], fields: list[str]) -> None:
    paths = [f"rate.{field}" for field in fields]
    assert wrong_fields(lambda: create(message(**changes))) == paths
    assert wrong_fields(lambda: update(message(**changes))) == paths
    assert wrong_fields(lambda: update(message(**changes), "*")) == paths


def test_the_owner_is_required_on_creation_only() -> None:
    for tenant_id in (0, -1):
        assert wrong_fields(lambda tenant_id=tenant_id: create(message(tenant_id=tenant_id))) == [
            "rate.tenant_id"
        ]
    update(message(tenant_id=0))


def test_a_missing_rate() -> None:
    assert wrong_fields(lambda: rates.rate_to_create(pb.CreateRateRequest())) == ["rate"]
    assert wrong_fields(lambda: rates.rate_to_update(pb.UpdateRateRequest())) == ["rate"]


@pytest.mark.parametrize("rate_id", [0, -1])
def test_an_update_and_a_deletion_need_an_id(rate_id: int) -> None:
    assert wrong_fields(lambda: update(message(id=rate_id))) == ["rate.id"]
    assert wrong_fields(lambda: update(message(id=rate_id), "prefix")) == ["rate.id"]
    request = pb.DeleteRateRequest(id=rate_id, etag="\0")
    assert wrong_fields(lambda: rates.rate_to_delete(request)) == ["etag", "id"]


def test_a_deletion() -> None:
    assert rates.rate_to_delete(pb.DeleteRateRequest(id=3, etag="v4")) == (3, "v4")
    assert rates.rate_to_delete(pb.DeleteRateRequest(id=3)) == (3, "")


@pytest.mark.parametrize(("path", "field"), UPDATABLE.items())
def test_a_mask_names_fields_as_the_wire_does(path: str, field: str) -> None:
    assert update(message(), path)[1] == {field}


def test_only_the_fields_in_the_mask_are_checked() -> None:
    spoiled = types_pb2.Rate(
        id=3,
        destination="new",
        cost_per_minute="x",
        connect_fee="x",
        effective_from=Timestamp(nanos=-1),
        effective_to=Timestamp(nanos=-1),
        intervals=[types_pb2.Interval(cost_per_minute="x")],
    )
    rate, changed = update(spoiled, "destination", "blocked")
    assert (rate.destination, changed) == ("new", {"destination", "blocked"})
    assert wrong_fields(lambda: update(spoiled, "cost_per_minute", "intervals")) == [
        "rate.cost_per_minute",
        "rate.intervals[0].cost_per_minute",
    ]
    assert wrong_fields(lambda: update(spoiled, "effective_to")) == ["rate.effective_to"]


@pytest.mark.parametrize(
    "path", ["id", "tenant_id", "etag", "created_at", "updated_at", "rate.prefix", "nonsense", ""]
)
def test_a_path_that_cannot_be_updated(path: str) -> None:
    assert wrong_fields(lambda: update(message(), "prefix", path)) == ["update_mask"]


def test_a_bad_mask_and_a_bad_field_are_named_together() -> None:
    assert wrong_fields(
        lambda: update(message(id=0, cost_per_minute="x", etag="\0"), "id", "cost_per_minute")
    ) == ["rate.cost_per_minute", "rate.etag", "rate.id", "update_mask"]


def test_the_outcome_of_an_import() -> None:
    errors: Sequence[RateError] = [RateError(4, "prefix", "is no prefix")]
    outcome = ImportOutcome(1, 2, 3, 4, 5, tuple(errors), 6)
    assert rates.import_outcome(outcome) == pb.ImportRatesResponse(
        created=1,
        updated=2,
        deleted=3,
        unchanged=4,
        rejected=5,
        errors=[pb.ImportError(index=4, field="prefix", message="is no prefix")],
        rate_revision=6,
    )
