"""Two clients at the same moment: in either order, the result must be consistent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.integration.client import (
    RATED,
    Client,
    chunk,
    make_call,
    make_rate,
    not_found,
    refusal_of,
)
from tests.integration.wire_oracle import assert_recomputes
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2 as types


def at_once(address: str, *works: Callable[[Client], Any]) -> list[Any]:
    """Run each on a connection of its own, all from the same moment; their results, or the reasons
    of their refusals."""
    results: list[Any] = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def run(index: int, work: Callable[[Client], Any]) -> None:
        with Client(address) as client:
            grpc.channel_ready_future(client.channel).result(20)
            barrier.wait(20)
            try:
                results[index] = work(client)
            except grpc.RpcError as error:
                results[index] = refusal_of(error).reason

    threads = [threading.Thread(target=run, args=(index, work)) for index, work in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("way", ["CreateCdr", "UploadCdrs"])
def test_a_tenant_is_deleted_while_a_call_of_it_is_recorded(client: Client, way: str) -> None:
    outcomes = set()
    for _ in range(12):
        tenant = client.new_tenant()
        call = make_call(tenant.id, call_id="x")

        def record(own: Client, call: types.Call = call) -> str:
            if way == "CreateCdr":
                return f"recorded {own.create_cdr(call).id > 0}"
            [answer] = own.upload(chunk([call]))
            return "recorded True" if answer.created else answer.failures[0].reason

        def delete(own: Client, tenant_id: int = tenant.id) -> str:
            own.tenants.DeleteTenant(tenant_pb.DeleteTenantRequest(id=tenant_id))
            return "deleted"

        recorded, deleted = at_once(client.address, record, delete)
        outcomes.add((recorded, deleted))
        if deleted == "deleted":
            with not_found("TENANT_NOT_FOUND"):
                client.list_cdrs(tenant_id=tenant.id)
            left = client.list_cdrs(call_id="x")
            assert tenant.id not in {cdr.tenant_id for cdr in left}
        else:
            assert len(client.list_cdrs(tenant_id=tenant.id)) == 1
    assert outcomes <= {("recorded True", "TENANT_IN_USE"), ("TENANT_NOT_FOUND", "deleted")}


def test_an_extension_is_deleted_while_a_call_of_it_is_recorded(
    client: Client, tenant: types.Tenant
) -> None:
    for index in range(12):
        extension = client.new_extension(tenant.id)
        call = make_call(tenant.id, call_id=f"{index}", extension_id=extension.id)

        def delete(own: Client, extension_id: int = extension.id) -> str:
            own.tenants.DeleteExtension(tenant_pb.DeleteExtensionRequest(id=extension_id))
            return "deleted"

        recorded, deleted = at_once(
            client.address, lambda own, call=call: own.create_cdr(call).extension, delete
        )
        if deleted == "deleted":
            assert recorded == "EXTENSION_NOT_FOUND"
        else:
            assert deleted == "EXTENSION_IN_USE"
            assert recorded == extension


def test_one_of_many_creates_the_same_rate(client: Client, tenant: types.Tenant) -> None:
    def create(own: Client) -> int:
        return own.new_rate(tenant.id, "44").id

    results = at_once(client.address, *[create] * 6)
    made = [result for result in results if isinstance(result, int)]
    assert len(made) == 1
    assert results.count("RATE_EXISTS") == 5
    assert [rate.id for rate in client.list_rates(tenant_id=tenant.id)] == made


def test_one_of_many_takes_the_same_own_id(client: Client) -> None:
    free = client.new_tenant().id + 100
    results = at_once(client.address, *[lambda own: own.new_tenant(id=free).id] * 6)
    assert sorted(map(str, results)) == [str(free), *["TENANT_EXISTS"] * 5]


def test_one_of_many_updates_with_one_etag_succeeds(client: Client, tenant: types.Tenant) -> None:
    rate = client.new_rate(tenant.id, "44", "0.0001")

    def update(price: int) -> Callable[[Client], str]:
        changed = make_rate("44", f"{price}", id=rate.id, etag=rate.etag)
        return lambda own: own.update_rate(changed).cost_per_minute

    results = at_once(client.address, *map(update, range(1, 7)))
    assert results.count("ETAG_MISMATCH") == 5
    [winner] = [result for result in results if result != "ETAG_MISMATCH"]
    assert client.rate(make_call(tenant.id, "44", 60)).cost == winner


def test_imports_of_one_tenant_are_serialised(client: Client, tenant: types.Tenant) -> None:
    decks = [[make_rate(f"{own}{index}") for index in range(50)] for own in range(1, 5)]

    def replace(deck: list[types.Rate]) -> Callable[[Client], int]:
        mode = types.IMPORT_MODE_REPLACE
        return lambda own: own.import_rates(tenant.id, deck, mode).rate_revision

    revisions = at_once(client.address, *map(replace, decks))
    assert len(set(revisions)) == 4
    last = decks[revisions.index(max(revisions))]
    left = [rate.prefix for rate in client.list_rates(tenant_id=tenant.id)]
    assert left == sorted(rate.prefix for rate in last)


def test_two_requests_price_the_unrated_once(client: Client, tenant: types.Tenant) -> None:
    calls = [make_call(tenant.id, "4420", 7, call_id=f"{index}") for index in range(1500)]
    client.upload(chunk(calls))
    client.new_rate(tenant.id, "44", "0.0200", 6)

    def ask(own: Client) -> int:
        request = cdr_pb.RateUnratedRequest(tenant_id=tenant.id)
        return own.cdrs.RateUnrated(request).rated

    def dearer(own: Client) -> int:
        return own.import_rates(tenant.id, [make_rate("44", "9", 6)]).updated

    first, second, updated = at_once(client.address, ask, ask, dearer)
    assert (first + second, updated) == (1500, 1)
    cdrs = client.list_cdrs(tenant_id=tenant.id, page_size=1000)
    assert {cdr.status for cdr in cdrs} == {RATED}
    for cdr in cdrs[::50]:
        assert_recomputes(cdr)


def test_rates_change_under_an_upload(client: Client, tenant: types.Tenant) -> None:
    """Each call is priced by one revision of the rates, and names it."""
    rate = client.new_rate(tenant.id, "44", "1")

    def upload(own: Client) -> int:
        requests = [
            chunk([make_call(tenant.id, "44", 60, call_id=f"{c}/{n}") for n in range(50)], c * 50)
            for c in range(20)
        ]
        return own.upload(*requests)[-1].committed_offset

    def change(own: Client) -> str:
        for price in range(2, 30):
            own.update_rate(make_rate("44", f"{price}", id=rate.id))
        own.rating.DeleteRate(rating_pb.DeleteRateRequest(id=rate.id))
        own.new_rate(tenant.id, "44", "100")
        return "changed"

    assert at_once(client.address, upload, change) == [1000, "changed"]
    costs: dict[int, str] = {}
    for cdr in client.list_cdrs(tenant_id=tenant.id, page_size=1000):
        assert_recomputes(cdr)
        cost = cdr.cost if cdr.status == RATED else "none"
        assert costs.setdefault(cdr.rate_revision, cost) == cost
        assert cost == (cdr.rate.cost_per_minute or "none")
