"""A server above its capacity: it refuses at once, and serves the rest."""

from __future__ import annotations

import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.hostile import frames
from tests.process.processes import wait_until
from tests.rpc.running import DEADLINE_SECONDS, Refusal, Running, connected, read_refusal, running
from tollwire.service.domain.errors import Exhausted
from tollwire.service.domain.request import Caller, Role, Scope
from tollwire.service.domain.thread_context import Slot, current_slot
from tollwire.service.rpc import capacity as capacity_module
from tollwire.service.rpc import pools
from tollwire.service.rpc.capacity import (
    SMALL_BYTES,
    Capacity,
    RequestBytes,
    Reservation,
    Shares,
)
from tollwire.service.rpc.endpoints import endpoints
from tollwire.service.rpc.health import SERVICE as HEALTH
from tollwire.service.rpc.health import HealthServicer
from tollwire.service.rpc.pipeline import RpcContext, RpcPipeline
from tollwire.service.rpc.pools import (
    STREAM_KINDS,
    Awaited,
    MessageDeadlines,
    Pool,
    Pools,
    RpcKind,
    kind_of,
)
from tollwire.service.rpc.server import _SERVICES
from tollwire.service.rpc.streams import Streams
from tollwire.service.rpc.transports import memory_guard
from tollwire.service.rpc.transports.grpcio import CallerReader, add_handlers, handlers_of
from tollwire.service.rpc.transports.memory_guard import MemoryGuard
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1 import types_pb2
from tollwire.v1.rating_service_pb2_grpc import RatingServiceStub

RATING = pb.DESCRIPTOR.services_by_name["RatingService"]
RPCS = 8
STREAMS = 2
BYTES = 300_000


