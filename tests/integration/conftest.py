"""Servers for the integration tests.

The same tests run on SQLite and on PostgreSQL: a test with ``server`` or ``client`` runs twice.
One server a database lives for the whole run; each test works in tenants of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.integration.client import Client
from tests.integration.serving import ServerProcess, serving
from tollwire.v1 import types_pb2 as types

BACKENDS = ["sqlite"]
if os.environ.get("TOLLWIRE_TEST_POSTGRES", "1") != "0":
    BACKENDS.append("postgresql")

NewDatabase = Callable[[], str]


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def new_database(
    backend: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> NewDatabase:
    """Makes an empty database, without any table, and returns its SQLAlchemy URL."""

    def sqlite() -> str:
        return f"sqlite:///{tmp_path_factory.mktemp('database') / 'tollwire.db'}"

    def postgresql() -> str:
        postgres = request.getfixturevalue("postgres")
        return str(postgres.url(postgres.create(migrated=False)))

    return sqlite if backend == "sqlite" else postgresql


@pytest.fixture(scope="session")
def server(new_database: NewDatabase) -> Iterator[ServerProcess]:
    """The server that the tests share."""
    with serving(new_database()) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address) as connected:
        yield connected


@pytest.fixture
def tenant(client: Client) -> types.Tenant:
    """A fresh tenant with the defaults."""
    return client.new_tenant()


@pytest.fixture
def rated_tenant(client: Client, tenant: types.Tenant) -> int:
    """A tenant with a short, a long and a blocking rate; its id."""
    client.new_rate(tenant.id, "44", "0.0200", 6, destination="UK")
    client.new_rate(tenant.id, "447", "0.1500", 6, destination="UK mobile")
    client.new_rate(tenant.id, "4490", blocked=True)
    return tenant.id


@pytest.fixture
def payer(client: Client, tenant: types.Tenant) -> int:
    """A tenant with one rate; its id."""
    client.new_rate(tenant.id, "44", "0.0200", 6)
    return tenant.id


@pytest.fixture
def deck(client: Client, tenant: types.Tenant) -> int:
    """The deck of the worked examples; the tenant's id."""
    client.new_rate(tenant.id, "1", "0.0120", 60, destination="North America")
    client.new_rate(tenant.id, "44", "0.0200", 6, destination="UK")
    client.new_rate(tenant.id, "447", "0.1500", 6, destination="UK mobile")
    return tenant.id
