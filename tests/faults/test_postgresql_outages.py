"""PostgreSQL under a server: stopped and started, disconnected, half-open, locked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc
import pytest

from benchmarks.postgres_server import PostgresServer
from tests.faults.proxy import Proxy
from tests.faults.serving import (
    CHUNK_CALLS,
    Sender,
    recovered,
    refused_unavailable,
    served,
)
from tests.integration.client import Client, chunk, make_call
from tollwire.v1 import access_service_pb2 as access_pb
from tollwire.v1 import rating_service_pb2 as rating_pb


@pytest.fixture(scope="module")
def name(postgres: PostgresServer) -> Iterator[str]:
    name = postgres.create()
    yield name
    postgres.drop(name)


@pytest.fixture(scope="module")
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    with Proxy(str(postgres.socket)) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def client(postgres: PostgresServer, name: str, proxy: Proxy) -> Iterator[Client]:
    """A server with the proxy before its database. It survives all tests."""
    with served(postgres.url(name, proxy.port)) as client:
        yield client


@pytest.fixture
def tenant_id(client: Client) -> int:
    tenant = client.new_tenant()
    client.new_rate(tenant.id, "44", "0.0200", 6)
    return tenant.id


def test_stopped_and_started_under_load(
    postgres: PostgresServer, client: Client, tenant_id: int
) -> None:
    senders = [Sender(client, tenant_id, f"sender{number}", chunks=60) for number in range(2)]
    threads = [threading.Thread(target=sender.run) for sender in senders]
    for thread in threads:
        thread.start()
    for stage in (1, 2):
        while any(sender.acknowledged < stage * 10 * CHUNK_CALLS for sender in senders):
            assert all(thread.is_alive() for thread in threads)
            time.sleep(0.01)
        postgres.stop_immediately()
        # Rating is from memory.
        assert client.rate(make_call(tenant_id, "4420", 7)).cost == "0.0040"
        postgres.start()
    for thread in threads:
        thread.join()
    for sender in senders:
        sender.check()


def test_a_short_outage_is_not_noticed(proxy: Proxy, client: Client, tenant_id: int) -> None:
    """The stream waits, and its client need not send anything again."""
    sender = Sender(client, tenant_id, "patient", chunks=20)

    def outages() -> None:
        for _ in range(3):
            time.sleep(0.1)
            proxy.drop()
            time.sleep(0.1)
            proxy.restore()

    thread = threading.Thread(target=outages)
    thread.start()
    sender.run()
    thread.join()
    assert sender.breaks == 0
    sender.check()


@pytest.mark.parametrize("fault", ["drop", "swallow"])
def test_streams_wait_and_then_fail(
    proxy: Proxy, client: Client, tenant_id: int, fault: str
) -> None:
    sender = Sender(client, tenant_id, "cut", chunks=4)
    sender.total, total = CHUNK_CALLS, sender.total
    sender.run()
    getattr(proxy, fault)()
    rest = chunk(sender.calls(CHUNK_CALLS, total), CHUNK_CALLS, sender.upload_id)
    failed = []
    # More streams than slots of the chunk limiter: no other stream waits for the hanging ones.
    threads = [
        threading.Thread(
            target=lambda: failed.append(refused_unavailable(lambda: client.upload(rest)))
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    refused_unavailable(lambda: client.get_upload(sender.upload_id))
    for thread in threads:
        thread.join()
    assert len(failed) == len(threads)
    proxy.restore()
    state = recovered(lambda: client.get_upload(sender.upload_id))
    assert state.committed_offset == CHUNK_CALLS, "what was refused is counted"
    sender.total = total
    sender.run()
    sender.check()


# The first chunk's commit comes after that of its upload's id.
@pytest.mark.parametrize(("starts", "skip"), [(True, 0), (True, 1), (False, 0)])
def test_a_chunk_whose_commit_is_not_answered_is_recorded_once(
    proxy: Proxy, client: Client, tenant_id: int, starts: bool, skip: int
) -> None:
    """The chunk is committed although the connection was lost before the answer. The server
    retries, and answers from the stored chunk."""
    calls = [make_call(tenant_id, "4420", 7, call_id=f"{index}") for index in range(CHUNK_CALLS)]
    upload_id = 0 if starts else client.upload(chunk([]))[0].upload_id
    cuts = proxy.cuts
    proxy.cut_answer(rb"COMMIT\0", skip)
    (answer,) = client.upload(chunk(calls, 0, upload_id))
    assert proxy.cuts == cuts + 1
    upload_id = answer.upload_id
    assert (answer.created, answer.duplicates) == (CHUNK_CALLS, 0)
    # The client, which had no response, sends it again.
    (again,) = client.upload(chunk(calls, 0, upload_id))
    assert again == answer
    state = client.get_upload(upload_id)
    assert (state.committed_offset, state.created, state.duplicates) == (
        CHUNK_CALLS,
        CHUNK_CALLS,
        0,
    )
    assert len(client.list_cdrs(tenant_id=tenant_id)) == CHUNK_CALLS


def test_a_row_that_another_session_has_locked(
    postgres: PostgresServer, name: str, client: Client, tenant_id: int
) -> None:
    sender = Sender(client, tenant_id, "blocked", chunks=2)
    with postgres.connect(name, autocommit=False) as other:
        other.execute("SELECT * FROM uploads FOR UPDATE")
        refusal = refused_unavailable(
            lambda: client.upload(chunk(sender.calls(0, CHUNK_CALLS), 0, sender.upload_id))
        )
        assert "locked" in refusal.message
        other.execute("SELECT * FROM tenants FOR UPDATE")
        refused_unavailable(lambda: client.create_cdr(make_call(tenant_id, "4420", 7)))
        assert client.get_upload(sender.upload_id).committed_offset == 0, "readers do not wait"
        other.rollback()
    sender.run()
    sender.check()


def test_a_worker_with_a_silent_connection_follows_changes_again(
    postgres: PostgresServer, name: str, proxy: Proxy, client: Client, tenant_id: int
) -> None:
    """Its connection for the changes of rates is half-open: open, and silent."""
    with served(postgres.url(name)) as elsewhere:
        proxy.swallow()
        elsewhere.new_rate(tenant_id, "4420", "0.6000", 6)
        assert client.rate(make_call(tenant_id, "4420", 7)).cost == "0.0040"
        proxy.restore()
        deadline = time.monotonic() + 30
        while client.rate(make_call(tenant_id, "4420", 7)).cost != "0.1200":
            assert time.monotonic() < deadline, "it does not follow the changes any more"
            time.sleep(0.02)


def test_while_the_database_is_silent_the_last_tokens_are_valid(
    postgres: PostgresServer, name: str, proxy: Proxy, client: Client, tenant_id: int
) -> None:
    """A token that was revoked meanwhile is refused as soon as the database answers."""
    token = access_pb.Token(name="switch", role=access_pb.ROLE_RATER, every_tenant=True)
    made = client.access.CreateToken(access_pb.CreateTokenRequest(token=token))

    def code(text: str) -> grpc.StatusCode:
        request = rating_pb.RateCallRequest(call=make_call(tenant_id, "4420", 7))
        try:
            client.rating.RateCall(request, metadata=[("authorization", f"Bearer {text}")])
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    with served(postgres.url(name)) as elsewhere:
        proxy.swallow()
        elsewhere.access.RevokeToken(access_pb.RevokeTokenRequest(id=made.token.id))
        assert code(made.secret) is grpc.StatusCode.OK
        assert code(made.secret + "x") is grpc.StatusCode.UNAUTHENTICATED
        proxy.restore()
        deadline = time.monotonic() + 30
        while code(made.secret) is not grpc.StatusCode.UNAUTHENTICATED:
            assert time.monotonic() < deadline, "it does not follow the changes any more"
            time.sleep(0.02)
