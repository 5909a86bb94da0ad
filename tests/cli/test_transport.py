"""The command over TLS: the servers that it trusts, the certificates that it sends, and its
messages if either fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.cli.conftest import Tollwire
from tests.cli.fake import FakeServer
from tests.rpc.authority import DAY, NOW, Authority

RATE = ("rate", "44", "--tenant", "1", "--seconds", "1")

AUTHORITY = Authority()
PAIR = AUTHORITY.issue("127.0.0.1", "tollwire.example")
CA_FILE, CERT_FILE, KEY_FILE = "ca.pem", "cert.pem", "key.pem"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the command runs: with the authority, and a client certificate."""
    AUTHORITY.write(tmp_path)
    AUTHORITY.issue("desk.example").write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server() -> Iterator[FakeServer]:
    made = FakeServer(grpc.ssl_server_credentials([(PAIR.key, PAIR.chain)]))
    yield made
    made.stop()


@pytest.fixture
def mutual() -> Iterator[FakeServer]:
    made = FakeServer(grpc.ssl_server_credentials([(PAIR.key, PAIR.chain)], AUTHORITY.pem, True))
    yield made
    made.stop()


def test_a_server_with_a_certificate_of_the_authority_is_trusted(
    tollwire: Tollwire, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--ca-file", CA_FILE)
    for arguments in (given, ("--tls", *given), (*given, "--server-name", "tollwire.example")):
        result = tollwire(*RATE, *arguments, server=server.address)
        assert result.exit_code == 0, result.output
    monkeypatch.setenv("TOLLWIRE_TLS", "true")
    monkeypatch.setenv("TOLLWIRE_CA_FILE", CA_FILE)
    assert tollwire(*RATE, server=server.address).exit_code == 0


def failed(tollwire: Tollwire, server: FakeServer, *arguments: str) -> str:
    result = tollwire(*RATE, *arguments, server=server.address)
    assert result.exit_code == 3, result.output
    assert result.stderr.count("\n") == 1
    head = f"tollwire: UNAVAILABLE: no answer from {server.address}: "
    assert result.stderr.startswith(head)
    return result.stderr.removeprefix(head)


def test_a_server_that_is_not_trusted(
    tollwire: Tollwire, server: FakeServer, fake: FakeServer, tmp_path: Path
) -> None:
    said = failed(tollwire, server, "--ca-file", CA_FILE, "--server-name", "other.example")
    assert said.startswith("the certificate of the server has another name (--server-name): ")
    # No public authority has signed it.
    assert failed(tollwire, server, "--tls").startswith(
        "the certificate of the server is not trusted"
    )
    failed(tollwire, server)
    assert failed(tollwire, fake, "--tls").startswith("the server does not use TLS: ")
    Authority().write(tmp_path)
    said = failed(tollwire, server, "--ca-file", CA_FILE)
    assert said.startswith("the certificate of the server is not trusted (--ca-file): ")


def test_a_client_certificate_is_sent_if_required(tollwire: Tollwire, mutual: FakeServer) -> None:
    given = ("--ca-file", CA_FILE)
    failed(tollwire, mutual, *given)
    shows = ("--cert-file", CERT_FILE, "--key-file", KEY_FILE)
    result = tollwire(*RATE, *given, *shows, server=mutual.address)
    assert result.exit_code == 0, result.output


def test_unusable_files_are_refused_by_name(tollwire: Tollwire, folder: Path) -> None:
    shows = ("--cert-file", CERT_FILE, "--key-file", KEY_FILE)
    expired = AUTHORITY.issue("a.example", valid_from=NOW - 2 * DAY, valid_until=NOW - DAY)
    for arguments, words in (
        (shows[:2], "--cert-file and --key-file must be given together"),
        (shows[2:], "--cert-file and --key-file must be given together"),
        (("--ca-file", "nowhere.pem"), "--ca-file: nowhere.pem cannot be read: No such file"),
        (("--ca-file", KEY_FILE), "--ca-file: key.pem contains no certificate"),
        (("--cert-file", CA_FILE, *shows[2:]), "--key-file: key.pem is not the key of "),
    ):
        result = tollwire(*RATE, *arguments)
        assert result.exit_code == 2
        assert f"tollwire: {words}" in result.stderr
    expired.write(folder)
    assert "--cert-file: cert.pem expired at " in tollwire(*RATE, *shows).stderr


def test_a_token_goes_to_another_machine_over_tls(tollwire: Tollwire) -> None:
    """There is no server; the error shows that the connection was tried."""
    arguments = ("tenants", "list", "--token", "tw_1_a", "--timeout", "0.2")
    elsewhere = "192.0.2.1:50051"
    assert tollwire(*arguments, server=elsewhere).exit_code == 2
    assert tollwire(*arguments, "--tls", server=elsewhere).exit_code == 3