class Servicer:
    """RatingService, whose methods except RateCall are in progress until ``go`` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.in_work: list[str] = []

    def RateCall(self, request: Any, context: Any) -> pb.RateCallResponse:
        return pb.RateCallResponse(rated=types_pb2.RatedCall(cost="0.0040"))

    def ExportRates(self, request: Any, context: Any) -> Iterator[pb.ExportRatesResponse]:
        yield pb.ExportRatesResponse()

    def StreamRateCalls(
        self, requests: Iterator[pb.StreamRateCallsRequest], context: Any
    ) -> Iterator[pb.StreamRateCallsResponse]:
        for request in requests:
            self._hold("StreamRateCalls")
            yield pb.StreamRateCallsResponse(rated=[types_pb2.RatedCall()] * len(request.calls))

    def __getattr__(self, name: str) -> Callable[[Any, Any], Any]:
        if name not in RATING.methods_by_name:
            raise AttributeError(name)
        answer = GetMessageClass(RATING.methods_by_name[name].output_type)

        def held(request: Any, context: Any) -> Any:
            self._hold(name)
            return answer()

        return held

    def _hold(self, name: str) -> None:
        self.in_work.append(name)
        assert self.go.wait(DEADLINE_SECONDS)


class Crowd:
    """A server with few slots, and its callers, distinguished by their metadata."""

    def __init__(self, servicer: Servicer, capacity: Capacity, server: Running) -> None:
        self.servicer = servicer
        self.capacity = capacity
        self.stub = RatingServiceStub(server.channel)
        self.server = server

    def fill(self, method: str, request: Any, count: int, caller: str = "") -> list[Any]:
        """This number of calls of a unary method, all in progress."""
        before = len(self.servicer.in_work)
        ask = getattr(self.stub, method)
        calls: list[Any] = []
        for _ in range(count):  # one by one
            calls.append(
                ask.future(request, metadata=[("caller", caller)], timeout=2 * DEADLINE_SECONDS)
            )
            wait_until(lambda: len(self.servicer.in_work) == before + len(calls))
        return calls

    def refused(self, method: str, request: Any, caller: str = "") -> Refusal:
        """The refusal of one more call, while all others are in progress."""
        ask = getattr(self.stub, method)
        with pytest.raises(grpc.RpcError) as raised:
            ask(request, metadata=[("caller", caller)], timeout=DEADLINE_SECONDS)
        found = read_refusal(raised.value)
        assert found.code is grpc.StatusCode.RESOURCE_EXHAUSTED, found
        assert (found.domain, found.retry_seconds) == ("tollwire", 1.0)
        return found

    def rate(self, caller: str = "") -> str:
        answer = self.stub.RateCall(
            pb.RateCallRequest(), metadata=[("caller", caller)], timeout=DEADLINE_SECONDS
        )
        return answer.rated.cost

    def finish(self, calls: list[Any]) -> None:
        self.servicer.go.set()
        for call in calls:
            call.result(DEADLINE_SECONDS)


CALLERS = {
    "a": Caller("a", Role.ADMIN, Scope(), token_id=1),
    "b": Caller("b", Role.ADMIN, Scope(), token_id=2),
    "seven": Caller("seven", Role.ADMIN, Scope(frozenset({7})), token_id=3),
    "seven too": Caller("seven too", Role.ADMIN, Scope(frozenset({7})), token_id=4),
    "": Caller("local", Role.ADMIN, Scope()),
}


def identify(rpc: RpcContext) -> Caller:
    return CALLERS[str(dict(rpc.call.metadata).get("caller", ""))]


@pytest.fixture
def crowd(transport: str) -> Iterator[Crowd]:
    servicer = Servicer()
    capacity = Capacity(RPCS, STREAMS, BYTES, 0.5)
    pipeline = RpcPipeline(identify, limits=[capacity.shares()])
    with running(
        RATING,
        servicer,
        max_streams=STREAMS,
        pipeline=pipeline,
        capacity=capacity,
        transport=transport,
    ) as server:
        yield Crowd(servicer, capacity, server)
        servicer.go.set()


LONG = RPCS // pools.LONG_SHARE
FULL = {
    RpcKind.ORDINARY: ("GetRate", pb.GetRateRequest(id=1), RPCS),
    RpcKind.LONG: ("ListRates", pb.ListRatesRequest(tenant_id=1), LONG),
    RpcKind.BATCH: ("BatchRateCalls", pb.BatchRateCallsRequest(), RPCS),
}


@pytest.mark.parametrize("kind", FULL, ids=[kind.name for kind in FULL])
def test_one_call_too_many_is_refused_while_the_others_are_in_progress(
    crowd: Crowd, kind: RpcKind
) -> None:
    method, request, slots = FULL[kind]
    calls = crowd.fill(method, request, slots)
    for _ in range(3):
        found = crowd.refused(method, request)
        assert found.reason == "TOO_MANY_RPCS"
        assert kind.value in found.message
    crowd.finish(calls)
    wait_until(lambda: crowd.capacity.pools[kind].taken == 0)
    crowd.finish([getattr(crowd.stub, method).future(request) for _ in range(slots)])


def test_a_refused_request_is_not_read(crowd: Crowd, transport: str) -> None:
    if transport == "native":
        pytest.skip("the front reads a request before it passes it on")
    calls = crowd.fill("GetRate", pb.GetRateRequest(id=1), RPCS)
    never = threading.Event()

    def silent() -> Iterator[bytes]:
        never.wait(DEADLINE_SECONDS)
        yield b""

    ask = crowd.server.channel.stream_unary("/tollwire.v1.RatingService/GetRate")
    with pytest.raises(grpc.RpcError) as raised:
        ask(silent(), timeout=DEADLINE_SECONDS)
    never.set()
    assert read_refusal(raised.value).reason == "TOO_MANY_RPCS"
    crowd.finish(calls)


def test_calls_are_rated_while_all_other_slots_are_taken(crowd: Crowd) -> None:
    calls = []
    for method, request, slots in FULL.values():
        calls += crowd.fill(method, request, slots)
    streams = [
        crowd.stub.StreamRateCalls(iter([pb.StreamRateCallsRequest()])) for _ in range(STREAMS)
    ]
    wait_until(lambda: crowd.servicer.in_work.count("StreamRateCalls") == STREAMS)
    assert [crowd.rate() for _ in range(20)] == ["0.0040"] * 20
    for method, request, _ in FULL.values():
        assert crowd.refused(method, request).reason == "TOO_MANY_RPCS"
    crowd.finish(calls)
    assert [len(list(stream)) for stream in streams] == [1] * STREAMS


def test_streams_beyond_even_the_threads_are_refused_as_streams(crowd: Crowd) -> None:
    requests = [pb.StreamRateCallsRequest()]
    streams = [crowd.stub.StreamRateCalls(iter(requests)) for _ in range(STREAMS)]
    wait_until(lambda: len(crowd.servicer.in_work) == STREAMS)
    many = [crowd.stub.StreamRateCalls(iter(requests)) for _ in range(20)]
    for stream in many:
        with pytest.raises(grpc.RpcError) as raised:
            next(stream)
        assert read_refusal(raised.value).reason == "TOO_MANY_STREAMS"
    crowd.servicer.go.set()
    assert [len(list(stream)) for stream in streams] == [1] * STREAMS


def test_one_caller_has_a_share_and_another_gets_slots(crowd: Crowd) -> None:
    request = pb.GetRateRequest(id=1)
    calls = crowd.fill("GetRate", request, RPCS // 2, caller="a")
    assert crowd.refused("GetRate", request, caller="a").reason == "SHARE_TAKEN"
    assert crowd.rate(caller="a") == "0.0040"
    calls += crowd.fill("GetRate", request, RPCS // 4, caller="b")
    # Slots stay free for a third.
    assert crowd.refused("GetRate", request, caller="b").reason == "SHARE_TAKEN"
    calls += crowd.fill("GetRate", request, 1, caller="seven")
    crowd.finish(calls)
    # All slots are released, also those of refused callers.
    crowd.servicer.go.clear()
    crowd.finish(crowd.fill("GetRate", request, RPCS // 2, caller="a"))


def test_a_share_is_enforced_before_the_queue() -> None:
    """Otherwise one caller's requests would fill the queue before their caller is known."""
    pool = Pool("test", 1, 4, share=0.5)
    details = SimpleNamespace(method="", invocation_metadata=[("authorization", "Bearer a")])
    go, seen = threading.Event(), []

    def work(name: str) -> None:
        seen.append((name, current_slot()))
        assert current_slot() is not Slot.GRANTED or go.wait(DEADLINE_SECONDS)

    def submit(name: str, said: str) -> Any:
        details.invocation_metadata = [("other", "x"), ("authorization", said)]
        details.invocation_metadata = details.invocation_metadata[: 2 if said else 1]
        hand_over: Any = CallerReader().intercept_service
        return hand_over(lambda _: pool.submit(work, name), details)

    for name in ("a1", "a2"):
        submit(name, "Bearer a")
    submit("a3", "Bearer a")
    assert seen[-1] == ("a3", Slot.SHARE_TAKEN)
    submit("b1", "Bearer b")
    submit("nobody", "")
    submit("c1", "Bearer c")
    assert seen[-1] == ("c1", Slot.ALL_TAKEN)
    go.set()
    wait_until(lambda: pool.taken == 0)
    submit("a4", "Bearer a")
    pool.shutdown()
    assert seen[-1] == ("a4", Slot.GRANTED)
    assert (pool.taken, pool._taken_by) == (0, {})


