"""The native transport: batches, deadlines, clients that leave, limits, drain, memory."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.integration.client import Client, make_call
from tests.process.processes import wait_until
from tests.rpc.running import DEADLINE_SECONDS, connected, native_transport, read_refusal
from tests.rpc.transports import needs_native
from tollwire.service.domain.errors import CannotListen
from tollwire.service.domain.model import Rate, Tenant, Token
from tollwire.service.domain.request import EVERY_TENANT, Role, Scope
from tollwire.service.domain.thread_context import current_request
from tollwire.service.process.composition import Application, build_application
from tollwire.service.rpc.access_control import AccessControl
from tollwire.service.rpc.batches import AdmittedRpc
from tollwire.service.rpc.capacity import SMALL_BYTES, Capacity, RequestBytes
from tollwire.service.rpc.endpoints import Endpoint, endpoints, in_batches, on_bytes
from tollwire.service.rpc.pipeline import RpcContext, RpcPipeline
from tollwire.service.rpc.pools import RpcKind
from tollwire.service.rpc.server import RpcServer
from tollwire.service.rpc.status import Failure, StatusCode
from tollwire.service.rpc.streams import Streams
from tollwire.service.rpc.transports import memory_guard, native
from tollwire.service.rpc.transports.native_front import open_front
from tollwire.service.settings.config import Settings
from tollwire.service.settings.parsing import Listen
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as pb

pytestmark = needs_native
RATING = pb.DESCRIPTOR.services_by_name["RatingService"]
RATE_CALL = "/tollwire.v1.RatingService/RateCall"
GET_RATE = "/tollwire.v1.RatingService/GetRate"
RPCS = 8


class Servicer:
    """RatingService on bytes. RateCalls run in batches, once ``go`` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.batches: list[list[bytes]] = []
        self.requests: list[Any] = []

    @on_bytes
    @in_batches("rate_batch")
    def RateCall(self, request: bytes, context: Any) -> bytes:
        self.requests.append(current_request())
        if request == b"defect":
            raise RuntimeError("alone")
        return b"alone " + request

    def rate_batch(self, batch: Sequence[AdmittedRpc]) -> None:
        assert self.go.wait(DEADLINE_SECONDS)
        self.batches.append([one.request for one in batch])
        if any(one.request == b"broken" for one in batch):
            batch[0].finish(b"before")
            raise RuntimeError("the batch fails")
        for one in batch:
            if one.request.startswith(b"alone") or one.request == b"defect":
                one.run_alone()
            else:
                one.finish(b"together " + one.request)

    @on_bytes
    def GetRate(self, request: bytes, context: Any) -> bytes:
        self.requests.append(current_request())
        assert self.go.wait(DEADLINE_SECONDS)
        return b"got " + request

    def __getattr__(self, name: str) -> Any:
        if name not in RATING.methods_by_name:
            raise AttributeError(name)
        return lambda request, context: None


@dataclass
class Served:
    servicer: Servicer
    capacity: Capacity
    transport: native.NativeTransport
    channel: grpc.Channel
    ended: list[RpcContext]

    @property
    def address(self) -> str:
        return str(self.transport.listen)

    def start(self, path: str, request: bytes, **options: Any) -> Any:
        return self.channel.unary_unary(path).future(request, timeout=DEADLINE_SECONDS, **options)

    def send(self, path: str, request: bytes, **options: Any) -> bytes:
        return self.start(path, request, **options).result()


@contextmanager
def serving(capacity: Capacity | None = None, **options: Any) -> Iterator[Served]:
    capacity = capacity or Capacity(RPCS, 4)
    servicer, ended = Servicer(), []
    methods: Sequence[Endpoint] = endpoints(
        RATING, servicer, Streams(4), RpcPipeline(observers=[ended.append]), capacity
    )
    transport = native_transport(methods, "/nowhere", capacity, **options)
    transport.start()
    with connected(str(transport.listen)) as channel:
        yield Served(servicer, capacity, transport, channel, ended)
        servicer.go.set()
    transport.stop(0)
    capacity.close()


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as found:
        yield found


def hold(served: Served) -> Any:
    """Hold the thread that takes requests, in a batch of one. Returns the call."""
    served.servicer.go.clear()
    call = served.start(RATE_CALL, b"first")
    wait_until(lambda: served.capacity.pools[RpcKind.RATING].taken == 1)
    return call


