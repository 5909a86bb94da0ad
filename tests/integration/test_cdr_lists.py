"""Lists and exports of CDRs: order, pages, filters, search."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.integration.client import (
    DEADLINE_SECONDS,
    INBOUND,
    INTERNAL,
    NO_ANSWER,
    NOON_NS,
    NOT_BILLABLE,
    RATED,
    SECOND_NS,
    UNRATED,
    Client,
    chunk,
    invalid,
    make_call,
    not_found,
    timestamp,
)
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import cdr_service_pb2_grpc as cdr_grpc
from tollwire.v1 import types_pb2 as types

MAX_ID = 2**63 - 1


@pytest.fixture
def listed(client: Client, rated_tenant: int) -> tuple[int, int, list[types.Cdr]]:
    """A tenant, its extension, and its CDRs in the order of a list."""
    extension = client.new_extension(rated_tenant)
    calls = [
        make_call(rated_tenant, "447911123456", call_id="a"),
        make_call(rated_tenant, "33%1", call_id="b"),
        make_call(rated_tenant, "4420", call_id="c", direction=INBOUND, caller_number="Zoë_1"),
        make_call(rated_tenant, "4420", call_id="d", disposition=NO_ANSWER),
        make_call(rated_tenant, "4420", call_id="e", extension_id=extension.id),
        make_call(rated_tenant, "", call_id="f", direction=INTERNAL, extension_id=extension.id),
        make_call(rated_tenant, "4420", call_id="g"),
    ]
    offsets = [0, SECOND_NS, 2 * SECOND_NS, 2 * SECOND_NS, 2 * SECOND_NS, 1, -1]
    for call, offset in zip(calls, offsets, strict=True):
        call.started_at.CopyFrom(timestamp(NOON_NS + offset))
    cdrs = {call.call_id: client.create_cdr(call) for call in calls}
    return rated_tenant, extension.id, [cdrs[name] for name in "edcbfag"]


def test_cdrs_are_listed_newest_first_and_by_descending_id(
    client: Client, listed: tuple[int, int, list[types.Cdr]]
) -> None:
    tenant_id, _, cdrs = listed
    for page_size in (0, 1, 2, 3, 7, 1000, 2**31 - 1):
        assert client.list_cdrs(tenant_id=tenant_id, page_size=page_size) == cdrs
    with invalid("page_size"):
        client.list_cdrs(tenant_id=tenant_id, page_size=-1)


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "edcbfag"),
    ({"search": "447911"}, "a"),
    ({"search": "inbound"}, "c"),
    ({"search": "INBOUND"}, "c"),
    ({"search": "BOUND"}, "edcbag"),
    ({"search": "NO_ANSWER"}, "d"),
    ({"search": "no_answer"}, "d"),
    ({"search": "answer"}, "edcbfag"),
    ({"search": "answered"}, "ecbfag"),
    ({"search": "zoë"}, "c"),
    ({"search": "ZOË"}, "c"),
    ({"search": "%"}, "b"),
    ({"search": "3%1"}, "b"),
    ({"search": "_"}, "dc"),
    ({"search": "\\"}, ""),
    ({"search": "DIRECTION"}, ""),
    ({"search": "UNSPECIFIED"}, ""),
    ({"search": "NO_RATE"}, ""),
    ({"search": "internal"}, "f"),
    ({"status": RATED}, "eag"),
    ({"status": NOT_BILLABLE}, "dcf"),
    ({"status": UNRATED}, "b"),
    ({"unrated_reason": types.UNRATED_REASON_INVALID_NUMBER}, "b"),
    ({"unrated_reason": types.UNRATED_REASON_INVALID_NUMBER, "status": UNRATED}, "b"),
    ({"unrated_reason": types.UNRATED_REASON_INVALID_NUMBER, "status": RATED}, ""),
    ({"unrated_reason": types.UNRATED_REASON_NO_RATE}, ""),
    ({"started_after": timestamp(NOON_NS)}, "edcbfa"),
    ({"started_after": timestamp(NOON_NS + 1)}, "edcbf"),
    ({"started_before": timestamp(NOON_NS + 1)}, "ag"),
    ({"started_before": timestamp(NOON_NS)}, "g"),
    (
        {"started_after": timestamp(NOON_NS), "started_before": timestamp(NOON_NS + SECOND_NS)},
        "fa",
    ),
    ({"started_after": timestamp(NOON_NS), "started_before": timestamp(NOON_NS)}, ""),
    ({"started_after": timestamp(-5), "started_before": timestamp(2**63)}, "edcbfag"),
    ({"search": "bound", "status": NOT_BILLABLE, "started_after": timestamp(NOON_NS)}, "dc"),
    ({"extension_id": "own"}, "ef"),
    ({"extension_id": "own", "status": RATED}, "e"),
    ({"extension_number": "101"}, "ef"),
    ({"extension_number": "101", "direction": INTERNAL}, "f"),
    ({"call_id": "c"}, "c"),
    ({"call_id": "C"}, ""),
    ({"call_id": "c", "status": RATED}, ""),
    ({"direction": INBOUND}, "c"),
    ({"direction": types.DIRECTION_OUTBOUND}, "edbag"),
    ({"disposition": NO_ANSWER}, "d"),
    ({"disposition": types.DISPOSITION_BUSY}, ""),
    ({"reversed": True}, "dg"),
    ({"reversed": False}, "ecbfa"),
    ({"reversed": False, "call_id": "g"}, ""),
    ({"matched_prefix": "44"}, "eg"),
    ({"matched_prefix": "447"}, "a"),
    ({"matched_prefix": "4"}, ""),
    ({"rate_id": "44"}, "eg"),
    ({"rate_id": "44", "matched_prefix": "447"}, ""),
    ({"rate_id": MAX_ID}, ""),
]


@pytest.mark.parametrize(("filters", "expected"), FILTERS)
def test_lists_and_exports_take_the_same_filters(
    client: Client,
    listed: tuple[int, int, list[types.Cdr]],
    filters: dict[str, Any],
    expected: str,
) -> None:
    tenant_id, extension_id, cdrs = listed
    filters = filters | {"tenant_id": tenant_id}
    if "extension_id" in filters:
        filters["extension_id"] = extension_id
    if filters.get("rate_id") == "44":
        filters["rate_id"] = cdrs[0].rate.id
    if "reversed" in filters:
        for cdr in (cdrs[1], cdrs[6]):
            client.cdrs.ReverseCdr(
                cdr_pb.ReverseCdrRequest(id=cdr.id, reason="why", requested_by="who")
            )
    found = client.list_cdrs(page_size=2, **filters)
    assert "".join(cdr.call_id for cdr in found) == expected
    stream = client.cdrs.ExportCdrs(cdr_pb.ExportCdrsRequest(**filters))
    assert [cdr for part in stream for cdr in part.cdrs] == found


def test_an_extension_is_a_filter_without_its_tenant(
    client: Client, listed: tuple[int, int, list[types.Cdr]]
) -> None:
    _, extension_id, cdrs = listed
    assert client.list_cdrs(extension_id=extension_id) == [cdrs[0], cdrs[4]]


def test_a_rate_is_a_filter_in_all_its_versions(client: Client, rated_tenant: int) -> None:
    first = client.create_cdr(make_call(rated_tenant, "4420", call_id="1"))
    rate = first.rate
    rate.cost_per_minute = "7.0000"
    client.update_rate(rate, "cost_per_minute")
    second = client.create_cdr(make_call(rated_tenant, "4420", call_id="2"))
    assert second.cost != first.cost
    found = client.list_cdrs(tenant_id=rated_tenant, rate_id=rate.id)
    assert [cdr.call_id for cdr in found] == ["2", "1"]


def test_an_upload_is_a_filter(client: Client, rated_tenant: int) -> None:
    client.create_cdr(make_call(rated_tenant, call_id="before"))
    [answer] = client.upload(chunk([make_call(rated_tenant, call_id=one) for one in "abc"]))
    client.upload(chunk([make_call(rated_tenant, call_id=one) for one in "cd"]))
    found = client.list_cdrs(upload_id=answer.upload_id)
    assert sorted(cdr.call_id for cdr in found) == ["a", "b", "c"]


def test_a_call_id_is_a_filter_without_its_tenant(client: Client, rated_tenant: int) -> None:
    name = f"call of {rated_tenant}"
    cdr = client.create_cdr(make_call(rated_tenant, call_id=name))
    assert client.list_cdrs(call_id=name) == [cdr]


def test_an_extension_number_must_exist(
    client: Client, listed: tuple[int, int, list[types.Cdr]]
) -> None:
    tenant_id, _, cdrs = listed
    found = client.list_cdrs(extension_number="101")
    assert {cdrs[0].id, cdrs[4].id} <= {cdr.id for cdr in found}
    for filters in ({"tenant_id": tenant_id, "extension_number": "1"}, {"extension_number": "?"}):
        with not_found("EXTENSION_NOT_FOUND"):
            client.cdrs.ListCdrs(cdr_pb.ListCdrsRequest(**filters))
        with not_found("EXTENSION_NOT_FOUND"):
            list(client.cdrs.ExportCdrs(cdr_pb.ExportCdrsRequest(**filters)))


def test_filters_that_are_refused(client: Client, tenant: types.Tenant) -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"tenant_id": -1}, "tenant_id"),
        ({"extension_id": -1}, "extension_id"),
        ({"status": 4}, "status"),
        ({"status": -1}, "status"),
        ({"unrated_reason": 4}, "unrated_reason"),
        ({"unrated_reason": -1}, "unrated_reason"),
        ({"search": "\x00"}, "search"),
        ({"call_id": "c" * 256}, "call_id"),
        ({"call_id": "\x00"}, "call_id"),
        ({"direction": 4}, "direction"),
        ({"disposition": 7}, "disposition"),
        ({"extension_number": "1" * 65}, "extension_number"),
        ({"rate_id": -1}, "rate_id"),
        ({"matched_prefix": "+44"}, "matched_prefix"),
        ({"matched_prefix": "4" * 33}, "matched_prefix"),
        ({"upload_id": -1}, "upload_id"),
    ]
    for filters, field in bad:
        with invalid(field):
            client.cdrs.ListCdrs(cdr_pb.ListCdrsRequest(**filters))
        with invalid(field):
            list(client.cdrs.ExportCdrs(cdr_pb.ExportCdrsRequest(**filters)))


def test_the_order_in_which_filters_are_looked_up(client: Client, tenant: types.Tenant) -> None:
    filters = {"tenant_id": MAX_ID, "upload_id": MAX_ID, "extension_id": MAX_ID}
    with not_found("TENANT_NOT_FOUND"):
        client.list_cdrs(**filters)
    filters["tenant_id"] = tenant.id
    with not_found("UPLOAD_NOT_FOUND"):
        client.list_cdrs(**filters)
    del filters["upload_id"]
    with not_found("EXTENSION_NOT_FOUND"):
        client.list_cdrs(**filters)


def test_a_page_token_belongs_to_its_filters(
    client: Client, listed: tuple[int, int, list[types.Cdr]]
) -> None:
    tenant_id, _, cdrs = listed
    request = cdr_pb.ListCdrsRequest(tenant_id=tenant_id, page_size=2)
    token = client.cdrs.ListCdrs(request).next_page_token
    for other in ({"search": "44"}, {"status": RATED}, {"started_after": timestamp(NOON_NS)}, {}):
        filters: dict[str, Any] = {"tenant_id": tenant_id} | other if other else {}
        with invalid("page_token"):
            client.cdrs.ListCdrs(cdr_pb.ListCdrsRequest(page_token=token, **filters))
    for wrong in ("x", token[:-4], token + "AAAA", "é", "=", "bnVsbA==", "W10=", "e30="):
        with invalid("page_token"):
            client.cdrs.ListCdrs(cdr_pb.ListCdrsRequest(tenant_id=tenant_id, page_token=wrong))
    # New CDRs at the newest end do not shift the pages.
    client.create_cdr(make_call(tenant_id, call_id="late", started_at=NOON_NS + 9 * SECOND_NS))
    request.page_token = token
    request.page_size = 100
    assert list(client.cdrs.ListCdrs(request).cdrs) == cdrs[2:]


def test_many_cdrs_are_paged_and_exported(client: Client, rated_tenant: int) -> None:
    calls = [
        make_call(rated_tenant, started_at=NOON_NS + index // 3, call_id=f"{index}")
        for index in range(2500)
    ]
    client.upload(chunk(calls))
    request = cdr_pb.ListCdrsRequest(tenant_id=rated_tenant)
    sizes = {}
    for page_size in (0, 999, 1000, 1001):
        request.page_size = page_size
        sizes[page_size] = len(client.cdrs.ListCdrs(request).cdrs)
    assert sizes == {0: 50, 999: 999, 1000: 1000, 1001: 1000}
    listed_ids = [cdr.id for cdr in client.list_cdrs(tenant_id=rated_tenant, page_size=499)]
    assert len(set(listed_ids)) == 2500
    stream = client.cdrs.ExportCdrs(cdr_pb.ExportCdrsRequest(tenant_id=rated_tenant))
    assert [cdr.id for part in stream for cdr in part.cdrs] == listed_ids


def test_pages_of_very_long_texts_fit_the_default_limit_of_clients(client: Client) -> None:
    """A client with gRPC's default limit for a message, 4 MiB."""
    wide = "\U0001f4de"
    tenant_id = client.new_tenant(name=wide * 200).id
    extension = client.new_extension(tenant_id, wide * 64, name=wide * 200)
    calls = [
        make_call(
            tenant_id,
            wide * 256,
            extension_id=extension.id,
            caller_number=wide * 256,
            call_id=f"{index:04}{wide * 251}",
            started_at=NOON_NS + index,
        )
        for index in range(1000)
    ]
    client.upload(chunk(calls))
    whole = client.list_cdrs(tenant_id=tenant_id, page_size=100)
    assert [cdr.call_id for cdr in reversed(whole)] == [call.call_id for call in calls]
    assert sum(cdr.ByteSize() for cdr in whole) > 4 * 2**20
    with grpc.insecure_channel(client.address) as channel:
        stub = cdr_grpc.CdrServiceStub(channel)
        found: list[types.Cdr] = []
        page = None
        while page is None or page.next_page_token:
            token = page.next_page_token if page else ""
            page = stub.ListCdrs(
                cdr_pb.ListCdrsRequest(tenant_id=tenant_id, page_size=1000, page_token=token),
                timeout=DEADLINE_SECONDS,
            )
            found += page.cdrs
        assert found == whole
        request = cdr_pb.ExportCdrsRequest(tenant_id=tenant_id)
        parts = stub.ExportCdrs(request, timeout=DEADLINE_SECONDS)
        assert [cdr for part in parts for cdr in part.cdrs] == whole