def test_a_pool_starts_threads_as_it_needs_them_and_runs_everything() -> None:
    pool = Pool("test", 4, 1_000)
    names, ended = [], []

    def work() -> None:
        names.append(threading.current_thread().name)
        time.sleep(0.0005)

    for _ in range(3):
        pool.submit(work).add_done_callback(ended.append)
        wait_until(lambda: pool.taken == 0)
        time.sleep(0.01)  # the thread is idle
    assert set(names) == {"test_0"}
    for _ in range(500):
        pool.submit(work).add_done_callback(ended.append)
    pool.shutdown()
    assert len(names) == len(ended) == 503
    assert set(names) == {f"test_{number}" for number in range(4)}
    assert pool.taken == 0
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(work)


def test_work_that_fails_ends_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool("test", 1, 4)
    done = threading.Event()

    def fail() -> None:
        raise ValueError("here")

    pool.submit(fail).add_done_callback(lambda _: done.set())
    assert done.wait(DEADLINE_SECONDS)
    seen: list[int] = []
    pool.submit(seen.append, 1)
    pool.shutdown()
    assert (seen, pool.taken) == ([1], 0)
    assert [line.message for line in caplog.records] == ["a handler has failed"]


def test_an_awaited_message_keeps_no_slot_from_others() -> None:
    """The RPC that has waited longest gives its slot up: one of the caller with the most of them,
    or of the caller that has its whole share."""
    pool = Pool("test", 1, 4, share=0.5)
    evicted: list[str] = []

    def enter(name: str) -> Awaited:
        caller = name[0]

        def evict() -> None:
            evicted.append(name)
            pool.release(caller)

        assert pool.acquire(caller) is Slot.GRANTED
        awaited = Awaited(caller, evict)
        pool.await_message(awaited)
        return awaited

    try:
        waits = {name: enter(name) for name in ("b1", "a1", "a2", "a3")}
        assert evicted == ["a1"]  # a's whole share was taken
        enter("c1")
        enter("d1")
        assert evicted == ["a1", "a2"]  # all slots were taken, and a has the most
        assert not pool.end_wait(waits["a2"])
        assert pool.end_wait(waits["a3"])
        assert not pool.evict_awaited("a")  # its message is there
        pool.release("a")
        assert pool.taken == 3
    finally:
        pool.shutdown()