def test_requests_that_wait_run_together(served: Served) -> None:
    first = hold(served)
    calls = {text: served.start(RATE_CALL, text) for text in (b"a", b"alone", b"b", b"defect")}
    time.sleep(0.2)  # they have arrived
    served.servicer.go.set()
    assert first.result() == b"together first"
    assert calls[b"a"].result() == b"together a"
    assert calls[b"b"].result() == b"together b"
    assert calls[b"alone"].result() == b"alone alone"
    assert read_refusal(calls[b"defect"].exception()).reason == "INTERNAL"
    assert sorted(map(sorted, served.servicer.batches)) == [
        *([b"a", b"alone", b"b", b"defect"], [b"first"])
    ]
    wait_until(lambda: len(served.ended) == 5)
    assert sorted(rpc.code.name for rpc in served.ended) == ["INTERNAL", *["OK"] * 4]
    wait_until(lambda: served.capacity.pools[RpcKind.RATING].taken == 0)


def test_a_batch_that_fails_ends_each_of_its_requests(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    first = hold(served)
    calls = [served.start(RATE_CALL, b"broken") for _ in range(4)]
    time.sleep(0.2)
    served.servicer.go.set()
    assert first.result() == b"together first"
    outcomes = sorted(call.code().name for call in calls)
    # They may have arrived in more than one batch.
    assert set(outcomes) == {"INTERNAL", "OK"}
    assert outcomes.count("OK") == len(served.servicer.batches) - 1
    assert served.send(RATE_CALL, b"again") == b"together again"
    wait_until(lambda: served.capacity.pools[RpcKind.RATING].taken == 0)
    assert len(served.ended) == 6
    assert {line.levelname for line in caplog.records} == {"ERROR"}


def test_requests_above_the_slots_are_refused_at_once(served: Served) -> None:
    first = hold(served)
    calls = [served.start(RATE_CALL, b"x") for _ in range(3 * RPCS)]
    time.sleep(0.2)
    served.servicer.go.set()
    assert first.code() is grpc.StatusCode.OK
    codes = [call.code() for call in calls]
    assert codes.count(grpc.StatusCode.OK) == RPCS
    refused = [call for call in calls if call.code() is not grpc.StatusCode.OK]
    assert {read_refusal(call.exception()).reason for call in refused} == {"TOO_MANY_RPCS"}
    assert served.send(RATE_CALL, b"again") == b"together again"


def test_a_slow_method_does_not_delay_a_fast_one(served: Served) -> None:
    served.servicer.go.clear()
    slow = [served.start(GET_RATE, b"x") for _ in range(RPCS)]
    wait_until(lambda: len(served.servicer.requests) == RPCS)
    found = read_refusal(served.start(GET_RATE, b"x").exception())
    assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_RPCS")
    served.servicer.go.set()
    assert [call.result() for call in slow] == [b"got x"] * RPCS


def test_the_deadline_of_a_client_reaches_the_handler(served: Served) -> None:
    served.channel.unary_unary(GET_RATE)(b"x")
    served.channel.unary_unary(GET_RATE)(b"x", timeout=7)
    without, with_deadline = served.servicer.requests
    assert without.remaining_seconds() is None
    assert 5 < with_deadline.remaining_seconds() <= 7.1  # rounded up in the header


@pytest.mark.parametrize("leave", ["deadline", "cancel", "disconnect"])
def test_a_client_that_leaves_is_noticed(served: Served, leave: str) -> None:
    served.servicer.go.clear()
    with connected(served.address) as channel:
        timeout = 0.2 if leave == "deadline" else DEADLINE_SECONDS
        call = channel.unary_unary(GET_RATE).future(b"x", timeout=timeout)
        wait_until(lambda: len(served.servicer.requests) == 1)
        [request] = served.servicer.requests
        if leave == "deadline":
            assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        else:
            assert request.is_wanted()
        if leave == "cancel":
            call.cancel()
    wait_until(lambda: not request.is_wanted())
    served.servicer.go.set()
    wait_until(lambda: len(served.ended) == 1)
    assert served.send(RATE_CALL, b"y") == b"together y"


def test_a_large_message_is_refused_by_its_size(served: Served) -> None:
    most = SMALL_BYTES
    assert served.send(GET_RATE, b"x" * most)[:4] == b"got "
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        call = served.start(GET_RATE, b"x" * (most + 1), compression=compression)
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert call.details() == f"SERVER: Received message larger than max ({most + 1} vs. {most})"


def test_one_connection_may_hold_only_so_many_requests(served: Served) -> None:
    """Further ones wait in the client."""
    served.servicer.go.clear()
    calls = [served.start(GET_RATE, b"x") for _ in range(1_100)]
    wait_until(lambda: len(served.servicer.requests) == RPCS)
    served.servicer.go.set()
    codes = {call.code() for call in calls}
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_the_port_must_be_free(served: Served) -> None:
    with pytest.raises(CannotListen, match=r"cannot listen on 127\.0\.0\.1:\d+"):
        native.NativeTransport(
            [],
            served.transport.listen,
            partial(
                open_front,
                share_port=False,
                max_rpcs_a_connection=1,
                max_metadata_bytes=8192,
                keepalive_ms=1000,
                keepalive_timeout_ms=1000,
            ),
            fallback_path="",
            max_growth_bytes=1,
            request_bytes=RequestBytes(),
            distinguishes_callers=False,
        )


def test_memory_that_grows_too_much_closes_all_connections(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resident = [100 * 2**20]
    monkeypatch.setattr(memory_guard, "resident_bytes", lambda: resident[0])
    with serving(max_growth_bytes=50 * 2**20) as served:
        address = served.address
        served.servicer.go.clear()
        held = served.start(GET_RATE, b"x")
        wait_until(lambda: len(served.servicer.requests) == 1)
        resident[0] = 149 * 2**20
        time.sleep(3 * memory_guard.GUARD_SECONDS)
        assert not held.done()
        resident[0] = 151 * 2**20
        assert held.code() is grpc.StatusCode.UNAVAILABLE
        wait_until(lambda: not served.servicer.requests[0].is_wanted())
        served.servicer.go.set()
        # The same port serves again, and the limit counts from there.
        assert served.send(RATE_CALL, b"x", wait_for_ready=True) == b"together x"
        assert served.address == address
        wait_until(lambda: served.capacity.pools[RpcKind.ORDINARY].taken == 0)
    assert [line.getMessage() for line in caplog.records] == [
        "this process has grown to 151 MiB: closing all connections"
    ]


class Events(list[Any]):
    """A list that can have weak references."""


class ScriptedFront:
    """Passes on these events, then none until it is closed. Implements Front."""

    bound_port = 1

    def __init__(self, script: Sequence[Sequence[Any]]) -> None:
        self._script = deque(script)
        self._last: Any = lambda: None
        self._closed = threading.Event()
        self.counts: list[int] = []
        self.is_last_kept: list[bool] = []
        self.failed: list[int] = []

    def set_fallback(self, path: str) -> None: ...

    def start(self) -> None: ...

    def recv_batch_details(self, max_events: int, timeout_ms: int | None = None) -> Any:
        self.counts.append(max_events)
        self.is_last_kept.append(self._last() is not None)
        if not self._script:
            assert self._closed.wait(DEADLINE_SECONDS)
            return None
        events = Events(self._script.popleft())
        self._last = weakref.ref(events)
        return events

    def respond(self, *args: Any) -> bool:
        return True

    def fail(self, call_id: int, *args: Any) -> bool:
        self.failed.append(call_id)
        return True

    def close(self) -> None:
        self._closed.set()


def test_messages_above_all_limits_are_taken_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The front copies all that it passes on at one time, and the guard cannot run meanwhile."""
    looks: list[int] = []
    monkeypatch.setattr(memory_guard.MemoryGuard, "look", lambda guard: looks.append(1))
    capacity = Capacity(RPCS, 4)
    methods = endpoints(RATING, Servicer(), Streams(4), RpcPipeline(), capacity)
    unary = [one.method_name for one in methods if one.is_unary]
    index = unary.index("BatchRateCalls")
    most = max(one.max_request_bytes for one in methods if one.is_unary)

    def event(call_id: int, size: int) -> Any:
        return (0, call_id, index, bytes(size), None, ((), "ipv4:127.0.0.1:1", None))

    left = (1, 4, index, None, None, None)
    front = ScriptedFront(
        [[event(1, 1), event(2, most + 1)], [event(3, most + 1)], [event(4, 1)], [left]]
    )
    transport = native.NativeTransport(
        [one for one in methods if one.is_unary],
        Listen("127.0.0.1", 0),
        lambda listen, paths: front,
        fallback_path="",
        max_growth_bytes=2**40,
        request_bytes=capacity.request_bytes,
        distinguishes_callers=False,
    )
    transport.start()
    wait_until(lambda: len(front.counts) == 5)
    transport.stop(0)
    capacity.close()
    many = native.MAX_EVENTS
    assert front.counts == [many, 1, 1, many, many]
    assert {2, 3} <= set(front.failed)
    assert looks == [1, 1]
    assert not any(front.is_last_kept)  # their memory is free while the thread waits


def test_the_guard_looks_more_often_while_the_process_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resident = [100 << 20]
    looks: list[int] = []

    def grown() -> int:
        looks.append(1)
        resident[0] += memory_guard.GROWING_BYTES
        return resident[0]

    monkeypatch.setattr(memory_guard, "GUARD_SECONDS", 2.0 * DEADLINE_SECONDS)
    monkeypatch.setattr(memory_guard, "resident_bytes", grown)
    guard = memory_guard.MemoryGuard(int, 1 << 40)
    guard.start()
    wait_until(lambda: len(looks) == 1)
    guard.look()
    wait_until(lambda: len(looks) > 5)
    guard.close()


def test_memory_that_grows_while_connections_are_closed_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resident = [100]
    closing, ended = threading.Event(), threading.Event()

    def reopen() -> int:
        closing.set()
        assert ended.wait(DEADLINE_SECONDS)
        return 0

    monkeypatch.setattr(memory_guard, "resident_bytes", lambda: resident[0] << 20)
    guard = memory_guard.MemoryGuard(reopen, 50 << 20, ended.set)
    guard.start()
    resident[0] = 151
    assert closing.wait(DEADLINE_SECONDS)
    resident[0] = 199
    assert not ended.wait(5 * memory_guard.CLOSING_SECONDS)
    resident[0] = 201
    assert ended.wait(DEADLINE_SECONDS)
    guard.close()
    assert [line.levelname for line in caplog.records] == ["WARNING", "CRITICAL"]


def test_calls_that_are_not_answered_in_time_end_with_the_server(served: Served) -> None:
    served.servicer.go.clear()
    call = served.start(GET_RATE, b"x")
    wait_until(lambda: len(served.servicer.requests) == 1)
    stopping = threading.Thread(target=served.transport.stop, args=(0.1,))
    stopping.start()
    assert call.code() is grpc.StatusCode.UNAVAILABLE
    stopping.join(DEADLINE_SECONDS)
    assert not served.servicer.requests[0].is_wanted()


def test_a_stop_waits_until_the_answers_are_sent(served: Served) -> None:
    """The front drops what it has not sent when it is closed."""
    served.servicer.go.clear()
    calls = [served.start(GET_RATE, b"x") for _ in range(RPCS)]
    wait_until(lambda: len(served.servicer.requests) == RPCS)
    served.transport._guard.close()  # so that stop does not wait for its thread
    for call in list(served.transport._current.calls.values()):
        call.fail(Failure(StatusCode.NOT_FOUND, "at the last moment"))
    served.transport.stop(DEADLINE_SECONDS)
    assert [call.code() for call in calls] == [grpc.StatusCode.NOT_FOUND] * RPCS


@dataclass
class Whole:
    everything: Application
    client: Client
    server: RpcServer
    is_stopped: bool = False


@pytest.fixture
def whole_native(database_url: str) -> Iterator[Whole]:
    with ExitStack() as stack:
        everything = stack.enter_context(build_application(Settings(database=database_url)))
        access = AccessControl(everything.credentials, is_open=True)
        server = RpcServer(
            everything.subjects,
            capacity=Capacity(max_rpcs=300),
            pipeline=RpcPipeline(access, access.check_again),
            is_native=True,
        )
        client = stack.enter_context(Client(str(server.bind(Listen("127.0.0.1", 0)))))
        server.start()
        whole = Whole(everything, client, server)
        yield whole
        assert whole.is_stopped or server.stop(0)


def test_rated_and_recorded_by_many_clients_at_one_time(whole_native: Whole) -> None:
    """Each gets its own answer: a price, an error, a duplicate, a conflict, a refused tenant."""
    subjects, client = whole_native.everything.subjects, whole_native.client
    ours, theirs = (subjects.tenants.create(Tenant(name=name)).id for name in "ab")
    for tenant_id, price in ((ours, 200_0000), (theirs, 400_0000)):
        subjects.rates.create(
            Rate(tenant_id=tenant_id, prefix="44", cost_per_minute_e8=price, billing_increment=60)
        )
    scoped = subjects.tokens.create(Token("s", Role.OPERATOR, Scope(frozenset({ours}))))[1]
    every = subjects.tokens.create(Token("e", Role.OPERATOR, EVERY_TENANT))[1]

    def headers(token: str) -> Any:
        return [("authorization", f"Bearer {token}")]

    rates: list[Any] = []
    records: list[Any] = []
    for number in range(60):
        tenant_id = (ours, theirs)[number % 2]
        token = (scoped, every)[number // 2 % 2]
        destination = "49" if number % 10 == 4 else "447911123456"
        call = make_call(tenant_id, destination, 60, call_id=f"{number // 4 * 4}-{tenant_id}")
        if number % 7 == 3:
            call.duration_seconds = 61
        rates.append(
            (
                call,
                token,
                client.rating.RateCall.future(
                    pb.RateCallRequest(call=call), metadata=headers(token), timeout=DEADLINE_SECONDS
                ),
            )
        )
        records.append(
            (
                call,
                token,
                client.cdrs.CreateCdr.future(
                    cdr_pb.CreateCdrRequest(call=call),
                    metadata=headers(token),
                    timeout=DEADLINE_SECONDS,
                ),
            )
        )
    for call, token, answer in rates:
        if call.tenant_id == theirs and token == scoped:
            assert read_refusal(answer.exception()).reason == "TENANT_NOT_FOUND"
        elif call.destination_number == "49":
            assert read_refusal(answer.exception()).reason == "NO_RATE"
        else:
            minutes = 1 + (call.duration_seconds > 60)
            each = 0.02 if call.tenant_id == ours else 0.04
            assert answer.result().rated.cost == f"{minutes * each:.4f}"
    stored: dict[tuple[int, str], set[int]] = {}
    for call, token, recorded in records:
        if call.tenant_id == theirs and token == scoped:
            assert read_refusal(recorded.exception()).reason == "TENANT_NOT_FOUND"
        elif recorded.code() is grpc.StatusCode.OK:
            cdr = recorded.result()
            assert cdr.duration_seconds == call.duration_seconds
            stored.setdefault((call.tenant_id, call.call_id), set()).add(cdr.id)
        else:
            assert read_refusal(recorded.exception()).reason == "CDR_CONFLICT"
    # One CDR of a call_id, whatever was sent.
    assert {len(ids) for ids in stored.values()} == {1}
    listed = client.list_cdrs(page_size=1000)
    assert sorted(cdr.id for cdr in listed) == sorted(i for ids in stored.values() for i in ids)


def test_a_deadline_shorter_than_a_commit(whole_native: Whole) -> None:
    """The client is told at once; what was not taken by then is not recorded."""
    subjects, client = whole_native.everything.subjects, whole_native.client
    tenant_id = subjects.tenants.create(Tenant(name="a")).id
    groups: Any = subjects.cdrs._single_calls._groups
    commit, held, go = groups._commit, threading.Event(), threading.Event()

    def held_commit(items: Any) -> Any:
        held.set()
        assert go.wait(DEADLINE_SECONDS)
        return commit(items)

    groups._commit = held_commit

    def create(call_id: str, seconds: float) -> Any:
        call = make_call(tenant_id, call_id=call_id)
        return client.cdrs.CreateCdr.future(cdr_pb.CreateCdrRequest(call=call), timeout=seconds)

    first = create("first", DEADLINE_SECONDS)
    assert held.wait(DEADLINE_SECONDS)
    late = create("late", 0.2)
    left = create("left", DEADLINE_SECONDS)
    last = create("last", DEADLINE_SECONDS)
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    left.cancel()
    wait_until(lambda: sum(not m.request.is_wanted() for m in list(groups._waiting)) == 2)
    go.set()
    assert {first.result().call_id, last.result().call_id} == {"first", "last"}
    assert {cdr.call_id for cdr in client.list_cdrs()} == {"first", "last"}


def test_a_stop_finishes_what_is_in_flight(whole_native: Whole) -> None:
    """And refuses what comes after it, as grpcio does."""
    client, server = whole_native.client, whole_native.server
    tenant = client.new_tenant()
    client.new_rate(tenant.id, "44", "0.0200", 6)
    request = pb.RateCallRequest(call=make_call(tenant.id, "447911123456"))
    outcomes: list[Any] = []
    stopped = threading.Event()

    def ask() -> None:
        while not stopped.is_set():
            try:
                outcomes.append(client.rating.RateCall(request, timeout=5).rated.cost)
            except grpc.RpcError as error:
                outcomes.append(error)
                return

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(outcomes) > 100)
    server._capacity.pools.await_quiet = lambda seconds: time.sleep(0.2)  # type: ignore[method-assign]
    assert server.stop(5)
    whole_native.is_stopped = True
    stopped.set()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    failures = [one for one in outcomes if not isinstance(one, str)]
    assert {read_refusal(one).reason for one in failures} == {"SHUTTING_DOWN"}
    assert len(failures) == 4


def test_without_the_package_a_sentence_says_so(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["pygrpc_native"] = None
from tollwire.service.process.app import serve
from tollwire.service.settings.config import Settings
sys.exit(serve(Settings(transport="native", database="sqlite:///{tmp_path}/x.db")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == (
        "tollwire: --transport native: needs the extra tollwire[native]:"
        " pip install 'tollwire[native]'\n"
    )


def test_a_server_on_grpcio_does_not_load_the_package() -> None:
    code = "import sys, tollwire.service.process.app; print('pygrpc_native' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr
