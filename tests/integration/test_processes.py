"""Servers as processes: start, stop, crash, restart in the middle of an upload, several workers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.integration.client import NOON_NS, Client, chunk, make_call, make_rate, refused
from tests.integration.conftest import NewDatabase
from tests.integration.serving import ServerProcess, serving
from tests.integration.wire_oracle import assert_recomputes
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2 as types

# Long enough for a busy machine; the tests end as soon as the condition holds.
PATIENCE_SECONDS = 20
CHUNK = 200
CHUNKS = 30


def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.005)


def health_of(client: Client, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(client.channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service)).status


def calls_of(tenant_id: int, index: int) -> list[types.Call]:
    """The calls of one chunk: most are valid, one is invalid, one has no rate."""
    calls = [
        make_call(tenant_id, "4420", 7, call_id=f"{index}/{number}", started_at=NOON_NS + index)
        for number in range(CHUNK)
    ]
    calls[3].direction = types.DIRECTION_UNSPECIFIED
    calls[5].destination_number = "33"
    return calls


def test_it_prints_when_it_serves_and_keeps_stored_data(new_database: NewDatabase) -> None:
    url = new_database()
    with serving(url) as server, Client(server.address) as client:
        assert server.address in server.first_line
        for service in ("", "RatingService", "CdrService", "TenantService"):
            name = f"tollwire.v1.{service}" if service else ""
            assert health_of(client, name) == health_pb2.HealthCheckResponse.SERVING
        tenant = client.new_tenant(rounding=types.ROUNDING_UP)
        extension = client.new_extension(tenant.id)
        rate = client.new_rate(tenant.id, "44", "0.0001", 1)
        cdr = client.create_cdr(make_call(tenant.id, "44", 1, extension_id=extension.id))
        revision = client.rate(make_call(tenant.id)).rate_revision
        assert server.terminate() == 0
    with serving(url) as server, Client(server.address) as client:
        assert client.tenants.GetTenant(tenant_pb.GetTenantRequest(id=tenant.id)) == tenant
        assert client.rating.GetRate(rating_pb.GetRateRequest(id=rate.id)) == rate
        assert client.get_cdr(cdr.id) == cdr
        rated = client.rate(make_call(tenant.id, "44", 1))
        assert (rated.cost, rated.rate_revision) == ("0.0001", revision)
        # Ids and revisions continue.
        assert client.new_tenant().id > tenant.id
        assert client.new_rate(tenant.id, "45").id > rate.id
        assert client.rate(make_call(tenant.id)).rate_revision == revision + 1


def upload_until_it_breaks(
    server: ServerProcess, tenant_id: int, end: Callable[[], int]
) -> cdr_pb.UploadCdrsResponse:
    """Uploads as fast as possible, kills the server after a few acknowledged chunks, and returns
    the last acknowledgement."""
    last: list[cdr_pb.UploadCdrsResponse] = []
    few = threading.Event()

    def requests() -> Iterator[cdr_pb.UploadCdrsRequest]:
        for index in range(CHUNKS):
            yield chunk(calls_of(tenant_id, index), index * CHUNK)

    def upload() -> None:
        with Client(server.address) as client:
            try:
                for answer in client.cdrs.UploadCdrs(requests()):
                    last.append(answer)
                    if len(last) == 4:
                        few.set()
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call)
                assert error.code() not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
            finally:
                few.set()

    thread = threading.Thread(target=upload)
    thread.start()
    assert few.wait(PATIENCE_SECONDS)
    end()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    return last[-1]


@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGTERM"])
def test_an_upload_continues_after_a_kill(new_database: NewDatabase, signal_name: str) -> None:
    url = new_database()
    with serving(url) as server:
        with Client(server.address) as client:
            tenant = client.new_tenant()
            client.new_rate(tenant.id, "44", "0.0200", 6)
        end = server.kill if signal_name == "SIGKILL" else server.terminate
        last = upload_until_it_breaks(server, tenant.id, end)
        if signal_name == "SIGTERM":
            assert server.process.returncode == 0, server.log()
        assert "Traceback" not in server.log()
    with serving(url) as server, Client(server.address) as client:
        state = client.get_upload(last.upload_id)
        # Acknowledged chunks are stored; of the rest, whole chunks or nothing.
        assert state.committed_offset >= last.committed_offset
        assert state.committed_offset % CHUNK == 0
        resumed = [
            chunk(calls_of(tenant.id, index), index * CHUNK, last.upload_id)
            for index in range(state.committed_offset // CHUNK, CHUNKS)
        ]
        client.upload(*resumed)
        total = client.get_upload(last.upload_id)
        assert total.committed_offset == CHUNKS * CHUNK
        assert total.created == CHUNKS * (CHUNK - 1)
        assert (total.duplicates, total.conflicts) == (0, 0)
        assert (total.rejected, total.unrated) == (CHUNKS, CHUNKS)
        cdrs = client.list_cdrs(tenant_id=tenant.id, page_size=1000)
        assert len({cdr.call_id for cdr in cdrs}) == len(cdrs) == CHUNKS * (CHUNK - 1)
        for cdr in cdrs[::97]:
            assert_recomputes(cdr)
        # Sent again from the beginning, as by a client without notes: the stored responses.
        client.upload(chunk(calls_of(tenant.id, 0), 0, last.upload_id))
        assert client.get_upload(last.upload_id) == total


@pytest.fixture(scope="module")
def pair(new_database: NewDatabase) -> Iterator[tuple[Client, Client]]:
    """Connections to two servers on one database."""
    url = new_database()
    with (
        serving(url) as first,
        serving(url) as second,
        Client(first.address) as here,
        Client(second.address) as there,
    ):
        yield here, there


def test_a_change_through_one_server_reaches_the_other(pair: tuple[Client, Client]) -> None:
    here, there = pair
    tenant = here.new_tenant()
    # The other server finds a new tenant at once.
    assert there.new_extension(tenant.id).tenant_id == tenant.id
    call = make_call(tenant.id, "4420", 60)
    assert there.create_cdr(call).unrated_reason == types.UNRATED_REASON_NO_RATE
    rate = here.new_rate(tenant.id, "44", "0.1000")
    eventually(partial(costs, there, call, "0.1000"), "the new rate")
    there.update_rate(make_rate("44", "0.2000", id=rate.id))
    assert there.rate(call).cost == "0.2000"
    eventually(partial(costs, here, call, "0.2000"), "the update")
    here.import_rates(tenant.id, [make_rate("442", "0.3")], types.IMPORT_MODE_REPLACE)
    eventually(partial(costs, there, call, "0.3000"), "the import")
    changed = types.Tenant(id=tenant.id, international_prefix="4")
    there.tenants.UpdateTenant(tenant_pb.UpdateTenantRequest(tenant=changed))
    eventually(partial(costs, here, call, ""), "the dialling rule")


def test_a_demanded_revision_is_used_at_once_or_refused(
    pair: tuple[Client, Client],
) -> None:
    here, there = pair
    tenant = here.new_tenant()
    call = make_call(tenant.id, "44", 60)
    for step in range(1, 20):
        price = f"{step}.0000"
        revision = here.import_rates(tenant.id, [make_rate("44", price)]).rate_revision
        request = rating_pb.RateCallRequest(call=call, min_rate_revision=revision)
        assert there.rating.RateCall(request).rated.cost == price
        batch = rating_pb.BatchRateCallsRequest(calls=[call], min_rate_revision=revision)
        assert there.rating.BatchRateCalls(batch).rated[0].cost == price
    request.min_rate_revision = revision + 1
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "RATE_REVISION_AHEAD") as refusal:
        there.rating.RateCall(request)
    assert refusal.metadata["rate_revision"] == str(revision)


def test_a_deleted_tenant_is_deleted_in_every_worker(pair: tuple[Client, Client]) -> None:
    here, there = pair
    tenant = here.new_tenant()
    here.new_rate(tenant.id, "44")
    call = make_call(tenant.id)
    eventually(partial(costs, there, call, "0.0600"), "the tenant")
    there.tenants.DeleteTenant(tenant_pb.DeleteTenantRequest(id=tenant.id))

    def unknown() -> bool:
        return here.batch([call])[0].error.reason == "TENANT_NOT_FOUND"

    eventually(unknown, "the deletion")


def test_a_cdr_is_priced_with_the_rates_committed_before_it(
    pair: tuple[Client, Client],
) -> None:
    """Without a wait: after a change is acknowledged, any server records with it."""
    here, there = pair
    tenant = here.new_tenant()
    rate = here.new_rate(tenant.id, "44", "0.0000")
    for step in range(1, 30):
        price = f"{step}.0000"
        rate = here.update_rate(make_rate("44", price, id=rate.id))
        cdr = there.create_cdr(make_call(tenant.id, "44", 60, call_id=f"c{step}"))
        assert cdr.cost == price
        assert cdr.rate == rate
        there.upload(chunk([make_call(tenant.id, "44", 60, call_id=f"u{step}")]))
    for cdr in there.list_cdrs(tenant_id=tenant.id, page_size=1000):
        assert cdr.cost == f"{cdr.call_id[1:]}.0000"


def test_writers_on_two_servers_do_not_conflict(pair: tuple[Client, Client]) -> None:
    """Both change the same tenant's rates and record the same calls, at the same time."""
    tenant = pair[0].new_tenant()
    failures: list[BaseException] = []

    def work(client: Client, own: str) -> None:
        try:
            for step in range(15):
                client.new_rate(tenant.id, f"{own}{step}")
                client.import_rates(tenant.id, [make_rate(f"9{own}{step}")])
                client.create_cdr(make_call(tenant.id, f"{step}", call_id=f"{step}"))
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=work, args=(client, own))
        for client, own in zip(pair, "12", strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(pair[0].list_rates(tenant_id=tenant.id)) == 60
    assert len(pair[1].list_cdrs(tenant_id=tenant.id)) == 15


@contextmanager
def connections_to_workers(url: str) -> Iterator[list[Client]]:
    """A server of two workers and a dozen connections, which the system spreads over them."""
    with serving(url, workers=2) as server, ExitStack() as stack:
        yield [stack.enter_context(Client(server.address)) for _ in range(12)]
        assert server.terminate() == 0, server.log()


def test_every_worker_of_one_server_rates_with_the_change(new_database: NewDatabase) -> None:
    with connections_to_workers(new_database()) as clients:
        tenant = clients[0].new_tenant()
        call = make_call(tenant.id, "44", 60)
        rate = clients[0].new_rate(tenant.id, "44", "0.0000")
        for step in range(1, 6):
            price = f"{step}.0000"
            clients[step].update_rate(make_rate("44", price, id=rate.id))
            for client in clients:
                eventually(partial(costs, client, call, price), f"{price} on every connection")
        created = [client.create_cdr(make_call(tenant.id, call_id="one")).id for client in clients]
        assert len(set(created)) == 1


def costs(client: Client, call: types.Call, price: str) -> bool:
    return client.batch([call])[0].cost == price


def test_a_port_in_use_is_one_line(new_database: NewDatabase) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError) as failure:
            ServerProcess(new_database(), listen=f"127.0.0.1:{port}")
    assert "Traceback" not in str(failure.value)
    assert str(port) in str(failure.value)