def test_memory_that_grows_ends_what_is_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of 32 MiB is read before its size can be judged."""
    resident = [100 << 20]
    monkeypatch.setattr(memory_guard, "resident_bytes", lambda: resident[0])
    capacity = Capacity(RPCS, STREAMS)
    ended = threading.Event()

    def give_up() -> int:
        given_up = capacity.pools.give_up_messages()
        resident[0] = 100 << 20
        ended.set()
        return given_up

    guard = MemoryGuard(give_up, 50 << 20, end=None)
    with running(RATING, Servicer(), capacity=capacity) as server:

        def silent() -> Iterator[bytes]:
            ended.wait(DEADLINE_SECONDS)
            yield b""

        calls = [
            server.channel.stream_unary(method).future(silent(), timeout=2 * DEADLINE_SECONDS)
            for method in (METHODS["a rating"], METHODS["a batch"])
        ]
        wait_until(
            lambda: all(capacity.pools[one].taken for one in (RpcKind.RATING, RpcKind.BATCH))
        )
        guard.start()
        time.sleep(3 * memory_guard.GUARD_SECONDS)
        assert not any(call.done() for call in calls)
        resident[0] = 201 << 20
        assert [call.code() for call in calls] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
        wait_until(lambda: capacity.request_bytes.held == 0)
    guard.close()


def test_memory_is_returned_after_large_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    returned: list[int] = []
    monkeypatch.setattr(memory_guard, "TRIM_QUIET_SECONDS", 0.0)
    monkeypatch.setattr(memory_guard, "_return_free_memory", lambda: returned.append(1))
    request_bytes = RequestBytes()
    guard = MemoryGuard(int, 1 << 40, passed_bytes=lambda: request_bytes.passed)
    guard.start()
    try:
        request_bytes.release(request_bytes.acquire(b"x" * (memory_guard.TRIM_BYTES - 1)))
        time.sleep(5 * memory_guard.GUARD_SECONDS)
        assert returned == []
        request_bytes.refuse(b"x")
        wait_until(lambda: returned == [1])
        time.sleep(5 * memory_guard.GUARD_SECONDS)
        assert returned == [1]
    finally:
        guard.close()


def test_memory_is_taken_only_from_rpcs_that_have_some_and_are_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = Pools(4, 1)
    evicted: list[str] = []

    def enter(kind: RpcKind, name: str, has_memory: bool) -> None:
        pool = served[kind]
        assert pool.acquire("") is Slot.GRANTED

        def evict() -> None:
            evicted.append(name)
            pool.release("")

        pool.await_message(Awaited("", evict, has_memory=has_memory))

    try:
        enter(RpcKind.BATCH, "a batch", True)
        enter(RpcKind.RATING, "a rating", False)
        served.evict_slow()
        assert evicted == []
        monkeypatch.setattr(pools, "PATIENCE_SECONDS", 0.0)
        served.evict_slow()
        assert evicted == ["a batch"]
    finally:
        served.close()


METHODS = {
    "a rating": "/tollwire.v1.RatingService/RateCall",
    "a batch": "/tollwire.v1.RatingService/BatchRateCalls",
    "a request": "/tollwire.v1.RatingService/GetRate",
    "an export": "/tollwire.v1.RatingService/ExportRates",
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_requests_without_a_message_block_nobody(transport: str, method: str) -> None:
    """More of them than there are slots and threads, from a client that sends headers only."""
    servicer, capacity = Servicer(), Capacity(RPCS, STREAMS)
    servicer.go.set()
    with running(RATING, servicer, capacity=capacity, transport=transport) as server:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), DEADLINE_SECONDS) as line:
            line.sendall(frames.opening())
            fields = frames.request_headers(path=method)
            for number in range(10 * RPCS):
                line.sendall(frames.headers(2 * number + 1, fields))
            if transport == "grpcio":
                slots = {pool.slots for pool in capacity.pools._pools.values()}
                wait_until(
                    lambda: any(
                        pool.taken in slots for pool in capacity.pools._pools.values() if pool.taken
                    )
                )
            for _ in range(3):
                ask = server.channel.unary_stream(method)
                assert len(list(ask(b"", timeout=DEADLINE_SECONDS))) <= 1
                assert server.channel.unary_unary(METHODS["a rating"])(
                    b"", timeout=DEADLINE_SECONDS
                )
        wait_until(lambda: not any(pool.taken for pool in capacity.pools._pools.values()))


def test_health_checks_without_a_message_block_no_probe(transport: str) -> None:
    with running(HEALTH, HealthServicer([]), transport=transport) as server:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), DEADLINE_SECONDS) as line:
            line.sendall(frames.opening())
            for number in range(2 * pools.HEALTH_SLOTS):
                method = ("Check", "Watch")[number % 2]
                fields = frames.request_headers(path=f"/grpc.health.v1.Health/{method}")
                line.sendall(frames.headers(2 * number + 1, fields))
            stub = health_pb2_grpc.HealthStub(server.channel)
            request = health_pb2.HealthCheckRequest()
            assert stub.Check(request, timeout=DEADLINE_SECONDS).status
            assert next(stub.Watch(request, timeout=DEADLINE_SECONDS)).status


def test_memory_is_reserved_before_a_request_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request of this method may be large. One that is slow gives way to the next."""
    most = 8 * 2**20
    monkeypatch.setattr(pools, "PATIENCE_SECONDS", 0.0)
    capacity = Capacity(RPCS, STREAMS, most)
    with running(RATING, Servicer(), capacity=capacity) as server:
        never = threading.Event()

        def silent() -> Iterator[bytes]:
            never.wait(DEADLINE_SECONDS)
            yield b""

        ask = server.channel.stream_unary(METHODS["a batch"])
        one = ask.future(silent(), timeout=2 * DEADLINE_SECONDS)
        wait_until(lambda: capacity.request_bytes.held == most)
        other = ask.future(silent(), timeout=2 * DEADLINE_SECONDS)
        assert one.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        wait_until(lambda: capacity.request_bytes.held == most)
        other.cancel()
        wait_until(lambda: capacity.request_bytes.held == 0)
        never.set()


