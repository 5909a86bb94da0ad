"""The connection: its parameters and the environment, TLS, tokens, deadlines, retries."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2

from tests.cli.fake import FakeServer
from tests.integration.serving import ServerProcess
from tests.rpc.authority import Authority
from tollwire.client import (
    AsyncClient,
    Client,
    ConfigurationError,
    DeadlineExceededError,
    FieldError,
    InvalidArgumentError,
    UnavailableError,
    UnimplementedError,
)
from tollwire.v1.types_pb2 import Call

AUTHORITY = Authority()
PAIR = AUTHORITY.issue("localhost", "tollwire.example")
SWITCH = AUTHORITY.issue("switch-1.example")


def connection(
    server: str | None = None, environment: dict[str, str] | None = None, **given: Any
) -> Any:
    with Client(server, environment=environment or {}, **given) as client:
        return client.connection


def test_the_defaults() -> None:
    found = connection()
    assert (found.server, found.timeout, found.long_timeout) == ("127.0.0.1:50051", 60, None)
    assert found.credentials is None
    assert found.metadata == ()


def test_what_is_not_given_comes_from_the_environment(tmp_path: Path) -> None:
    variables = {"TOLLWIRE_SERVER": "localhost:1", "TOLLWIRE_TIMEOUT": "7", "TOLLWIRE_TOKEN": "t"}
    found = connection(environment=variables)
    assert (found.server, found.timeout, found.long_timeout) == ("localhost:1", 7, 7)
    assert found.metadata == (("authorization", "Bearer t"),)
    file = tmp_path / "token"
    file.write_text("from-file\n")
    found = connection("localhost:2", variables, timeout=None, long_timeout=3, token_file=file)
    assert (found.server, found.timeout, found.long_timeout) == ("localhost:2", None, 3)
    assert found.metadata == (("authorization", "Bearer from-file"),)
    assert connection(environment={"TOLLWIRE_TLS": "1"}).credentials is not None
    assert connection(environment={"TOLLWIRE_TLS": "1"}, tls=False).credentials is None


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLWIRE_SERVER", "localhost:3")
    with Client() as client:
        assert client.connection.server == "localhost:3"


@pytest.mark.parametrize(
    ("given", "environment", "text"),
    [
        ({"token": "t", "token_file": "x"}, {}, "give token or token_file, not both"),
        ({}, {"TOLLWIRE_TOKEN": "t", "TOLLWIRE_TOKEN_FILE": "x"}, "give token or token_file"),
        ({"token": "té"}, {}, "characters that are not allowed"),
        ({"token_file": "/no/{such}"}, {}, r"token_file: cannot read /no/\{such\}: No such file"),
        ({"cert_file": "x"}, {}, "cert_file and key_file must be given together"),
        ({"ca_file": "/no/such"}, {}, "ca_file: cannot read /no/such: No such file"),
        ({}, {"TOLLWIRE_TIMEOUT": "x"}, "TOLLWIRE_TIMEOUT: x is not a number of seconds"),
        ({}, {"TOLLWIRE_TIMEOUT": "-1"}, "TOLLWIRE_TIMEOUT: -1 is not a number of seconds"),
        ({}, {"TOLLWIRE_INSECURE": "maybe"}, "TOLLWIRE_INSECURE: maybe is not 1 or 0"),
    ],
)
def test_unusable_parameters(given: dict[str, Any], environment: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        connection(None, environment, **given)


def test_a_token_is_not_sent_in_plain_text_to_another_machine() -> None:
    with pytest.raises(ConfigurationError, match=r"to 192\.0\.2\.1:1 in plain text; use tls, or"):
        connection("192.0.2.1:1", token="t")
    assert connection("192.0.2.1:1", token="t", insecure=True).metadata
    assert connection("192.0.2.1:1", token="t", tls=True).metadata
    assert connection("[::1]:1", token="t").metadata


def test_the_token_is_in_no_text() -> None:
    with Client(token="secret-text", environment={}) as client:
        assert "secret-text" not in f"{client!r} {client.connection!r}"


def test_the_token_goes_with_every_request(fake: FakeServer) -> None:
    with (
        Client(fake.address, token="abc", environment={}) as client,
        pytest.raises(UnimplementedError),
    ):
        client.get_token(id=1, metadata=[("x-request-id", "7")])

    async def run() -> None:
        async with AsyncClient(fake.address, token="abc", environment={}) as client:
            with pytest.raises(UnimplementedError):
                await client.get_token(id=1)

    asyncio.run(run())
    assert fake.tokens.headers == ["Bearer abc"] * 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.pem)
    (tmp_path / "cert.pem").write_bytes(SWITCH.chain)
    (tmp_path / "key.pem").write_bytes(SWITCH.key)
    return tmp_path


@pytest.fixture
def mutual() -> Iterator[FakeServer]:
    """A server that requires a client certificate."""
    pair = [(PAIR.key, PAIR.chain)]
    server = FakeServer(grpc.ssl_server_credentials(pair, AUTHORITY.pem, require_client_auth=True))
    yield server
    server.stop()


def test_tls_with_a_client_certificate(mutual: FakeServer, folder: Path) -> None:
    given: dict[str, Any] = {
        "ca_file": folder / "ca.pem",
        "cert_file": folder / "cert.pem",
        "key_file": folder / "key.pem",
        "server_name": "tollwire.example",
        "environment": {},
    }
    with Client(mutual.address, **given) as client:
        assert list(client.list_uploads()) == []
    environment = {
        f"TOLLWIRE_{name.upper()}": str(value)
        for name, value in given.items()
        if name != "environment"
    }

    async def run() -> None:
        async with AsyncClient(mutual.address, environment=environment) as client:
            assert [one async for one in client.list_uploads()] == []

    asyncio.run(run())
    del given["cert_file"], given["key_file"]
    with Client(mutual.address, **given) as client, pytest.raises(UnavailableError):
        list(client.list_uploads(timeout=5))


def test_a_slow_server_and_the_deadlines(fake: FakeServer) -> None:
    fake.rating.delay_seconds = 0.5
    with Client(fake.address, timeout=0.05, environment={}) as client:
        with pytest.raises(DeadlineExceededError) as caught:
            client.rate_call()
        assert (caught.value.reason, caught.value.fields) == ("", ())
        client.rate_call(timeout=None)
    with Client(fake.address, environment={}) as client, pytest.raises(DeadlineExceededError):
        client.rate_call(timeout=0.05)

    async def run() -> None:
        async with AsyncClient(fake.address, timeout=0.05, environment={}) as client:
            with pytest.raises(DeadlineExceededError):
                await client.rate_call()

    asyncio.run(run())


def test_a_refusal_with_its_fields(fake: FakeServer) -> None:
    fake.rating.refusal = (
        code_pb2.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "call.tenant_id: must be set",
        {"call.tenant_id": "must be set", "call.direction": "is required"},
    )
    with (
        Client(fake.address, environment={}) as client,
        pytest.raises(InvalidArgumentError) as caught,
    ):
        client.rate_call()
    error = caught.value
    assert (error.reason, error.domain) == ("INVALID_FIELD", "tollwire")
    assert error.fields == (
        FieldError("call.direction", "is required"),
        FieldError("call.tenant_id", "must be set"),
    ) or error.fields == (
        FieldError("call.tenant_id", "must be set"),
        FieldError("call.direction", "is required"),
    )
    assert error.retry_delay_seconds is None
    assert str(error) == (
        "INVALID_ARGUMENT (INVALID_FIELD): call.tenant_id: must be set; call.direction: is required"
    )
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied), copied.fields) == (type(error), str(error), error.fields)


def test_nobody_answers(fake: FakeServer) -> None:
    fake.stop()
    with Client(fake.address, environment={}) as client, pytest.raises(UnavailableError) as caught:
        client.get_upload(upload_id=1)
    assert caught.value.reason == ""


def test_a_closed_client_refuses(server: ServerProcess) -> None:
    client = Client(server.address, environment={})
    stream = client.export_cdrs()
    client.close()
    with pytest.raises(ValueError, match="closed"):
        client.get_tenant(id=1)
    stream.close()
    assert list(stream) == []


def test_an_asynchronous_client_needs_an_event_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        AsyncClient(environment={})


def test_lists_are_read_page_by_page_and_lazily(fake: FakeServer) -> None:
    fake.cdrs.uploads[1] = [Call() for _ in range(5)]
    with Client(fake.address, environment={}) as client:
        failures = client.list_upload_failures(upload_id=1)
        assert fake.cdrs.listed == []
        reading = iter(failures)
        assert next(reading).index == 0
        assert len(fake.cdrs.listed) == 1
        assert fake.cdrs.listed[0].page_size == 1000
        assert [failure.index for failure in reading] == [1, 2, 3, 4]
        # Each iteration begins again.
        assert [page.next_page_token for page in failures.pages()] == ["1", "2", "3", "4", ""]
        assert [one.index for one in client.list_upload_failures(upload_id=1, page_token="3")] == [
            *(3, 4)
        ]
