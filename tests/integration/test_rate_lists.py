"""Lists of rates: order, pages, search."""

from __future__ import annotations

import pytest

from tests.integration.client import (
    NOON_NS,
    Client,
    make_rate,
)
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import types_pb2 as types


def test_rates_are_listed_by_prefix_and_start(client: Client, tenant: types.Tenant) -> None:
    for prefix in ("9", "10", "1", "", "100", "2"):
        client.new_rate(tenant.id, prefix)
    client.new_rate(tenant.id, "1", effective_from=NOON_NS + 1)
    client.new_rate(tenant.id, "1", effective_from=NOON_NS)
    client.new_rate(tenant.id, "1", effective_from=-5)
    listed = client.list_rates(tenant_id=tenant.id, page_size=2)
    assert [rate.prefix for rate in listed] == ["", "1", "1", "1", "1", "10", "100", "2", "9"]
    starts = [rate.effective_from.ToNanoseconds() for rate in listed[1:5]]
    assert not listed[1].HasField("effective_from")
    assert starts[1:] == [-5, NOON_NS, NOON_NS + 1]
    assert client.export_rates(tenant.id) == listed


def test_pages_of_rates(client: Client, tenant: types.Tenant) -> None:
    deck = [make_rate(f"{index:04d}", destination="D") for index in range(1001)]
    client.import_rates(tenant.id, deck)
    sizes = []
    for page_size in (0, 1, 1000, 1001, 2**31 - 1):
        request = rating_pb.ListRatesRequest(tenant_id=tenant.id, page_size=page_size)
        page = client.rating.ListRates(request)
        sizes.append(len(page.rates))
        assert page.next_page_token
        request.page_token = page.next_page_token
        following = client.rating.ListRates(request)
        assert following.rates[0].prefix == f"{len(page.rates):04d}"
    assert sizes == [50, 1, 1000, 1000, 1000]
    assert not following.next_page_token
    listed = client.list_rates(tenant_id=tenant.id, page_size=143)
    assert [rate.prefix for rate in listed] == [rate.prefix for rate in deck]


def test_a_change_between_two_pages_neither_repeats_nor_skips(
    client: Client, tenant: types.Tenant
) -> None:
    rates = [client.new_rate(tenant.id, f"{index}") for index in range(1, 7)]
    request = rating_pb.ListRatesRequest(tenant_id=tenant.id, page_size=3)
    page = client.rating.ListRates(request)
    client.rating.DeleteRate(rating_pb.DeleteRateRequest(id=rates[0].id))
    client.new_rate(tenant.id, "11")
    request.page_token = page.next_page_token
    request.page_size = 10
    assert [rate.prefix for rate in client.rating.ListRates(request).rates] == ["4", "5", "6"]


@pytest.mark.parametrize(
    ("search", "prefixes"),
    [
        ("", ["33", "44", "447", "49"]),
        ("4", ["44", "447", "49"]),
        ("44", ["44", "447"]),
        ("mobile", ["447"]),
        ("MoBiLe", ["447"]),
        ("KINGDOM", ["44", "447"]),
        ("100%", ["33"]),
        ("0%_", ["33"]),
        ("%", ["33"]),
        ("_", ["33"]),
        ("\\", ["49"]),
        ("nowhere", []),
        ("m m", ["447"]),
    ],
)
def test_search_is_a_substring_of_prefix_or_destination(
    client: Client, tenant: types.Tenant, search: str, prefixes: list[str]
) -> None:
    client.new_rate(tenant.id, "44", destination="United Kingdom")
    client.new_rate(tenant.id, "447", destination="United Kingdom Mobile")
    client.new_rate(tenant.id, "49", destination="back\\slash")
    client.new_rate(tenant.id, "33", destination="100%_off")
    other = client.new_tenant()
    client.new_rate(other.id, "44", destination="United Kingdom Mobile 100%_off\\")
    found = client.list_rates(tenant_id=tenant.id, search=search, page_size=1)
    assert [rate.prefix for rate in found] == prefixes


@pytest.mark.parametrize("term", ["ÖSTERREICH", "österreich", "Österreich", "ÖSTER", "REICH"])
def test_search_is_case_insensitive_beyond_ascii(
    client: Client, tenant: types.Tenant, term: str
) -> None:
    client.new_rate(tenant.id, "43", destination="Österreich")
    found = client.list_rates(tenant_id=tenant.id, search=term)
    assert [rate.prefix for rate in found] == ["43"]


def test_a_list_of_all_tenants(client: Client, tenant: types.Tenant) -> None:
    mark = f"everywhere-{tenant.id}"
    other = client.new_tenant()
    client.new_rate(other.id, "1", destination=mark)
    client.new_rate(tenant.id, "2", destination=mark)
    found = client.list_rates(search=mark)
    assert [(rate.tenant_id, rate.prefix) for rate in found] == [(tenant.id, "2"), (other.id, "1")]
