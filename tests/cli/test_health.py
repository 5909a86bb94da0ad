"""``tollwire health`` against a server with settable health."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from tests.cli.conftest import unused_address
from tests.rpc.running import running
from tollwire.service.cli.main import main
from tollwire.service.rpc.health import SERVICE, HealthServicer

RATING = "tollwire.v1.RatingService"
Health = Callable[..., Result]


@pytest.fixture
def told() -> HealthServicer:
    return HealthServicer([RATING])


@pytest.fixture
def health(told: HealthServicer) -> Iterator[Health]:
    with running(SERVICE, told) as server:

        def run(*arguments: str) -> Result:
            return CliRunner().invoke(main, ["health", "--server", server.address, *arguments])

        yield run


def test_all_services_or_one(health: Health, told: HealthServicer) -> None:
    told.serve()
    assert health().output.splitlines() == [
        "service                    status",
        "(the server)               serving",
        "tollwire.v1.RatingService  serving",
    ]
    result = health(RATING)
    assert result.exit_code == 0
    assert result.output.splitlines()[1:] == ["tollwire.v1.RatingService  serving"]
    assert json.loads(health(RATING, "--json").output) == {"status": "SERVING"}
    assert json.loads(health("--json").output)["statuses"][RATING] == {"status": "SERVING"}


@pytest.mark.parametrize("service", ["", RATING])
def test_a_service_that_does_not_serve_is_a_failure(
    health: Health, told: HealthServicer, service: str
) -> None:
    told.serve()
    told.stop()
    result = health(*filter(None, [service]))
    assert result.exit_code == 3
    assert "not serving" in result.stdout, result.stderr
    assert result.stderr.startswith(f"tollwire: {service or 'the server'} is not serving")


def test_an_unknown_service(health: Health) -> None:
    result = health("tollwire.v1.NoService")
    assert result.exit_code == 1
    assert "NOT_FOUND" in result.stderr


def test_no_server() -> None:
    result = CliRunner().invoke(main, ["health", "--server", unused_address(), "--timeout", "5"])
    assert result.exit_code == 3
