"""Tokens on the command line: their options, the connections that refuse them, and their life from
the first token to its revocation, against servers of two workers on both databases."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result

from tests.cli.conftest import Tollwire
from tests.cli.fake import FakeServer
from tests.integration.serving import ServerProcess
from tests.process.processes import Process
from tests.rpc.running import DEADLINE_SECONDS, connected
from tollwire.service.cli.main import main
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import tenant_service_pb2_grpc as tenant_grpc

TEXT = re.compile(r"tw_\d+_[A-Za-z0-9_-]{43}")
LINE = re.compile(r"tollwire: serving on (127\.0\.0\.1:\d+) ")


def test_a_token_is_not_sent_in_plain_text_to_another_machine(tollwire: Tollwire) -> None:
    for server in ("192.0.2.1:50051", "tollwire.example:50051", "dns:///tollwire.example"):
        result = tollwire("tenants", "list", "--token", "tw_1_a", server=server)
        assert result.exit_code == 2
        assert "plain text" in result.output and "--insecure" in result.output
        assert "tw_1_a" not in result.output
    # With --insecure the command sends it; there is no server, which is the only error.
    result = tollwire(
        *("tenants", "list", "--token", "tw_1_a", "--insecure", "--timeout", "0.2"),
        server="192.0.2.1:50051",
    )
    assert result.exit_code == 3
    # Without a token there is no warning.
    result = tollwire("tenants", "list", "--timeout", "0.2", server="192.0.2.1:50051")
    assert result.exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--token", "a", "--token-file", "b"), "not both"),
        (("--token-file", "/nowhere/token"), "cannot read /nowhere/token: No such file"),
        (("--token", "a\nb"), "characters that are not allowed"),
        (("--token", "a\u00e9"), "characters that are not allowed"),
    ],
)
def test_a_token_that_cannot_be_sent_is_refused(
    tollwire: Tollwire, arguments: tuple[str, ...], words: str
) -> None:
    result = tollwire("tenants", "list", *arguments)
    assert result.exit_code == 2
    assert words in result.output


@pytest.mark.parametrize("way", ["option", "variable", "file", "variable of the file"])
def test_a_token_goes_with_each_request(
    fake: FakeServer, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("tw_1_secret\n")
    given = {"option": ["--token", "tw_1_secret"], "file": ["--token-file", str(file)]}
    if way == "variable":
        monkeypatch.setenv("TOLLWIRE_TOKEN", "tw_1_secret")
    if way == "variable of the file":
        monkeypatch.setenv("TOLLWIRE_TOKEN_FILE", str(file))
    command = ["tokens", "get", "7", "--server", fake.address, *given.get(way, [])]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 4  # the fake server knows no tokens
    assert fake.tokens.headers == ["Bearer tw_1_secret"]


def test_a_server_on_loopback_is_open_until_the_first_token(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tollwire.db'}"
    with ServerProcess(url, workers=2, TOLLWIRE_ACCESS="auto") as server:
        assert "(open: requests need no token, sqlite" in server.first_line
        made = run("tenants", "list", "--server", server.address)
        assert made.exit_code == 0
        text = done(
            "tokens",
            "add",
            "first",
            "--role",
            "admin",
            "--every-tenant",
            "--server",
            server.address,
        )
        (token,) = TEXT.findall(text)
        # Both workers, within a second.
        wait_until(
            lambda: all(
                run("tenants", "list", "--server", server.address).exit_code for _ in range(8)
            )
        )
        assert "TOKEN_REQUIRED" in run("tenants", "list", "--server", server.address).output
        done("tenants", "list", "--server", server.address, token=token)
    with ServerProcess(url, TOLLWIRE_ACCESS="auto") as server:
        assert "(sqlite" in server.first_line
        assert run("tenants", "list", "--server", server.address).exit_code
    with ServerProcess(url, TOLLWIRE_ACCESS="open") as server:
        assert "(open: requests need no token, sqlite" in server.first_line
        done("tenants", "list", "--server", server.address)


# --- the whole way ---------------------------------------------------------------------------


def run(*arguments: str, token: str = "") -> Result:
    result = CliRunner().invoke(main, [*arguments], env={"TOLLWIRE_TOKEN": token})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def done(*arguments: str, token: str = "") -> str:
    result = run(*arguments, token=token)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def guarded(database_url: str) -> Iterator[str]:
    """The address of a server with two workers that demand tokens."""
    options = ("--listen", "127.0.0.1:0", "--database", database_url, "--workers", "2")
    command = ("-m", "tollwire.service.cli.main", "serve", *options, "--access", "tokens")
    with Process(*command) as server:
        line = LINE.match(server.output.next() or "")
        assert line is not None, server.errors.next()
        yield line[1]
        assert server.terminate() == 0


def first_token(database_url: str) -> str:
    return done("tokens", "first", "--database", database_url).strip()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def codes(address: str, token: str) -> set[grpc.StatusCode]:
    """The results of new connections; the workers share the port, so these reach both."""
    found = set()
    for _ in range(12):
        with connected(address) as channel:
            stub = tenant_grpc.TenantServiceStub(channel)
            request = tenant_pb.ListTenantsRequest()
            metadata = [("authorization", f"Bearer {token}")]
            try:
                stub.ListTenants(request, metadata=metadata, timeout=DEADLINE_SECONDS)
                found.add(grpc.StatusCode.OK)
            except grpc.RpcError as error:
                found.add(error.code())
    return found


def test_from_the_first_token_to_a_revoked_one(guarded: str, database_url: str) -> None:
    refused = run("tenants", "list", "--server", guarded)
    assert refused.exit_code == 1 and "TOKEN_REQUIRED" in refused.output

    admin = first_token(database_url)
    assert TEXT.fullmatch(admin)
    again = run("tokens", "first", "--database", database_url)
    assert again.exit_code == 1 and not again.stdout

    def ask(*arguments: str, token: str = admin) -> str:
        return done(*arguments, "--server", guarded, token=token)

    wait_until(lambda: codes(guarded, admin) == {grpc.StatusCode.OK})
    ask("tenants", "add", "--name", "Acme")
    made = json.loads(
        ask(
            *("tokens", "create", "desk", "--role", "reader", "--tenant", "1"),
            *("--expires", "2200-01-01", "--certificate-identity", "desk.example", "--json"),
        )
    )
    reader, reader_id = made["secret"], made["token"]["id"]
    assert TEXT.fullmatch(reader)
    wait_until(lambda: codes(guarded, reader) == {grpc.StatusCode.OK})
    lacks = run("tenants", "add", "--name", "B", "--server", guarded, token=reader)
    assert lacks.exit_code == 1 and "ROLE_LACKS" in lacks.output

    shown = ask("tokens", "get", reader_id)
    for words in ("desk", "READER", "desk.example", "2200-01-01T00:00:00Z", "first administrator"):
        assert words in shown
    assert reader not in shown and reader not in ask("tokens", "list", "--revoked", "--json")

    command = ("tokens", "create", "switch", "--role", "ingest", "--every-tenant")
    for_people = run(*command, "--server", guarded, token=admin)
    assert "every tenant" in for_people.stdout and len(TEXT.findall(for_people.stdout)) == 1
    assert "not shown again" in for_people.stderr

    assert json.loads(ask("tokens", "revoke", reader_id, "--json"))["revoked_at"]
    wait_until(lambda: codes(guarded, reader) == {grpc.StatusCode.UNAUTHENTICATED})
    assert ask("tokens", "list").count("\n") == 3  # its two headers
    assert ask("tokens", "list", "--revoked").count("\n") == 4
    assert "revoked" in ask("tokens", "revoke", reader_id)
