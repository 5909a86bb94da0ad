"""The torture's short form: every scenario once, small, on both databases.

"make torture" runs the long form; ``python -m tests.torture`` runs any scenario alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.databases import KINDS
from benchmarks.postgres_server import PostgresServer
from tests.torture.scenarios import SCENARIOS
from tests.torture.service import Service, service
from tests.torture.stage import SHORT, Stage

SEED = "1"
WORKERS = {"sqlite": 1, "postgresql": 2}
# With two workers there are more combinations of deaths.
SIZES = {"sqlite": replace(SHORT, kills=1), "postgresql": SHORT}

# By database, so that PostgreSQL runs no longer than needed.
PLAYED = [(kind, name) for kind in KINDS for name in SCENARIOS if kind in SCENARIOS[name].short]


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that the scenarios may stop."""
    if os.environ.get("TOLLWIRE_TEST_POSTGRES", "1") == "0":
        pytest.skip("PostgreSQL is left out by TOLLWIRE_TEST_POSTGRES=0")
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def sqlite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    path = tmp_path_factory.mktemp("torture") / "tollwire.db"
    with service(f"sqlite:///{path}", WORKERS["sqlite"]) as server:
        yield server
        assert server.stop() == 0


@pytest.fixture(scope="module")
def postgresql_server(own_postgres: PostgresServer) -> Iterator[Service]:
    with service(own_postgres.url(own_postgres.create()), WORKERS["postgresql"]) as server:
        yield server
        assert server.stop() == 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "name"), PLAYED)
def test_nothing_is_lost_and_nothing_is_doubled(
    kind: str, name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    stage = Stage(
        SEED,
        SIZES[kind],
        tmp_path,
        WORKERS[kind],
        request.getfixturevalue("own_postgres") if kind == "postgresql" else None,
        request.getfixturevalue(f"{kind}_server"),
    )
    tally = SCENARIOS[name].run(stage)
    assert tally.problems == []
    assert tally.passed
    assert tally.sent >= tally.acknowledged > 0
    assert 0 < tally.stored <= tally.acknowledged