def test_requests_of_a_client_that_never_reads_are_not_read(client: Client) -> None:
    """Otherwise the server would buffer all responses for it; other clients are served
    meanwhile."""
    tenant = client.new_tenant()
    client.new_rate(tenant.id, "44")
    calls = [make_call(tenant.id, "4420", 60, call_id="x" * 200) for _ in range(200)]
    request = rating_pb.StreamRateCallsRequest(calls=calls)
    all_of_them = 3000
    sent = 0
    stop = threading.Event()

    def requests() -> Iterator[rating_pb.StreamRateCallsRequest]:
        nonlocal sent
        while not stop.is_set() and sent < all_of_them:
            sent += 1
            yield request

    with Client(client.address) as glutton:
        answers = glutton.rating.StreamRateCalls(requests())
        seen = -1
        while sent > seen:
            seen = sent
            for _ in range(20):
                assert client.rate(calls[0]).cost == "0.0600"
                time.sleep(0.05)
        stop.set()
        answers.cancel()
    assert 0 < sent < all_of_them
    assert health_of(client) == health_pb2.HealthCheckResponse.SERVING


def test_streams_are_bounded_and_end_when_the_server_stops(new_database: NewDatabase) -> None:
    with (
        ServerProcess(new_database(), TOLLWIRE_MAX_STREAMS="2") as server,
        Client(server.address) as client,
    ):
        tenant = client.new_tenant()
        client.new_rate(tenant.id, "44")
        request = rating_pb.StreamRateCallsRequest(calls=[make_call(tenant.id)])
        over = threading.Event()

        def requests() -> Iterator[rating_pb.StreamRateCallsRequest]:
            yield request
            over.wait(PATIENCE_SECONDS)

        streams = [client.rating.StreamRateCalls(requests()) for _ in range(2)]
        for stream in streams:
            assert next(stream).rated[0].cost == "0.0600"
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS"):
            list(client.rating.StreamRateCalls(iter([request])))
        # Unary methods always get a slot, and exports have slots of their own.
        assert client.rate(make_call(tenant.id)).cost == "0.0600"
        assert len(client.export_rates(tenant.id)) == 1
        streams[0].cancel()

        def has_a_slot() -> bool:
            try:
                return len(list(client.rating.StreamRateCalls(iter([request])))) == 1
            except grpc.RpcError:
                return False

        eventually(has_a_slot, "the slot of the cancelled stream")
        assert server.terminate() == 0
        with refused(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"):
            next(streams[1])
        over.set()
