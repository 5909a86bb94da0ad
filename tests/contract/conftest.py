"""One server on SQLite, and the installed clients, connected to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.curl import CLIENTS, BufCurl, Curl, GrpCurl
from tests.integration.serving import serving


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(f"sqlite:///{tmp_path_factory.mktemp('contract') / 'tollwire.db'}") as server:
        yield server.address


def _installed(kind: type[Curl], address: str) -> Curl:
    if kind.program() is None:
        pytest.skip(f"{kind.name} is neither in .tools/bin nor on the PATH (see `make tools`)")
    return kind(address)


# buf comes from pip.
_PARAMS = [
    pytest.param(kind, marks=() if kind is BufCurl else pytest.mark.external, id=kind.name)
    for kind in CLIENTS
]


@pytest.fixture(params=_PARAMS)
def curl(request: pytest.FixtureRequest, address: str) -> Curl:
    """Each of the clients in turn."""
    return _installed(request.param, address)


@pytest.fixture
def buf(address: str) -> Curl:
    return _installed(BufCurl, address)


@pytest.fixture
def grpcurl(address: str) -> Curl:
    return _installed(GrpCurl, address)


@pytest.fixture
def tenant_id(curl: Curl) -> str:
    """A fresh tenant with the rates of the worked examples."""
    tenant = curl.one("TenantService/CreateTenant", {"tenant": {"name": "Acme"}})
    rates = [("1", "0.0120", 60), ("44", "0.0200", 6), ("447", "0.1500", 6)]
    deck = {
        "tenant_id": tenant["id"],
        "mode": "IMPORT_MODE_MERGE",
        "rates": [
            {"prefix": prefix, "cost_per_minute": cost, "billing_increment": increment}
            for prefix, cost, increment in rates
        ],
    }
    assert curl.one("RatingService/ImportRates", deck)["created"] == "3"
    return str(tenant["id"])
