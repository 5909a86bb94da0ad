"""A PostgreSQL server for the fault tests alone, and a proxy before it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from benchmarks.postgres_server import PostgresServer
from tests.faults.proxy import Proxy


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    if os.environ.get("TOLLWIRE_TEST_POSTGRES", "1") == "0":
        pytest.skip("PostgreSQL is left out by TOLLWIRE_TEST_POSTGRES=0")
    with PostgresServer() as server:
        yield server


@pytest.fixture
def name(postgres: PostgresServer) -> Iterator[str]:
    """The name of an empty database."""
    name = postgres.create()
    yield name
    postgres.drop(name)


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    with Proxy(str(postgres.socket)) as proxy:
        yield proxy
