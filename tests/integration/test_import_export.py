"""Whole decks: an export equals the import, and an import has an effect as a whole or none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
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
)
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import types_pb2 as types

MERGE = types.IMPORT_MODE_MERGE
REPLACE = types.IMPORT_MODE_REPLACE
FIRST_NS = -62_135_596_800 * SECOND_NS
LAST_NS = 253_402_300_800 * SECOND_NS - 1

Counts = tuple[int, int, int, int, int]


def counts(outcome: rating_pb.ImportRatesResponse) -> Counts:
    """created, updated, deleted, unchanged, rejected"""
    return (
        outcome.created,
        outcome.updated,
        outcome.deleted,
        outcome.unchanged,
        outcome.rejected,
    )


def contents(rates: list[types.Rate]) -> list[types.Rate]:
    """The rates without what the server sets."""
    bare = []
    for rate in rates:
        copy = types.Rate()
        copy.CopyFrom(rate)
        for name in ("id", "tenant_id", "etag", "created_at", "updated_at", "rate_revision"):
            copy.ClearField(name)
        bare.append(copy)
    return bare


def rich_deck() -> list[types.Rate]:
    """Rates with every field, in the order of an export."""
    interval = types.Interval(start_seconds=60, cost_per_minute="0.0100", billing_increment=1)
    last = types.Interval(
        start_seconds=2_147_483_647, cost_per_minute="99999999.9999", billing_increment=86_400
    )
    return [
        make_rate("", "0.0000", 1, connect_fee="0.0000", blocked=True),
        make_rate("1", "99999999.9999", 86_400, connect_fee="99999999.9999"),
        make_rate("1", "0.0200", 60, connect_fee="0.0000", effective_from=FIRST_NS),
        make_rate("1", "0.0200", 60, connect_fee="0.0000", effective_from=-1),
        make_rate(
            *("1", "0.0200", 60),
            connect_fee="0.0000",
            effective_from=NOON_NS,
            effective_to=NOON_NS + 1,
            intervals=[interval, last],
            minimum_seconds=2_147_483_647,
            destination='quotes " and , and 100%\n and ☎ \U0001f4de',
        ),
        make_rate("1", "0.0200", 60, connect_fee="0.0000", effective_from=NOON_NS + 1),
        make_rate("11", "0.0001", 1, connect_fee="0.0001", effective_to=LAST_NS),
        make_rate("2" * 32, "0.1000", 1, connect_fee="0.0000"),
    ]


def test_an_export_can_be_imported_elsewhere_unchanged(
    client: Client, tenant: types.Tenant
) -> None:
    deck = rich_deck()
    outcome = client.import_rates(tenant.id, deck, messages=3)
    assert counts(outcome) == (len(deck), 0, 0, 0, 0)
    exported = client.export_rates(tenant.id)
    assert contents(exported) == deck
    assert {rate.tenant_id for rate in exported} == {tenant.id}
    assert all(rate.id and rate.etag for rate in exported)
    other = client.new_tenant()
    for rate in exported:
        rate.tenant_id = 0
    assert counts(client.import_rates(other.id, exported)) == (len(deck), 0, 0, 0, 0)
    assert contents(client.export_rates(other.id)) == deck
    again = client.import_rates(other.id, client.export_rates(other.id), REPLACE)
    assert counts(again) == (0, 0, 0, len(deck), 0)


def test_the_same_deck_again_changes_nothing(client: Client, tenant: types.Tenant) -> None:
    first = client.import_rates(tenant.id, rich_deck())
    before = client.export_rates(tenant.id)
    for mode in (MERGE, REPLACE):
        outcome = client.import_rates(tenant.id, rich_deck(), mode)
        assert counts(outcome) == (0, 0, 0, len(before), 0)
        assert outcome.rate_revision == first.rate_revision
    assert client.export_rates(tenant.id) == before


def test_merge_keeps_and_replace_deletes_the_other_rates(
    client: Client, tenant: types.Tenant
) -> None:
    client.import_rates(tenant.id, [make_rate("1"), make_rate("2"), make_rate("3")])
    before = {rate.prefix: rate for rate in client.export_rates(tenant.id)}
    deck = [make_rate("+1"), make_rate("2", "0.9"), make_rate("4")]
    dry = client.import_rates(tenant.id, deck, dry_run=True)
    outcome = client.import_rates(tenant.id, deck)
    assert counts(dry) == counts(outcome) == (1, 1, 0, 1, 0)
    after = {rate.prefix: rate for rate in client.export_rates(tenant.id)}
    assert list(after) == ["1", "2", "3", "4"]
    assert after["1"] == before["1"]
    assert after["3"] == before["3"]
    assert after["2"].id == before["2"].id
    assert after["2"].etag != before["2"].etag
    assert after["2"].created_at == before["2"].created_at
    assert after["2"].cost_per_minute == "0.9000"
    dry = client.import_rates(tenant.id, deck, REPLACE, dry_run=True)
    outcome = client.import_rates(tenant.id, deck, REPLACE)
    assert counts(dry) == counts(outcome) == (0, 0, 1, 3, 0)
    assert [rate.prefix for rate in client.export_rates(tenant.id)] == ["1", "2", "4"]


def test_an_import_holds_for_the_next_call(client: Client, tenant: types.Tenant) -> None:
    client.import_rates(tenant.id, [make_rate("44", "0.1"), make_rate("447", "0.2")])
    first = client.rate(make_call(tenant.id))
    outcome = client.import_rates(tenant.id, [make_rate("44", "0.3")], REPLACE)
    second = client.rate(make_call(tenant.id))
    assert (first.cost, second.cost) == ("0.2000", "0.3000")
    assert first.rate_revision < second.rate_revision == outcome.rate_revision


@pytest.mark.parametrize("mode", [MERGE, REPLACE])
def test_a_dry_run_changes_nothing(client: Client, tenant: types.Tenant, mode: int) -> None:
    client.import_rates(tenant.id, [make_rate("1"), make_rate("2")])
    before = client.export_rates(tenant.id)
    revision = client.rate(make_call(tenant.id, "1")).rate_revision
    outcome = client.import_rates(
        tenant.id, [make_rate("2", "0.7"), make_rate("3")], mode, dry_run=True
    )
    assert counts(outcome) == (1, 1, int(mode == REPLACE), 0, 0)
    assert client.export_rates(tenant.id) == before
    assert client.rate(make_call(tenant.id, "1")).rate_revision == revision


def test_an_empty_deck(client: Client, tenant: types.Tenant) -> None:
    client.import_rates(tenant.id, [make_rate("1"), make_rate("2")])
    assert counts(client.import_rates(tenant.id, [])) == (0, 0, 0, 0, 0)
    assert len(client.export_rates(tenant.id)) == 2
    assert counts(client.import_rates(tenant.id, [], REPLACE)) == (0, 0, 2, 0, 0)
    assert client.export_rates(tenant.id) == []


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prefix": "4x"}, "prefix"),
    ({"prefix": "+"}, "prefix"),
    ({"prefix": "79298 3-9"}, "prefix"),
    ({"prefix": "4470-4479"}, "prefix"),
    ({"cost_per_minute": "1,000.00"}, "cost_per_minute"),
    ({"cost_per_minute": ""}, "cost_per_minute"),
    ({"cost_per_minute": "0.000000001"}, "cost_per_minute"),
    ({"billing_increment": 0}, "billing_increment"),
    ({"connect_fee": "x"}, "connect_fee"),
    ({"minimum_seconds": -1}, "minimum_seconds"),
    ({"destination": "\x00"}, "destination"),
    ({"effective_from": NOON_NS, "effective_to": NOON_NS}, "effective_to"),
    ({"effective_from": FIRST_NS - 1}, "effective_from"),
    ({"tenant_id": 2**40}, "tenant_id"),
    ({"intervals": [types.Interval(start_seconds=1)]}, "intervals[0].cost_per_minute"),
]


@pytest.mark.parametrize(("fields", "field"), BAD)
def test_one_bad_rate_in_three_messages_changes_nothing(
    client: Client, tenant: types.Tenant, fields: dict[str, Any], field: str
) -> None:
    mode = REPLACE if BAD.index((fields, field)) % 2 else MERGE
    client.import_rates(tenant.id, [make_rate("9")])
    before = client.export_rates(tenant.id)
    deck = [make_rate(f"{index:03d}") for index in range(30)]
    deck[17] = make_rate(**({"prefix": "017"} | fields))
    outcome = client.import_rates(tenant.id, deck, mode, messages=3)
    assert counts(outcome) == (0, 0, 0, 0, 1)
    assert {error.index for error in outcome.errors} == {17}
    assert field in [error.field for error in outcome.errors]
    assert all(error.message for error in outcome.errors)
    assert client.export_rates(tenant.id) == before


def test_a_dry_run_says_what_would_be_rejected(client: Client, tenant: types.Tenant) -> None:
    deck = [make_rate("1"), make_rate("x"), make_rate("2"), make_rate("3", "")]
    wet = client.import_rates(tenant.id, deck)
    dry = client.import_rates(tenant.id, deck, dry_run=True)
    assert dry == wet
    assert counts(dry) == (0, 0, 0, 0, 2)
    assert [error.index for error in dry.errors] == [1, 3]


def test_one_prefix_and_start_twice_in_a_deck_is_rejected(
    client: Client, tenant: types.Tenant
) -> None:
    deck = [make_rate("44"), make_rate("44", effective_from=NOON_NS), make_rate("+44", "0.5")]
    outcome = client.import_rates(tenant.id, deck, messages=3)
    assert counts(outcome) == (0, 0, 0, 0, 1)
    assert [(error.index, error.field) for error in outcome.errors] == [(2, "prefix")]
    assert client.export_rates(tenant.id) == []


def test_no_more_than_the_first_thousand_errors_are_looked_for(
    client: Client, tenant: types.Tenant
) -> None:
    deck = [make_rate("x")] * 1500
    outcome = client.import_rates(tenant.id, deck, messages=4)
    assert outcome.rejected == 1000
    assert [error.index for error in outcome.errors] == list(range(1000))


def test_the_head_of_an_import(client: Client, tenant: types.Tenant) -> None:
    rates = [make_rate("1")]
    with not_found("TENANT_NOT_FOUND"):
        client.import_rates(2**62, rates)
    with invalid("tenant_id"):
        client.import_rates(0, rates)
    with invalid("tenant_id"):
        client.import_rates(-1, rates)
    with invalid("mode"):
        client.import_rates(tenant.id, rates, types.IMPORT_MODE_UNSPECIFIED)
    with invalid("mode"):
        client.import_rates(tenant.id, rates, 3)
    with invalid("tenant_id", "mode"):
        client.rating.ImportRates(iter([rating_pb.ImportRatesRequest(rates=rates)]))
    with invalid("tenant_id"):
        client.rating.ImportRates(iter([]))
    assert client.export_rates(tenant.id) == []


def test_later_messages_repeat_the_head_or_leave_it_out(
    client: Client, tenant: types.Tenant
) -> None:
    def parts(tenant_id: int, mode: int) -> list[rating_pb.ImportRatesRequest]:
        return [
            rating_pb.ImportRatesRequest(tenant_id=tenant.id, mode=MERGE, rates=[make_rate("1")]),
            rating_pb.ImportRatesRequest(
                tenant_id=tenant_id,
                mode=mode,
                rates=[make_rate("2")],
            ),
        ]

    assert counts(client.rating.ImportRates(iter(parts(0, 0)))) == (2, 0, 0, 0, 0)
    assert counts(client.rating.ImportRates(iter(parts(tenant.id, MERGE)))) == (0, 0, 0, 2, 0)
    with invalid("tenant_id"):
        client.rating.ImportRates(iter(parts(tenant.id + 1, MERGE)))
    with invalid("mode"):
        client.rating.ImportRates(iter(parts(tenant.id, REPLACE)))


def test_a_broken_import_changes_nothing(client: Client, tenant: types.Tenant) -> None:
    sent = threading.Event()
    go_on = threading.Event()

    def messages() -> Iterator[rating_pb.ImportRatesRequest]:
        yield rating_pb.ImportRatesRequest(
            tenant_id=tenant.id, mode=REPLACE, rates=[make_rate("1")]
        )
        sent.set()
        go_on.wait(20)

    client.import_rates(tenant.id, [make_rate("9")])
    with Client(client.address) as leaver:
        future = leaver.rating.ImportRates.future(messages())
        assert sent.wait(20)
        future.cancel()
        go_on.set()
    assert [rate.prefix for rate in client.export_rates(tenant.id)] == ["9"]
    # The tenant is not locked.
    assert counts(client.import_rates(tenant.id, [make_rate("1")])) == (1, 0, 0, 0, 0)


@pytest.mark.parametrize("dry_run", [False, True])
def test_an_incomplete_deck_changes_nothing(
    client: Client, tenant: types.Tenant, dry_run: bool
) -> None:
    client.import_rates(tenant.id, [make_rate("9")])
    head = {"tenant_id": tenant.id, "mode": REPLACE, "dry_run": dry_run}

    def messages(rate_count: int) -> Iterator[rating_pb.ImportRatesRequest]:
        yield rating_pb.ImportRatesRequest(rates=[make_rate("1"), make_rate("x")], **head)
        yield rating_pb.ImportRatesRequest(rates=[make_rate("2")], rate_count=rate_count)

    for rate_count in (0, 2, 4):
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "IMPORT_INCOMPLETE") as refusal:
            client.rating.ImportRates(messages(rate_count))
        assert refusal.metadata == {"expected_count": str(rate_count), "received_count": "3"}
    assert counts(client.rating.ImportRates(messages(3))) == (0, 0, 0, 0, 1)
    assert [rate.prefix for rate in client.export_rates(tenant.id)] == ["9"]


def test_exports_of_an_empty_and_of_an_unknown_tenant(client: Client, tenant: types.Tenant) -> None:
    assert client.export_rates(tenant.id) == []
    with not_found("TENANT_NOT_FOUND"):
        client.export_rates(2**62)
    for bad in (0, -1):
        with invalid("tenant_id"):
            client.export_rates(bad)


def test_a_deck_of_many_rates(client: Client, tenant: types.Tenant) -> None:
    deck = [make_rate(f"{index:05d}", f"0.{index % 10_000:04d}", 1) for index in range(20_000)]
    outcome = client.import_rates(tenant.id, deck, messages=7)
    assert counts(outcome) == (20_000, 0, 0, 0, 0)
    exported = client.export_rates(tenant.id)
    assert [rate.prefix for rate in exported] == [rate.prefix for rate in deck]
    rated = client.rate(make_call(tenant.id, "1234599", 60))
    assert (rated.matched_prefix, rated.cost) == ("12345", "0.2345")
