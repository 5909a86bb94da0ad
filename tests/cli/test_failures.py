"""The messages and exit codes of failed commands."""

from __future__ import annotations

from collections.abc import Iterator

import click
import grpc
import pytest
from google.rpc import code_pb2

from tests.cli.conftest import Tollwire, unused_address
from tests.cli.fake import FakeServer
from tollwire.client import UnavailableError
from tollwire.service.cli.failures import failure_of
from tollwire.service.cli.main import main

RATE = ("rate", "4420", "--tenant", "1", "--seconds", "7")


@pytest.mark.parametrize(
    ("refusal", "exit_code", "line"),
    [
        (
            (code_pb2.NOT_FOUND, "NO_RATE", "no rate is a prefix of 4420", {}),
            1,
            "NOT_FOUND (NO_RATE): no rate is a prefix of 4420",
        ),
        (
            (
                code_pb2.INVALID_ARGUMENT,
                "INVALID_FIELD",
                "two fields are wrong",
                {"call.direction": "is required", "call.tenant_id": "must be above 0"},
            ),
            1,
            "INVALID_ARGUMENT (INVALID_FIELD): two fields are wrong;"
            " --direction: is required; --tenant: must be above 0",
        ),
        (
            (code_pb2.INVALID_ARGUMENT, "INVALID_FIELD", "a: is bad", {"a": "is bad"}),
            1,
            "INVALID_ARGUMENT (INVALID_FIELD): a: is bad",
        ),
        (
            (code_pb2.UNAVAILABLE, "DATABASE_UNAVAILABLE", "the database is unavailable", {}),
            3,
            "UNAVAILABLE (DATABASE_UNAVAILABLE): the database is unavailable",
        ),
        (
            (code_pb2.RESOURCE_EXHAUSTED, "TOO_MANY_RPCS", "try again", {}),
            3,
            "RESOURCE_EXHAUSTED (TOO_MANY_RPCS): try again",
        ),
        (
            (code_pb2.RESOURCE_EXHAUSTED, "TOO_MANY_RATES", "no more", {}),
            1,
            "RESOURCE_EXHAUSTED (TOO_MANY_RATES): no more",
        ),
        (
            (code_pb2.INTERNAL, "INTERNAL", "a defect", {}),
            4,
            "INTERNAL (INTERNAL): a defect",
        ),
        (
            (code_pb2.NOT_FOUND, "NO_RATE", "two\nlines\x1b[31m", {}),
            1,
            "NOT_FOUND (NO_RATE): two lines [31m",
        ),
    ],
)
def test_a_refusal_is_one_line(
    tollwire: Tollwire,
    fake: FakeServer,
    refusal: tuple[int, str, str, dict[str, str]],
    exit_code: int,
    line: str,
) -> None:
    fake.rating.refusal = refusal
    result = tollwire(*RATE)
    assert (result.exit_code, result.stdout, result.stderr) == (
        exit_code,
        "",
        f"tollwire: {line}\n",
    )


@pytest.mark.parametrize(
    ("cause", "advice"),
    [
        (
            "Hostname Verification Check failed.",
            "the certificate of the server has another name (--server-",
        ),
        (
            "SSL: CERTIFICATE_VERIFY_FAILED: expired",
            "the certificate of the server is not trusted (--ca-",
        ),
        ("SSL: WRONG_VERSION_NUMBER", "the server does not use TLS: "),
        (
            "Socket closed",
            "the server closed the connection; it may require --tls or --cert-file: ",
        ),
        ("Connection refused", "connections to all backends failing"),
    ],
)
def test_a_handshake_that_failed_is_explained(cause: str, advice: str) -> None:
    words = f"connections to all backends failing; last error: UNKNOWN: ipv4:1: {cause}"
    error = UnavailableError(grpc.StatusCode.UNAVAILABLE, words)
    failure = failure_of(error, "a.example:1")
    assert failure.exit_code == 3
    assert failure.message.startswith(f"UNAVAILABLE: no answer from a.example:1: {advice}")
    assert failure.message.endswith(words)


def test_a_method_that_the_server_does_not_have(tollwire: Tollwire) -> None:
    result = tollwire("tenants", "list")
    assert result.exit_code == 4
    assert result.stderr.startswith("tollwire: UNIMPLEMENTED: ")


def test_no_server(tollwire: Tollwire) -> None:
    address = unused_address()
    result = tollwire(*RATE, "--server", address)
    assert result.exit_code == 3
    assert result.stderr.startswith(f"tollwire: UNAVAILABLE: no answer from {address}: ")
    assert result.stderr.count("\n") == 1


def test_a_server_that_is_too_slow(tollwire: Tollwire, fake: FakeServer) -> None:
    fake.rating.delay_seconds = 1
    result = tollwire(*RATE, "--timeout", "0.05")
    assert result.exit_code == 3
    assert result.stderr == (
        f"tollwire: DEADLINE_EXCEEDED: no answer from {fake.address} in time (--timeout)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rate", "44", "--seconds", "1"), "Missing option '--tenant'"),
        (("rate", "44", "--tenant", "0", "--seconds", "1"), "must be 1 or more"),
        ((*RATE, "--at", "noon"), "must be a time with its zone"),
        ((*RATE, "--direction", "up"), "must be one of INBOUND, OUTBOUND, INTERNAL"),
        (("usage", "--by", "day,colour"), "must be one of TENANT"),
        (("usage", "--time-zone", "Mars/Base", "--from", "2026-01-01"), "'Mars/Base'"),
        (("usage", "--from", "yesterday"), "--from: must be a time"),
        (("tenants", "update", "1"), "nothing to change"),
        (("rates", "update", "1"), "nothing to change"),
        (("rates", "update", "1", "--interval", "60"), "START_SECONDS:COST_PER_MINUTE"),
        (("serve", "--listen", "here"), "--listen: must be HOST:PORT"),
        (("serve", "--database", "mysql://x"), "--database: must be sqlite:///FILE"),
        (("migrate", "--database", "sqlite://"), "--database"),
        (("cdrs", "upload", "nowhere.csv"), "does not exist"),
        (("rates", "import", "nowhere.csv", "--tenant", "1"), "No such file"),
    ],
)
def test_wrong_command_lines(tollwire: Tollwire, arguments: tuple[str, ...], message: str) -> None:
    result = tollwire(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def commands(command: click.Command, path: str = "tollwire") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{path} {name}")


def test_every_command_explains_itself_and_each_of_its_options() -> None:
    found = dict(commands(main))
    assert len(found) > 30
    silent = [path for path, command in found.items() if not command.help]
    silent += [
        f"{path} --{option.name}"
        for path, command in found.items()
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert silent == []
