"""Rates one by one: create, read, update with masks and etags, delete."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.integration.client import (
    NOON_NS,
    SECOND_NS,
    Client,
    invalid,
    make_call,
    make_rate,
    not_found,
    refused,
    timestamp,
)
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import types_pb2 as types

ALREADY_EXISTS = grpc.StatusCode.ALREADY_EXISTS
ABORTED = grpc.StatusCode.ABORTED
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
MAX_ID = 2**63 - 1
FIRST_NS = -62_135_596_800 * SECOND_NS
LAST_NS = 253_402_300_800 * SECOND_NS - 1


def get_rate(client: Client, rate_id: int) -> types.Rate:
    return client.rating.GetRate(rating_pb.GetRateRequest(id=rate_id))


def delete_rate(client: Client, rate_id: int, etag: str = "") -> None:
    client.rating.DeleteRate(rating_pb.DeleteRateRequest(id=rate_id, etag=etag))


def interval(start: int, price: str = "0.1", increment: int = 1) -> types.Interval:
    return types.Interval(start_seconds=start, cost_per_minute=price, billing_increment=increment)


def test_a_rate_keeps_every_field(client: Client, tenant: types.Tenant) -> None:
    given = make_rate(
        "44",
        "99999999.9999",
        86_400,
        tenant_id=tenant.id,
        destination="Üñï" * 66,
        connect_fee="0.5",
        minimum_seconds=2_147_483_647,
        intervals=[interval(index + 1) for index in range(63)]
        + [interval(2_147_483_647, "0", 86_400)],
        effective_from=FIRST_NS,
        effective_to=LAST_NS,
        blocked=True,
    )
    made = client.rating.CreateRate(rating_pb.CreateRateRequest(rate=given))
    assert made.id > 0
    assert made.etag
    assert made.created_at == made.updated_at
    assert made.created_at.seconds > 0
    expected = types.Rate()
    expected.CopyFrom(given)
    expected.connect_fee = "0.5000"
    for one in expected.intervals:
        one.cost_per_minute = "0.1000" if one.cost_per_minute == "0.1" else "0.0000"
    for name in ("id", "etag", "rate_revision"):
        setattr(expected, name, getattr(made, name))
    expected.created_at.CopyFrom(made.created_at)
    expected.updated_at.CopyFrom(made.updated_at)
    assert made == expected
    assert get_rate(client, made.id) == expected


def test_fields_set_by_the_server_are_ignored_on_create(
    client: Client, tenant: types.Tenant
) -> None:
    given = make_rate("44", tenant_id=tenant.id, id=MAX_ID, etag="mine")
    given.created_at.seconds = given.updated_at.seconds = 1
    made = client.rating.CreateRate(rating_pb.CreateRateRequest(rate=given))
    assert made.id != MAX_ID
    assert made.etag != "mine"
    assert made.created_at.seconds > 1
    assert made.updated_at.seconds > 1


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("+44", "44"), ("", ""), ("0044", "0044"), ("4" * 32, "4" * 32), ("+" + "4" * 32, "4" * 32)],
)
def test_a_prefix_is_digits_after_an_optional_plus(
    client: Client, tenant: types.Tenant, text: str, prefix: str
) -> None:
    assert client.new_rate(tenant.id, text).prefix == prefix


@pytest.mark.parametrize(
    "text",
    [
        *("79298 3-9", "4470-4479", "44/45", "44,45", "447.0", "(44)", "tel:44", "44;x", "44@x"),
        *(" 44", "44 ", " ", "+ 44", "++44", "44+", "４４", "+" + "4" * 33),
    ],
)
def test_a_cell_does_not_become_another_prefix(
    client: Client, tenant: types.Tenant, text: str
) -> None:
    kept = client.new_rate(tenant.id, "1")
    said = "ASCII digits with one optional leading +, without spaces, separators, ranges or lists;"
    with invalid("rate.prefix") as refusal:
        client.new_rate(tenant.id, text)
    assert said in refusal.message and repr(text) in refusal.message
    for paths in ([], ["prefix"]):
        with invalid("rate.prefix"):
            client.update_rate(make_rate(text, id=kept.id), *paths)
    outcome = client.import_rates(tenant.id, [make_rate("2"), make_rate(text)])
    [error] = outcome.errors
    assert (error.index, error.field) == (1, "prefix")
    assert said in error.message and repr(text) in error.message
    assert [rate.prefix for rate in client.export_rates(tenant.id)] == ["1"]


def test_the_tenants_dialling_rules_do_not_touch_prefixes(client: Client) -> None:
    tenant = client.new_tenant(country_code="44", national_prefix="0", international_prefix="00")
    assert client.new_rate(tenant.id, "0044").prefix == "0044"
    assert client.new_rate(tenant.id, "020").prefix == "020"


BAD_RATES: list[tuple[dict[str, Any], str]] = [
    ({"tenant_id": 0}, "rate.tenant_id"),
    ({"tenant_id": -1}, "rate.tenant_id"),
    ({"prefix": "+"}, "rate.prefix"),
    ({"prefix": " "}, "rate.prefix"),
    ({"prefix": "4x"}, "rate.prefix"),
    ({"prefix": "٤٤"}, "rate.prefix"),
    ({"prefix": "4" * 33}, "rate.prefix"),
    ({"prefix": "4\x00"}, "rate.prefix"),
    ({"destination": "d" * 201}, "rate.destination"),
    ({"destination": "\x00"}, "rate.destination"),
    ({"cost_per_minute": ""}, "rate.cost_per_minute"),
    ({"cost_per_minute": "100000000"}, "rate.cost_per_minute"),
    ({"cost_per_minute": "99999999.999999991"}, "rate.cost_per_minute"),
    ({"cost_per_minute": "0.123456789"}, "rate.cost_per_minute"),
    ({"cost_per_minute": "-0.01"}, "rate.cost_per_minute"),
    ({"connect_fee": "100000000.0000"}, "rate.connect_fee"),
    ({"connect_fee": "1e3"}, "rate.connect_fee"),
    ({"billing_increment": 0}, "rate.billing_increment"),
    ({"billing_increment": -1}, "rate.billing_increment"),
    ({"billing_increment": 86_401}, "rate.billing_increment"),
    ({"minimum_seconds": -1}, "rate.minimum_seconds"),
    ({"intervals": [interval(0)]}, "rate.intervals[0].start_seconds"),
    ({"intervals": [interval(-1)]}, "rate.intervals[0].start_seconds"),
    ({"intervals": [interval(9), interval(9)]}, "rate.intervals[1].start_seconds"),
    ({"intervals": [interval(9), interval(8)]}, "rate.intervals[1].start_seconds"),
    ({"intervals": [interval(9, "")]}, "rate.intervals[0].cost_per_minute"),
    ({"intervals": [interval(9, "100000000")]}, "rate.intervals[0].cost_per_minute"),
    ({"intervals": [interval(9, "1", 0)]}, "rate.intervals[0].billing_increment"),
    ({"intervals": [interval(9, "1", 86_401)]}, "rate.intervals[0].billing_increment"),
    ({"intervals": [interval(n + 1) for n in range(65)]}, "rate.intervals"),
    ({"effective_from": NOON_NS, "effective_to": NOON_NS}, "rate.effective_to"),
    ({"effective_from": NOON_NS, "effective_to": NOON_NS - 1}, "rate.effective_to"),
    ({"effective_from": FIRST_NS - 1}, "rate.effective_from"),
    ({"effective_to": LAST_NS + 1}, "rate.effective_to"),
]


@pytest.mark.parametrize(("fields", "field"), BAD_RATES)
def test_a_rate_that_is_refused(
    client: Client, tenant: types.Tenant, fields: dict[str, Any], field: str
) -> None:
    with invalid(field):
        rate = make_rate(**({"prefix": "44", "tenant_id": tenant.id} | fields))
        client.rating.CreateRate(rating_pb.CreateRateRequest(rate=rate))
    assert client.list_rates(tenant_id=tenant.id) == []


@pytest.mark.parametrize(
    ("fields", "field"), [row for row in BAD_RATES if row[0] != {"tenant_id": 0}]
)
def test_an_update_that_is_refused(
    client: Client, tenant: types.Tenant, fields: dict[str, Any], field: str
) -> None:
    made = client.new_rate(tenant.id, "44")
    with invalid(field):
        client.update_rate(make_rate(**({"prefix": "45", "id": made.id} | fields)))
    assert client.list_rates(tenant_id=tenant.id) == [made]


def test_all_bad_fields_are_named_at_once(client: Client, tenant: types.Tenant) -> None:
    with invalid(
        "rate.prefix",
        "rate.cost_per_minute",
        "rate.billing_increment",
        "rate.connect_fee",
        "rate.intervals[1].start_seconds",
        "rate.intervals[1].cost_per_minute",
    ):
        client.new_rate(
            tenant.id, "x", "NaN", 0, connect_fee="-", intervals=[interval(2), interval(1, "x")]
        )


def test_one_prefix_and_one_start_is_one_rate(client: Client, tenant: types.Tenant) -> None:
    client.new_rate(tenant.id, "44")
    client.new_rate(tenant.id, "44", effective_from=NOON_NS)
    client.new_rate(tenant.id, "44", effective_from=NOON_NS + 1)
    client.new_rate(tenant.id, "44", effective_from=FIRST_NS)
    for start in (None, NOON_NS, NOON_NS + 1, FIRST_NS):
        with refused(ALREADY_EXISTS, "RATE_EXISTS"):
            client.new_rate(tenant.id, "+44", effective_from=start, effective_to=LAST_NS)
    other = client.new_tenant()
    client.new_rate(other.id, "44")


def test_the_prefix_of_a_deleted_rate_can_be_used_again(
    client: Client, tenant: types.Tenant
) -> None:
    first = client.new_rate(tenant.id, "44")
    delete_rate(client, first.id)
    second = client.new_rate(tenant.id, "44")
    assert second.id > first.id
    with not_found("RATE_NOT_FOUND"):
        get_rate(client, first.id)


def test_unknown_ids(client: Client, tenant: types.Tenant) -> None:
    with not_found("TENANT_NOT_FOUND"):
        client.new_rate(MAX_ID, "44")
    with not_found("RATE_NOT_FOUND"):
        get_rate(client, MAX_ID)
    with not_found("RATE_NOT_FOUND"):
        client.update_rate(make_rate("44", id=MAX_ID))
    with not_found("RATE_NOT_FOUND"):
        delete_rate(client, MAX_ID)
    for bad in (0, -1):
        with invalid("id"):
            get_rate(client, bad)
        with invalid("id"):
            delete_rate(client, bad)
        with invalid("rate.id"):
            client.update_rate(make_rate("44", id=bad))
    with invalid("rate"):
        client.rating.CreateRate(rating_pb.CreateRateRequest())
    with invalid("rate"):
        client.rating.UpdateRate(rating_pb.UpdateRateRequest())


def test_an_update_without_a_mask_replaces(client: Client, tenant: types.Tenant) -> None:
    made = client.new_rate(
        tenant.id,
        "44",
        "0.5",
        6,
        destination="UK",
        connect_fee="1",
        minimum_seconds=30,
        intervals=[interval(60)],
        effective_from=NOON_NS,
        effective_to=NOON_NS + 1,
        blocked=True,
    )
    changed = client.update_rate(make_rate("45", "0.25", 7, id=made.id))
    expected = make_rate("45", "0.2500", 7, id=made.id, tenant_id=tenant.id, connect_fee="0.0000")
    expected.etag = changed.etag
    expected.rate_revision = changed.rate_revision
    expected.created_at.CopyFrom(made.created_at)
    expected.updated_at.CopyFrom(changed.updated_at)
    assert changed == expected
    assert changed.etag != made.etag
    assert changed.updated_at.ToNanoseconds() >= made.updated_at.ToNanoseconds()
    assert get_rate(client, made.id) == expected


NEW_VALUES: dict[str, Any] = {
    "prefix": "45",
    "destination": "Denmark",
    "cost_per_minute": "0.7000",
    "billing_increment": 11,
    "connect_fee": "0.1000",
    "minimum_seconds": 12,
    "intervals": [interval(70, "0.3000", 5)],
    "effective_from": timestamp(NOON_NS),
    "effective_to": timestamp(NOON_NS + 5),
    "blocked": True,
}


@pytest.mark.parametrize("path", list(NEW_VALUES))
def test_a_mask_changes_one_field(client: Client, tenant: types.Tenant, path: str) -> None:
    made = client.new_rate(tenant.id, "44", destination="UK", intervals=[interval(60)])
    request = types.Rate(id=made.id, **NEW_VALUES)
    changed = client.update_rate(request, path)
    expected = types.Rate()
    expected.CopyFrom(made)
    expected.ClearField(path)
    expected.MergeFrom(types.Rate(**{path: NEW_VALUES[path]}))
    expected.etag = changed.etag
    expected.rate_revision = changed.rate_revision
    expected.updated_at.CopyFrom(changed.updated_at)
    assert changed == expected
    cleared = client.update_rate(types.Rate(id=made.id, prefix="44"), "intervals", "effective_from")
    assert not cleared.intervals
    assert not cleared.HasField("effective_from")


@pytest.mark.parametrize(
    "path", ["id", "tenant_id", "etag", "created_at", "intervals.start_seconds", "x", "", "*."]
)
def test_a_path_that_cannot_be_updated(client: Client, tenant: types.Tenant, path: str) -> None:
    made = client.new_rate(tenant.id, "44")
    with invalid("update_mask"):
        client.update_rate(make_rate("44", id=made.id), path)
    assert get_rate(client, made.id) == made


def test_a_mask_protects_the_fields_it_does_not_name(client: Client, tenant: types.Tenant) -> None:
    """Fields outside the mask are neither checked nor changed."""
    made = client.new_rate(tenant.id, "44")
    request = types.Rate(id=made.id, cost_per_minute="x", billing_increment=-1, destination="new")
    assert client.update_rate(request, "destination").cost_per_minute == made.cost_per_minute


def test_an_update_is_checked_as_a_whole(client: Client, tenant: types.Tenant) -> None:
    made = client.new_rate(tenant.id, "44", effective_from=NOON_NS)
    request = types.Rate(id=made.id, effective_to=timestamp(NOON_NS))
    with invalid("rate.effective_to"):
        client.update_rate(request, "effective_to")


def test_an_update_may_not_take_the_prefix_and_start_of_another_rate(
    client: Client, tenant: types.Tenant
) -> None:
    client.new_rate(tenant.id, "44")
    made = client.new_rate(tenant.id, "45")
    with refused(ALREADY_EXISTS, "RATE_EXISTS"):
        client.update_rate(make_rate("44", id=made.id))
    dated = client.new_rate(tenant.id, "44", effective_from=NOON_NS)
    with refused(ALREADY_EXISTS, "RATE_EXISTS"):
        client.update_rate(types.Rate(id=dated.id), "effective_from")
    # Its own prefix and start are allowed.
    assert client.update_rate(make_rate("45", "0.9", id=made.id)).cost_per_minute == "0.9000"


def test_a_rate_stays_with_its_tenant(client: Client, tenant: types.Tenant) -> None:
    made = client.new_rate(tenant.id, "44")
    other = client.new_tenant()
    with invalid("rate.tenant_id"):
        client.update_rate(make_rate("44", id=made.id, tenant_id=other.id))
    same = client.update_rate(make_rate("44", "2", id=made.id, tenant_id=tenant.id))
    assert same.cost_per_minute == "2.0000"


def test_a_stale_etag_is_aborted(client: Client, tenant: types.Tenant) -> None:
    made = client.new_rate(tenant.id, "44", "0.1")
    second = client.update_rate(make_rate("44", "0.2", id=made.id, etag=made.etag))
    assert second.cost_per_minute == "0.2000"
    with refused(ABORTED, "ETAG_MISMATCH"):
        client.update_rate(make_rate("44", "0.3", id=made.id, etag=made.etag))
    for wrong in ("v", "x", "v0", second.etag + " ", "é"):
        with refused(ABORTED, "ETAG_MISMATCH"):
            client.update_rate(make_rate("44", "0.3", id=made.id, etag=wrong))
        with refused(ABORTED, "ETAG_MISMATCH"):
            delete_rate(client, made.id, wrong)
    assert get_rate(client, made.id) == second
    with refused(ABORTED, "ETAG_MISMATCH"):
        delete_rate(client, made.id, made.etag)
    delete_rate(client, made.id, second.etag)
    with not_found("RATE_NOT_FOUND"):
        delete_rate(client, made.id, second.etag)


def test_an_update_and_a_deletion_hold_for_the_next_call(
    client: Client, tenant: types.Tenant
) -> None:
    client.new_rate(tenant.id, "44", "0.1")
    mobile = client.new_rate(tenant.id, "447", "0.2")
    call = make_call(tenant.id, "447", 60)
    first = client.rate(call)
    assert first.cost == "0.2000"
    client.update_rate(make_rate("447", "0.3", id=mobile.id))
    second = client.rate(call)
    assert second.cost == "0.3000"
    assert second.rate_revision > first.rate_revision
    delete_rate(client, mobile.id)
    third = client.rate(call)
    assert third.cost == "0.1000"
    assert third.rate_revision > second.rate_revision


def test_as_many_rates_of_one_prefix_as_are_allowed(client: Client, tenant: types.Tenant) -> None:
    """Nested periods, so that the one in effect is far from the one that begins next."""
    most = 10_000
    deck = [
        make_rate(
            "44",
            effective_from=timestamp(NOON_NS - (most - at) * SECOND_NS),
            effective_to=timestamp(NOON_NS + (most - at) * SECOND_NS),
        )
        for at in range(most)
    ]
    assert client.import_rates(tenant.id, deck, messages=2).created == most
    for at in (0, most // 2, most - 1):
        call = make_call(tenant.id, "4420", started_at=timestamp(NOON_NS + at * SECOND_NS))
        answer = client.rating.RateCall(rating_pb.RateCallRequest(call=call, explain=True))
        explained = answer.explanation
        [won] = [one for one in explained.considered if one.won]
        assert won.effective_to == timestamp(NOON_NS + (at + 1) * SECOND_NS)
        assert len(explained.considered) <= 21
        assert explained.omitted + len(explained.considered) == most
        assert client.batch([call])[0].rate_id == answer.rated.rate_id == won.rate_id
    with refused(RESOURCE_EXHAUSTED, "TOO_MANY_RATES"):
        client.new_rate(tenant.id, "44")
    with refused(RESOURCE_EXHAUSTED, "TOO_MANY_RATES"):
        client.import_rates(tenant.id, [make_rate("44"), make_rate("45")])
    assert client.new_rate(tenant.id, "45").id
