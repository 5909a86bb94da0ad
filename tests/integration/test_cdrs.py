"""CDRs: recording one call, identity, reading, and what is refused."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import pytest

from tests.integration.client import (
    BUSY,
    INBOUND,
    INTERNAL,
    NOON_NS,
    NOT_BILLABLE,
    RATED,
    SECOND_NS,
    UNRATED,
    Client,
    chunk,
    invalid,
    make_call,
    nanoseconds,
    not_found,
    refused,
    timestamp,
)
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types

ALREADY_EXISTS = grpc.StatusCode.ALREADY_EXISTS
MAX_ID = 2**63 - 1
MAX_STARTED_NS = 9_223_372_036 * 10**9 - 1


def test_a_cdr_has_every_field(client: Client, rated_tenant: int) -> None:
    extension = client.new_extension(rated_tenant, "101", name="Desk")
    call = make_call(
        rated_tenant,
        "+44 7911 123456",
        63,
        extension_id=extension.id,
        caller_number="Anonymous <☎>",
        started_at=NOON_NS + 123_456_789,
        ended_at=NOON_NS + 70 * SECOND_NS + 1,
        call_id="abc-1",
    )
    cdr = client.create_cdr(call)
    assert cdr.id > 0
    # These two state how to read a request; the record does not have them.
    for name in set(call.DESCRIPTOR.fields_by_name) - {"occurrence", "unreadable"}:
        assert getattr(cdr, name) == getattr(call, name), name
    assert (cdr.status, cdr.unrated_reason) == (RATED, 0)
    assert (cdr.bill_seconds, cdr.cost) == (66, "0.1650")
    assert cdr.matched_prefix == "447"
    assert cdr.extension == extension
    assert cdr.tenant.id == rated_tenant
    [rate] = client.list_rates(tenant_id=rated_tenant, search="UK mobile")
    assert cdr.rate == rate
    assert cdr.rate_revision == client.rate(call).rate_revision
    assert cdr.upload_id == 0
    assert cdr.created_at.seconds > NOON_NS // SECOND_NS
    assert client.get_cdr(cdr.id) == cdr
    assert client.list_cdrs(tenant_id=rated_tenant) == [cdr]


def test_a_small_cdr(client: Client, rated_tenant: int) -> None:
    cdr = client.create_cdr(make_call(rated_tenant, "", 0, direction=INTERNAL, disposition=BUSY))
    assert cdr.status == NOT_BILLABLE
    assert (cdr.bill_seconds, cdr.cost) == (0, "0.0000")
    assert cdr.HasField("bill_seconds")
    assert cdr.HasField("duration_seconds")
    for name in ("extension", "rate", "ended_at"):
        assert not cdr.HasField(name), name
    assert cdr.call_id.startswith("auto-")
    assert client.get_cdr(cdr.id) == cdr


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("33123", types.UNRATED_REASON_NO_RATE),
        ("449012345", types.UNRATED_REASON_BLOCKED),
        ("anonymous", types.UNRATED_REASON_INVALID_NUMBER),
        ("", types.UNRATED_REASON_INVALID_NUMBER),
    ],
)
def test_a_call_that_cannot_be_priced_is_stored_without_a_cost(
    client: Client, rated_tenant: int, number: str, reason: int
) -> None:
    cdr = client.create_cdr(make_call(rated_tenant, number))
    assert (cdr.status, cdr.unrated_reason) == (UNRATED, reason)
    for name in ("bill_seconds", "cost", "rate"):
        assert not cdr.HasField(name), name
    assert cdr.matched_prefix == ""
    assert client.get_cdr(cdr.id) == cdr


def test_the_largest_cost_is_stored_exactly(client: Client, tenant: types.Tenant) -> None:
    client.new_rate(tenant.id, "4", "99999999.9999", 60, connect_fee="999.9999")
    cdr = client.create_cdr(make_call(tenant.id, "44", 600_000_000))
    assert cdr.cost == "999999999999999.9999"
    assert client.get_cdr(cdr.id).cost == "999999999999999.9999"
    call = make_call(tenant.id, "44", 600_000_060)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "COST_OVERFLOW", "call.duration_seconds"):
        client.create_cdr(call)
    assert len(client.list_cdrs(tenant_id=tenant.id)) == 1


@pytest.mark.parametrize("started_at", [0, 1, 999_999_999, MAX_STARTED_NS])
def test_every_nanosecond_is_kept(client: Client, rated_tenant: int, started_at: int) -> None:
    ended_at = started_at or 1  # the epoch as the end means that there is no end
    cdr = client.create_cdr(make_call(rated_tenant, started_at=started_at, ended_at=ended_at))
    stored = client.get_cdr(cdr.id)
    assert (nanoseconds(stored.started_at), nanoseconds(stored.ended_at)) == (started_at, ended_at)


def test_the_period_of_calls_ends_where_the_documentation_says(
    client: Client, rated_tenant: int
) -> None:
    at_end = MAX_STARTED_NS + 1
    for fields, wrong in (
        ({"started_at": at_end}, "started_at"),
        ({"started_at": at_end + 854_775_806}, "started_at"),
        ({"ended_at": at_end}, "ended_at"),
    ):
        call = make_call(rated_tenant, **fields)
        with invalid(f"call.{wrong}") as refusal:
            client.create_cdr(call)
        assert "to before 2262-04-11T23:47:16Z, got 9223372036 seconds" in refusal.message
        with invalid(f"call.{wrong}"):
            client.rate(call)
        [rated] = client.batch([call])
        assert (rated.error.reason, rated.error.field) == ("INVALID_FIELD", wrong)
        [answer] = client.upload(chunk([call]))
        [failure] = answer.failures
        assert (answer.rejected, failure.reason) == (1, "INVALID_FIELD")
    assert client.list_cdrs(tenant_id=rated_tenant) == []


def test_the_epoch_as_the_end_of_a_call_means_none(client: Client, rated_tenant: int) -> None:
    """Switches send 0 for a call that was not answered."""
    without = make_call(rated_tenant, "44", 7)
    with_epoch = make_call(rated_tenant, "44", 7, ended_at=0)
    assert with_epoch.HasField("ended_at")
    first = client.create_cdr(with_epoch)
    assert not first.HasField("ended_at")
    assert client.create_cdr(without) == first  # the same content and the same derived call_id
    [answer] = client.upload(chunk([without, with_epoch]))
    assert (answer.created, answer.duplicates, answer.rejected) == (0, 2, 0)
    assert client.rate(with_epoch).cost == client.rate(without).cost == first.cost
    assert [r.cost for r in client.batch([with_epoch, without])] == [first.cost] * 2
    # With a call_id, and in an upload first.
    named = make_call(rated_tenant, "44", 7, ended_at=0, call_id="named")
    [answer] = client.upload(chunk([named]))
    assert (answer.created, answer.rejected) == (1, 0)
    named.ClearField("ended_at")
    client.create_cdr(named)  # no conflict
    # There is no duration in it either.
    open_ended = make_call(rated_tenant, "44", None, ended_at=0)
    with invalid("call.duration_seconds"):
        client.create_cdr(open_ended)
    [answer] = client.upload(chunk([open_ended]))
    assert answer.rejected == 1
    # A nanosecond later is a time.
    with invalid("call.ended_at"):
        client.create_cdr(make_call(rated_tenant, "44", 7, ended_at=1))


def test_a_duration_that_is_not_given_is_resolved(client: Client, rated_tenant: int) -> None:
    cdr = client.create_cdr(
        make_call(rated_tenant, "44", None, ended_at=NOON_NS + 7 * SECOND_NS - 1)
    )
    assert cdr.duration_seconds == 6
    given = client.create_cdr(make_call(rated_tenant, "44", 3, ended_at=NOON_NS + 7 * SECOND_NS))
    assert given.duration_seconds == 3


# Identity (rule 10).


def test_the_same_call_again_is_the_stored_one(client: Client, rated_tenant: int) -> None:
    call = make_call(rated_tenant, call_id="one", ended_at=NOON_NS + 60 * SECOND_NS)
    first = client.create_cdr(call)
    client.new_rate(rated_tenant, "4479", "9")
    assert client.create_cdr(call) == first
    resolved = types.Call()
    resolved.CopyFrom(call)
    resolved.ClearField("duration_seconds")  # ended_at - started_at is the same 60 s
    assert client.create_cdr(resolved) == first
    assert len(client.list_cdrs(tenant_id=rated_tenant)) == 1


def test_a_call_id_belongs_to_its_tenant(client: Client, rated_tenant: int) -> None:
    other = client.new_tenant()
    first = client.create_cdr(make_call(rated_tenant, call_id="one"))
    second = client.create_cdr(make_call(other.id, call_id="one"))
    assert first.id != second.id


CHANGES: dict[str, Any] = {
    "extension_id": None,  # an extension of the tenant
    "caller_number": "other",
    "destination_number": "+447911123456",  # the same number, written in another way
    "direction": INBOUND,
    "disposition": BUSY,
    "duration_seconds": 61,
    "started_at": timestamp(NOON_NS + 1),
    "ended_at": timestamp(NOON_NS + 60 * SECOND_NS),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_the_same_call_id_with_other_content_is_a_conflict(
    client: Client, rated_tenant: int, name: str
) -> None:
    value = CHANGES[name] or client.new_extension(rated_tenant).id
    first = client.create_cdr(make_call(rated_tenant, call_id="one"))
    with refused(ALREADY_EXISTS, "CDR_CONFLICT") as refusal:
        client.create_cdr(make_call(rated_tenant, **({"call_id": "one"} | {name: value})))
    assert refusal.metadata["cdr_id"] == str(first.id)
    assert refusal.metadata["fields"] == name
    assert client.list_cdrs(tenant_id=rated_tenant) == [first]


def test_a_conflict_names_all_fields_that_differ(client: Client, rated_tenant: int) -> None:
    client.create_cdr(make_call(rated_tenant, call_id="one"))
    with refused(ALREADY_EXISTS, "CDR_CONFLICT") as refusal:
        client.create_cdr(
            make_call(rated_tenant, "1", 2, call_id="one", direction=INBOUND, caller_number="x")
        )
    assert sorted(refusal.metadata["fields"].split(",")) == [
        "caller_number",
        "destination_number",
        "direction",
        "duration_seconds",
    ]


def test_a_derived_call_id_depends_on_the_content(client: Client, rated_tenant: int) -> None:
    extension = client.new_extension(rated_tenant)
    changes = CHANGES | {"extension_id": extension.id}
    first = client.create_cdr(make_call(rated_tenant))
    assert len(first.call_id) == len("auto-") + 32
    assert client.create_cdr(make_call(rated_tenant)).id == first.id
    call_ids = {first.call_id}
    for name, value in changes.items():
        cdr = client.create_cdr(make_call(rated_tenant, **{name: value}))
        assert cdr.id != first.id, name
        call_ids.add(cdr.call_id)
    assert len(call_ids) == 1 + len(changes)
    other = client.new_tenant()
    assert client.create_cdr(make_call(other.id)).call_id not in call_ids
    # Given explicitly, the derived id names the same record.
    assert client.create_cdr(make_call(rated_tenant, call_id=first.call_id)).id == first.id


def test_a_derived_call_id_keeps_its_fields_apart(client: Client, rated_tenant: int) -> None:
    pairs = [("12", "3"), ("1", "23"), ("", "123"), ("12,3", ""), ("12", ",3"), ("12\n", "3")]
    made = [
        client.create_cdr(make_call(rated_tenant, number, caller_number=caller)).call_id
        for caller, number in pairs
    ]
    assert len(set(made)) == len(pairs)


def test_the_same_call_from_many_clients_at_once_is_recorded_once(
    client: Client, rated_tenant: int
) -> None:
    calls = [make_call(rated_tenant, call_id=f"race-{index}") for index in range(10)]
    results: list[list[int]] = []
    failures: list[BaseException] = []
    barrier = threading.Barrier(6)

    def create() -> None:
        try:
            with Client(client.address) as own:
                barrier.wait(20)
                results.append([own.create_cdr(call).id for call in calls])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all(ids == results[0] for ids in results)
    assert len(client.list_cdrs(tenant_id=rated_tenant)) == 10


# Refusals.


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tenant_id": 0}, "tenant_id"),
        ({"tenant_id": -1}, "tenant_id"),
        ({"extension_id": -1}, "extension_id"),
        ({"caller_number": "1" * 257}, "caller_number"),
        ({"caller_number": "\x00"}, "caller_number"),
        ({"destination_number": "1" * 257}, "destination_number"),
        ({"destination_number": "1\x00"}, "destination_number"),
        ({"direction": 0}, "direction"),
        ({"direction": 4}, "direction"),
        ({"disposition": 0}, "disposition"),
        ({"disposition": 7}, "disposition"),
        ({"duration_seconds": -1}, "duration_seconds"),
        ({"duration_seconds": 2_147_483_648}, "duration_seconds"),
        ({"duration_seconds": None}, "duration_seconds"),
        ({"started_at": None}, "started_at"),
        ({"started_at": -1}, "started_at"),
        ({"started_at": MAX_STARTED_NS + 1_000_000_000}, "started_at"),
        ({"ended_at": NOON_NS - 1}, "ended_at"),
        ({"call_id": "c" * 256}, "call_id"),
        ({"call_id": "\x00"}, "call_id"),
    ],
)
def test_a_call_that_is_refused(
    client: Client, rated_tenant: int, fields: dict[str, Any], field: str
) -> None:
    with invalid(f"call.{field}"):
        client.create_cdr(make_call(**({"tenant_id": rated_tenant} | fields)))
    assert client.list_cdrs(tenant_id=rated_tenant) == []


def test_the_longest_texts_are_kept(client: Client, rated_tenant: int) -> None:
    texts = {"caller_number": "☎" * 256, "destination_number": "é" * 256, "call_id": "日" * 255}
    cdr = client.create_cdr(make_call(rated_tenant, **texts))
    stored = client.get_cdr(cdr.id)
    assert {name: getattr(stored, name) for name in texts} == texts


def test_the_objects_that_a_call_names_must_exist(client: Client, rated_tenant: int) -> None:
    with not_found("TENANT_NOT_FOUND"):
        client.create_cdr(make_call(MAX_ID))
    with not_found("EXTENSION_NOT_FOUND"):
        client.create_cdr(make_call(rated_tenant, extension_id=MAX_ID))
    foreign = client.new_extension(client.new_tenant().id)
    with not_found("EXTENSION_NOT_FOUND"):
        client.create_cdr(make_call(rated_tenant, extension_id=foreign.id))
    with not_found("CDR_NOT_FOUND"):
        client.get_cdr(MAX_ID)
    for bad in (0, -1):
        with invalid("id"):
            client.get_cdr(bad)
    with invalid("call"):
        client.cdrs.CreateCdr(cdr_pb.CreateCdrRequest())
