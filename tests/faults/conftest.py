"""A PostgreSQL server of the fault tests' own, and a proxy before it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from tests.faults.postgres import Postgres
from tests.faults.proxy import Proxy

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if os.environ.get("TOLLWIRE_TEST_POSTGRES", "1") == "0":
        pytest.skip("PostgreSQL is left out by TOLLWIRE_TEST_POSTGRES=0")
    server = Postgres()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def name(postgres: Postgres) -> Iterator[str]:
    """Of an empty database."""
    name = f"faults_{next(_NUMBERS)}"
    postgres.create(name)
    yield name
    postgres.drop(name)


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[Proxy]:
    with Proxy(postgres.socket) as proxy:
        yield proxy
