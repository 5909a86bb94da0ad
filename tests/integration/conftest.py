"""Servers for the integration tests.

The same tests run on SQLite and on PostgreSQL: a test with ``server`` or ``client`` runs twice. One
server a database serves the whole run; each test works in tenants of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache, partial

import pytest

from tests.databases import KINDS, FreshDatabases
from tests.integration.client import Client
from tests.integration.serving import ServerProcess, serving
from tollwire.v1 import types_pb2 as types

NewDatabase = Callable[[], str]


@pytest.fixture(scope="session", params=KINDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def new_database(backend: str, databases: FreshDatabases) -> NewDatabase:
    """Creates a database of the kind and returns its URL."""
    return partial(databases.create, backend)


@pytest.fixture(scope="session")
def servers(databases: FreshDatabases) -> Iterator[Callable[[str], ServerProcess]]:
    """The server of a kind of database. It keeps running while tests with the other kind run."""
    with ExitStack() as running:
        yield cache(lambda backend: running.enter_context(serving(databases.create(backend))))


@pytest.fixture(scope="session")
def server(backend: str, servers: Callable[[str], ServerProcess]) -> ServerProcess:
    """The server that the tests share."""
    return servers(backend)


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