def test_the_tokens_of_one_tenant_share(crowd: Crowd) -> None:
    request = pb.GetRateRequest(id=1)
    calls = crowd.fill("GetRate", request, RPCS // 4, caller="seven")
    calls += crowd.fill("GetRate", request, RPCS // 4, caller="seven too")
    for caller in ("seven", "seven too"):
        assert crowd.refused("GetRate", request, caller=caller).reason == "SHARE_TAKEN"
    crowd.finish(calls)


def rpc_of(token_id: int, tenant_ids: tuple[int, ...] | None) -> RpcContext:
    call: Any = SimpleNamespace(metadata=[], remaining_seconds=None, is_wanted=None)
    rpc = RpcContext("CdrService/UploadCdrs", call, RpcKind.INGEST_STREAM)
    scope = Scope(None if tenant_ids is None else frozenset(tenant_ids))
    rpc.request.caller = Caller("any", Role.INGEST, scope, token_id)
    return rpc


def taken(shares: Shares, rpc: RpcContext) -> int:
    """The number of slots that the caller gets."""
    for count in range(1000):
        try:
            shares.acquire(rpc)
        except Exhausted:
            return count
    raise AssertionError("no limit")


def test_customers_leave_slots_to_others() -> None:
    shares = Shares(0.5, {RpcKind.INGEST_STREAM: 32})
    first = rpc_of(1, (1, 2))
    assert taken(shares, first) == 16
    # Another token of the same tenants is the same customer.
    assert taken(shares, rpc_of(2, (1, 2))) == 0
    # Tokens for all tenants are services of the operator, each on its own.
    assert [taken(shares, rpc_of(token_id, None)) for token_id in (3, 4, 5)] == [8, 4, 2]
    assert taken(shares, rpc_of(6, (7,))) == 1
    for _ in range(16):
        shares.release(first)
    assert taken(shares, rpc_of(7, (8,))) == 9
    assert taken(Shares(0.9, {RpcKind.INGEST_STREAM: 32}), first) == 28


def test_unread_exports_do_not_block_uploads(crowd: Crowd) -> None:
    crowd.servicer.go.set()
    request = pb.StreamRateCallsRequest()
    held = crowd.stub.StreamRateCalls(silent_after(request), metadata=[("caller", "a")])
    assert next(held) == pb.StreamRateCallsResponse()
    assert crowd.stub.ImportRates(iter([pb.ImportRatesRequest()]), metadata=[("caller", "a")])
    again = crowd.stub.StreamRateCalls(iter([request]), metadata=[("caller", "a")])
    with pytest.raises(grpc.RpcError) as raised:
        next(again)
    assert read_refusal(raised.value).reason == "SHARE_TAKEN"
    held.cancel()


def silent_after(request: pb.StreamRateCallsRequest) -> Iterator[pb.StreamRateCallsRequest]:
    yield request
    threading.Event().wait(2 * DEADLINE_SECONDS)


def test_a_caller_without_a_token_is_not_counted(crowd: Crowd) -> None:
    calls = crowd.fill("GetRate", pb.GetRateRequest(id=1), RPCS)
    assert crowd.refused("GetRate", pb.GetRateRequest(id=1)).reason == "TOO_MANY_RPCS"
    crowd.finish(calls)


LARGE = [types_pb2.Call(call_id="x" * BYTES)]


def test_requests_that_fill_the_memory_block_others(crowd: Crowd) -> None:
    request = pb.BatchRateCallsRequest(calls=LARGE)
    calls = crowd.fill("BatchRateCalls", request, 1)
    assert crowd.capacity.request_bytes.held > BYTES
    assert crowd.refused("BatchRateCalls", request).reason == "TOO_MANY_BYTES"
    assert crowd.refused("GetRate", pb.GetRateRequest(id=1)).reason == "TOO_MANY_BYTES"
    # A stream only waits.
    stream = crowd.stub.StreamRateCalls(iter([pb.StreamRateCallsRequest(calls=LARGE)]))
    wait_until(lambda: len(crowd.server.streams) == 1)
    assert crowd.servicer.in_work == ["BatchRateCalls"]
    crowd.finish(calls)
    assert [len(answer.rated) for answer in stream] == [1]
    wait_until(lambda: crowd.capacity.request_bytes.held == 0)


def test_a_stream_that_waits_for_memory_ends_with_its_client(crowd: Crowd) -> None:
    calls = crowd.fill("BatchRateCalls", pb.BatchRateCallsRequest(calls=LARGE), 1)
    stream = crowd.stub.StreamRateCalls(iter([pb.StreamRateCallsRequest(calls=LARGE)]))
    wait_until(lambda: len(crowd.server.streams) == 1)
    stream.cancel()
    wait_until(lambda: len(crowd.server.streams) == 0)
    crowd.finish(calls)


def test_small_requests_are_not_counted() -> None:
    request_bytes = RequestBytes(10)
    assert request_bytes.acquire(b"x" * SMALL_BYTES) == 0
    request_bytes.check()
    assert request_bytes.acquire(b"x" * (SMALL_BYTES + 1)) == SMALL_BYTES + 1
    request_bytes.release(SMALL_BYTES + 1)
    request_bytes.check()


class Wanting:
    """Reservations of one RequestBytes, and what has happened to them, in order."""

    def __init__(self, most: int) -> None:
        self.slow = 0
        self.request_bytes = RequestBytes(most, self._evict_slow)
        self.events: list[str] = []

    def _evict_slow(self) -> None:
        self.slow += 1

    def reserve(self, name: str, size: int, granted: Callable[[], object] = int) -> Reservation:
        """One of the caller that is the first letter of the name."""

        def note() -> None:
            self.events.append(name)
            granted()

        def refused(error: Exception) -> None:
            assert isinstance(error, Exhausted)
            self.events.append(f"{name} refused")

        one = Reservation(name[0], size, note, refused)
        assert self.request_bytes.reserve(one) is (name in self.events)
        return one


def test_what_was_reserved_is_exchanged_for_the_size() -> None:
    wanting = Wanting(5 * SMALL_BYTES)
    request_bytes = wanting.request_bytes
    wanting.reserve("a", 3 * SMALL_BYTES)
    wanting.reserve("b", 3 * SMALL_BYTES)
    assert (wanting.events, wanting.slow) == (["a"], 1)
    held = request_bytes.settle(3 * SMALL_BYTES, b"x" * 2 * SMALL_BYTES)
    assert wanting.events == ["a", "b"]
    assert (held, request_bytes.held) == (2 * SMALL_BYTES, 5 * SMALL_BYTES)
    # What comes without a reservation does not wait for a message that may never come.
    request_bytes.check(3 * SMALL_BYTES)
    request_bytes.wait_for_space(lambda: pytest.fail("waits"))
    other = request_bytes.settle(3 * SMALL_BYTES, b"x" * 3 * SMALL_BYTES)
    for size in (0, 2 * SMALL_BYTES):
        with pytest.raises(Exhausted):
            request_bytes.check(size)
    request_bytes.release(other)
    request_bytes.check(3 * SMALL_BYTES)
    with pytest.raises(Exhausted):
        request_bytes.check(4 * SMALL_BYTES)
    request_bytes.release(held)
    assert request_bytes.held == 0
    # A request alone may exceed the limit.
    request_bytes.check(9 * SMALL_BYTES)
    wanting.reserve("c", 9 * SMALL_BYTES)
    assert wanting.events == ["a", "b", "c"]


def test_memory_is_granted_in_rotation_of_the_callers() -> None:
    wanting = Wanting(2)
    names = ["a1", "a2", "a3", "a4", "a5", "b1", "b2", "c1"]
    waiting = {name: wanting.reserve(name, 1) for name in names}
    assert wanting.events == ["a1", "a2"]
    assert wanting.request_bytes.withdraw(waiting["a4"])
    assert not wanting.request_bytes.withdraw(waiting["a4"])
    assert not wanting.request_bytes.withdraw(waiting["a1"])
    for count in range(3, 8):
        wanting.request_bytes.cancel(1)
        assert len(wanting.events) == count
    assert wanting.events == ["a1", "a2", "a3", "b1", "c1", "a5", "b2"]
    assert (wanting.request_bytes.held, wanting.request_bytes.waiting) == (2, 0)


def test_a_large_reservation_is_not_overtaken() -> None:
    wanting = Wanting(4)
    for name, size in (("a1", 1), ("b1", 4), ("a2", 1)):
        wanting.reserve(name, size)
    assert wanting.events == ["a1"]
    wanting.request_bytes.cancel(1)
    assert wanting.events == ["a1", "b1"]
    wanting.request_bytes.cancel(4)
    assert wanting.events == ["a1", "b1", "a2"]


def test_many_that_end_as_soon_as_they_get_memory() -> None:
    """Each gives its memory to the next: not by a call in a call."""
    wanting = Wanting(1)
    count = 2 * sys.getrecursionlimit()
    wanting.reserve("first", 1)
    for _ in range(count):
        wanting.reserve("next", 1, granted=lambda: wanting.request_bytes.cancel(1))
    wanting.request_bytes.cancel(1)
    assert len(wanting.events) == 1 + count
    assert wanting.request_bytes.held == 0


def test_a_defect_of_one_keeps_no_memory_from_the_next(caplog: pytest.LogCaptureFixture) -> None:
    wanting = Wanting(1)
    wanting.reserve("a", 1)
    wanting.reserve("b", 1, granted=lambda: 1 // 0)
    wanting.reserve("c", 1)
    wanting.request_bytes.cancel(1)
    wanting.request_bytes.cancel(1)
    assert wanting.events == ["a", "b", "c"]
    assert len(caplog.records) == 1


def test_the_limit_is_never_exceeded_and_everybody_gets_memory() -> None:
    """Many threads reserve, exchange, cancel and leave."""
    most = 10 * SMALL_BYTES
    request_bytes = RequestBytes(most)
    ended: list[str] = []
    refused: list[Exception] = []
    exceeded: list[int] = []

    def work(number: int) -> None:
        draw = random.Random(number)
        for _ in range(200):
            size = draw.choice((2, 3, 5)) * SMALL_BYTES
            has_memory = threading.Event()
            one = Reservation(str(number % 3), size, has_memory.set, refused.append)
            leaves = not request_bytes.reserve(one) and draw.random() < 0.3
            if leaves and request_bytes.withdraw(one):
                ended.append("left")
                continue
            assert has_memory.wait(DEADLINE_SECONDS)
            if (held := request_bytes.held) > most:
                exceeded.append(held)
            time.sleep(draw.choice((0, 0, 0.0005)))
            if draw.random() < 0.5:
                request_bytes.cancel(size)
            else:
                request = bytes(draw.randrange(size))
                request_bytes.release(request_bytes.settle(size, request))
            ended.append("done")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert len(ended) == 6 * 200
    assert "left" in ended
    assert exceeded == refused == []
    assert (request_bytes.held, request_bytes.waiting) == (0, 0)


def test_a_wait_for_memory_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    wanting = Wanting(1)
    wanting.reserve("a", 1)
    monkeypatch.setattr(capacity_module, "MEMORY_WAIT_SECONDS", 0.0)
    wanting.reserve("b", 1)
    monkeypatch.undo()
    wanting.reserve("c", 1)
    assert wanting.request_bytes.review()
    assert wanting.events == ["a", "b refused"]
    assert wanting.slow == 3  # each that waits, and the review
    wanting.request_bytes.cancel(1)
    assert wanting.events == ["a", "b refused", "c"]
    assert not wanting.request_bytes.review()
    assert wanting.slow == 3


BATCH_BYTES = 8 * 2**20


def test_a_burst_of_small_batches_is_answered(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory for 32 of the largest ones is there. None of the messages arrives before all RPCs
    have begun."""
    monkeypatch.setattr(pools, "PATIENCE_SECONDS", DEADLINE_SECONDS)
    servicer, capacity, count = Servicer(), Capacity(), 200
    servicer.go.set()
    go = threading.Event()

    def batch() -> Iterator[bytes]:
        go.wait(DEADLINE_SECONDS)
        yield pb.BatchRateCallsRequest(calls=[types_pb2.Call()]).SerializeToString()

    with running(RATING, servicer, capacity=capacity, transport=transport) as server:
        ask = server.channel.stream_unary(METHODS["a batch"])
        calls = [ask.future(batch(), timeout=2 * DEADLINE_SECONDS) for _ in range(count)]
        if transport == "grpcio":
            can_read = capacity.max_request_bytes // BATCH_BYTES
            wait_until(lambda: capacity.request_bytes.waiting == count - can_read)
            assert capacity.request_bytes.held == capacity.max_request_bytes
        go.set()
        assert [call.code() for call in calls] == [grpc.StatusCode.OK] * count
        wait_until(lambda: capacity.pools[RpcKind.BATCH].taken == 0)
        assert (capacity.request_bytes.held, capacity.request_bytes.waiting) == (0, 0)


def test_silent_batches_delay_others_until_their_memory_is_needed(transport: str) -> None:
    servicer, capacity = Servicer(), Capacity()
    servicer.go.set()
    with running(RATING, servicer, capacity=capacity, transport=transport) as server:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), DEADLINE_SECONDS) as line:
            line.sendall(frames.opening())
            fields = frames.request_headers(path=METHODS["a batch"])
            for number in range(40):
                line.sendall(frames.headers(2 * number + 1, fields))
            if transport == "grpcio":
                wait_until(lambda: capacity.request_bytes.waiting == 8)
            ask = server.channel.unary_unary(METHODS["a batch"])
            # Before any of the silent ones is cancelled.
            assert ask(b"", timeout=DEADLINE_SECONDS) == b""
            if transport == "grpcio":
                wait_until(lambda: capacity.request_bytes.held == 8 * BATCH_BYTES)
        wait_until(lambda: capacity.pools[RpcKind.BATCH].taken == 0)
        assert (capacity.request_bytes.held, capacity.request_bytes.waiting) == (0, 0)


def test_an_rpc_that_waits_for_memory_ends_with_its_client_or_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "PATIENCE_SECONDS", DEADLINE_SECONDS)
    monkeypatch.setattr(pools, "_SWEEP_SECONDS", 0.01)
    capacity = Capacity(RPCS, STREAMS, BATCH_BYTES)
    pool, request_bytes = capacity.pools[RpcKind.BATCH], capacity.request_bytes
    capacity.message_deadlines.close()
    # It looks as often as the shortest time limit.
    capacity.message_deadlines = MessageDeadlines(health_seconds=0.1, review=request_bytes.review)
    never = threading.Event()

    def silent() -> Iterator[bytes]:
        never.wait(DEADLINE_SECONDS)
        yield b""

    with running(RATING, Servicer(), capacity=capacity) as server:
        ask = server.channel.stream_unary(METHODS["a batch"])
        first = ask.future(silent(), timeout=2 * DEADLINE_SECONDS)
        wait_until(lambda: request_bytes.held == BATCH_BYTES)
        leaves = ask.future(silent(), timeout=2 * DEADLINE_SECONDS)
        wait_until(lambda: request_bytes.waiting == 1)
        leaves.cancel()
        wait_until(lambda: (request_bytes.waiting, pool.taken) == (0, 1))
        monkeypatch.setattr(capacity_module, "MEMORY_WAIT_SECONDS", 0.0)
        late = ask.future(silent(), timeout=2 * DEADLINE_SECONDS)
        assert read_refusal(late.exception()).reason == "TOO_MANY_BYTES"
        assert not first.done()
        first.cancel()
        wait_until(lambda: (request_bytes.held, pool.taken) == (0, 0))
        never.set()


def test_a_client_that_does_not_send_the_message_is_refused() -> None:
    """Otherwise a few clients that send nothing would hold all threads permanently."""
    capacity = Capacity(RPCS, STREAMS)
    capacity.message_deadlines.close()
    capacity.message_deadlines = MessageDeadlines(seconds=0.1, health_seconds=0.1)
    with running(RATING, Servicer(), capacity=capacity) as server:
        never = threading.Event()

        def silent() -> Iterator[bytes]:
            never.wait(DEADLINE_SECONDS)
            yield b""

        ask = server.channel.stream_unary("/tollwire.v1.RatingService/GetRate")
        calls = [ask.future(silent()) for _ in range(RPCS)]
        assert [call.code() for call in calls] == [grpc.StatusCode.CANCELLED] * RPCS
        never.set()
        wait_until(lambda: capacity.pools[RpcKind.ORDINARY].taken == 0)


def test_health_has_threads_of_its_own() -> None:
    servicer, capacity = Servicer(), Capacity(1, 1)
    server = grpc.server(capacity.pools[RpcKind.ORDINARY], options=[("grpc.so_reuseport", 0)])
    streams = Streams(1)
    for service, of_service in ((RATING, servicer), (HEALTH, HealthServicer([]))):
        methods = endpoints(service, of_service, streams, RpcPipeline(), capacity)
        add_handlers(server, handlers_of(methods))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with connected(address) as channel:
        crowd = Crowd(servicer, capacity, Running(server, channel, streams, address))
        calls = crowd.fill("GetRate", pb.GetRateRequest(id=1), 1)
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        answer = check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_SECONDS)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        crowd.finish(calls)
    server.stop(0).wait(DEADLINE_SECONDS)
    capacity.close()


def test_the_table_of_kinds_names_existing_methods() -> None:
    methods = {
        f"{service.name}/{method.name}": method
        for service in _SERVICES.values()
        for method in service.methods
    }
    assert set(pools._KINDS) <= set(methods)
    streaming = {
        name
        for name, method in methods.items()
        if method.client_streaming or method.server_streaming
    }
    assert {kind_of(methods[name]) for name in streaming} == set(STREAM_KINDS)
    kinds = {name.partition("/")[2]: kind_of(methods[name]) for name in streaming}
    assert kinds["StreamRateCalls"] is RpcKind.RATING_STREAM
    assert kinds["UploadCdrs"] is kinds["ImportRates"] is RpcKind.INGEST_STREAM
    assert kinds["ExportCdrs"] is kinds["WatchCdrs"] is RpcKind.READING_STREAM
    upload = cdr_pb.DESCRIPTOR.services_by_name["CdrService"].methods_by_name["CreateCdr"]
    assert kind_of(upload) is RpcKind.ORDINARY
