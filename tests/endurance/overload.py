"""Ten times the capacity of a server, for a given time, and the service for others meanwhile.

There are two tokens. The clients of the first send ten times as many requests of every kind as the
server has slots: streams that stay open, reads of whole tables, records, batches, calls to rate.
The client of the second rates one call after the other, within all limits, and each call must be
answered. When the first clients have ended, the server must be as before.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import psutil
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.integration.client import make_call
from tests.integration.serving import ServerProcess
from tollwire.v1 import access_service_pb2 as access_pb
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2
from tollwire.v1.access_service_pb2_grpc import AccessServiceStub
from tollwire.v1.cdr_service_pb2_grpc import CdrServiceStub
from tollwire.v1.rating_service_pb2_grpc import RatingServiceStub
from tollwire.v1.tenant_service_pb2_grpc import TenantServiceStub

TIMES = 10
MAX_RPCS = 16
MAX_STREAMS = 4
# A client that is told to retry after a second retries after a tenth.
IMPATIENCE_SECONDS = 0.1
DEADLINE_SECONDS = 30
COST = "0.0040"
# grpc and the interpreter keep memory that they once needed; all else must be released.
MAY_GROW_BYTES = 64 * 1024 * 1024
REFUSED = grpc.StatusCode.RESOURCE_EXHAUSTED


@dataclass
class Figures:
    """``within`` are the calls of the client within its limits. Memory is the server's."""

    seconds: float = 0.0
    clients: int = 0
    within_sent: int = 0
    within_answered: int = 0
    within_p50_ms: float = 0.0
    within_p99_ms: float = 0.0
    crowd_answered: int = 0
    crowd_refused: int = 0
    crowd_failed: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    without_retry_info: int = 0
    early_bytes: int = 0
    late_bytes: int = 0
    threads: int = 0
    afterwards: str = ""

    @property
    def passed(self) -> bool:
        return (
            self.within_sent == self.within_answered > 0
            and self.crowd_refused > 0
            and not self.crowd_failed
            and not self.without_retry_info
            and self.late_bytes - self.early_bytes <= MAY_GROW_BYTES
            and self.afterwards == "well"
        )


class Crowd:
    """Clients of one kind, each of which sends the next request after a response."""

    def __init__(self, figures: Figures, stop: threading.Event) -> None:
        self._figures = figures
        self._stop = stop
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def join_in(self, count: int, ask: Callable[[], None]) -> None:
        for _ in range(count):
            thread = threading.Thread(target=self._go_on, args=(ask,))
            thread.start()
            self._threads.append(thread)

    def leave(self) -> None:
        for thread in self._threads:
            thread.join()

    def __len__(self) -> int:
        return len(self._threads)

    def _go_on(self, ask: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                ask()
            except grpc.RpcError as error:
                if not self._stop.is_set():
                    self._note(error)
                self._stop.wait(IMPATIENCE_SECONDS)
            else:
                with self._lock:
                    self._figures.crowd_answered += 1

    def _note(self, error: grpc.RpcError) -> None:
        status = rpc_status.from_call(error)
        reason, has_hint = "no reason", False
        for detail in status.details if status else ():
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                reason = info.reason
            has_hint = has_hint or detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
        with self._lock:
            if error.code() is REFUSED:
                self._figures.crowd_refused += 1
                self._figures.refusals[reason] += 1
                self._figures.without_retry_info += not has_hint
            else:
                self._figures.crowd_failed[f"{error.code().name} {reason}"] += 1


class Caller:
    """All methods that one token may call, over a connection of its own."""

    def __init__(self, address: str, token: str) -> None:
        self.channel = grpc.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self.metadata = [("authorization", f"Bearer {token}")]
        self._rating = RatingServiceStub(self.channel)
        self._cdrs = CdrServiceStub(self.channel)
        self._numbers = iter(range(10**9))

    def _ask(self, method: Callable[..., Any], request: Any) -> Any:
        return method(request, metadata=self.metadata, timeout=DEADLINE_SECONDS)

    def rate(self, call: types_pb2.Call) -> str:
        answer = self._ask(self._rating.RateCall, rating_pb.RateCallRequest(call=call))
        return str(answer.rated.cost)

    def batch(self, call: types_pb2.Call) -> None:
        self._ask(
            self._rating.BatchRateCalls, rating_pb.BatchRateCallsRequest(calls=[call] * 2_000)
        )

    def record(self, call: types_pb2.Call) -> None:
        own = types_pb2.Call()
        own.CopyFrom(call)
        own.call_id = f"{id(self)}-{next(self._numbers)}"
        self._ask(self._cdrs.CreateCdr, cdr_pb.CreateCdrRequest(call=own))

    def look_through(self, tenant_id: int) -> None:
        request = cdr_pb.ListCdrsRequest(tenant_id=tenant_id, search="no such number")
        self._ask(self._cdrs.ListCdrs, request)

    def stream(self, call: types_pb2.Call, stop: threading.Event) -> None:
        def requests() -> Iterator[rating_pb.StreamRateCallsRequest]:
            yield rating_pb.StreamRateCallsRequest(calls=[call])
            stop.wait(DEADLINE_SECONDS / 2)

        for answer in self._ask(self._rating.StreamRateCalls, requests()):
            assert answer.rated[0].cost == COST


def overload(database_url: str, *, seconds: float, first_token: str) -> Figures:
    """Against one worker with few slots, so that the clients of one machine can send ten times as
    many requests."""
    figures = Figures()
    server = ServerProcess(
        database_url,
        TOLLWIRE_ACCESS="tokens",
        TOLLWIRE_MAX_RPCS=str(MAX_RPCS),
        TOLLWIRE_MAX_STREAMS=str(MAX_STREAMS),
        TOLLWIRE_LOG_LEVEL="ERROR",
    )
    with server, ExitStack() as stack:
        admin = stack.enter_context(grpc.insecure_channel(server.address))
        tenant_id = _tenant(admin, first_token)
        tokens = [make_token(admin, first_token, name) for name in ("crowd", "within")]
        crowd_caller, caller = (Caller(server.address, token) for token in tokens)
        stack.callback(crowd_caller.channel.close)
        stack.callback(caller.channel.close)
        call = make_call(tenant_id, "4420", 7)
        stop = threading.Event()
        crowd = Crowd(figures, stop)
        try:
            _fill(crowd, crowd_caller, call, stop)
            figures.clients = len(crowd)
            _stay_within(figures, caller, call, seconds, server.process.pid)
        finally:
            stop.set()
            crowd.leave()
        figures.afterwards = _afterwards(crowd_caller, call, tenant_id)
    return figures


def _fill(crowd: Crowd, caller: Caller, call: types_pb2.Call, stop: threading.Event) -> None:
    crowd.join_in(TIMES * MAX_RPCS, lambda: _costs(caller.rate(call)))
    crowd.join_in(TIMES * MAX_RPCS, lambda: caller.record(call))
    crowd.join_in(TIMES * MAX_RPCS // 8, lambda: caller.batch(call))
    crowd.join_in(TIMES * MAX_RPCS // 8, lambda: caller.look_through(call.tenant_id))
    crowd.join_in(TIMES * MAX_STREAMS, lambda: caller.stream(call, stop))


def _costs(cost: str) -> None:
    assert cost == COST


def _stay_within(
    figures: Figures, caller: Caller, call: types_pb2.Call, seconds: float, pid: int
) -> None:
    server = psutil.Process(pid)
    assert pid != os.getpid()
    taken_ms = []
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        if not figures.early_bytes and passed > seconds / 3:
            figures.early_bytes = server.memory_info().rss
        figures.within_sent += 1
        asked_at = time.perf_counter()
        with suppress(grpc.RpcError):
            _costs(caller.rate(call))
            figures.within_answered += 1
        taken_ms.append((time.perf_counter() - asked_at) * 1000)
    figures.seconds = round(time.monotonic() - began, 1)
    figures.late_bytes = server.memory_info().rss
    figures.threads = server.num_threads()
    taken_ms.sort()
    figures.within_p50_ms = round(taken_ms[len(taken_ms) // 2], 1)
    figures.within_p99_ms = round(taken_ms[len(taken_ms) * 99 // 100], 1)


def _afterwards(caller: Caller, call: types_pb2.Call, tenant_id: int) -> str:
    """ "well" if every method is answered again, at once and also for the clients that were
    refused."""
    stop = threading.Event()
    stop.set()
    until = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            for _ in range(20):
                _costs(caller.rate(call))
                caller.batch(call)
                caller.record(call)
                caller.look_through(tenant_id)
                caller.stream(call, stop)
            return "well"
        except grpc.RpcError as error:
            # Work in progress when the clients ended may take a moment.
            if error.code() is not REFUSED or time.monotonic() > until:
                return f"{error.code().name}: {error.details()}"
            time.sleep(IMPATIENCE_SECONDS)


def _tenant(channel: grpc.Channel, token: str) -> int:
    metadata = [("authorization", f"Bearer {token}")]
    request = tenant_pb.CreateTenantRequest(tenant=types_pb2.Tenant(name="overload"))
    tenant = TenantServiceStub(channel).CreateTenant(
        request, metadata=metadata, wait_for_ready=True, timeout=DEADLINE_SECONDS
    )
    rate = types_pb2.Rate(
        tenant_id=tenant.id, prefix="44", cost_per_minute="0.0200", billing_increment=6
    )
    stub = RatingServiceStub(channel)
    stub.CreateRate(rating_pb.CreateRateRequest(rate=rate), metadata=metadata)
    return int(tenant.id)


def make_token(
    channel: grpc.Channel,
    token: str,
    name: str,
    *,
    role: int = access_pb.ROLE_OPERATOR,
    tenant_ids: Sequence[int] = (),
) -> str:
    """Without ``tenant_ids`` for every tenant."""
    made = AccessServiceStub(channel).CreateToken(
        access_pb.CreateTokenRequest(
            token=access_pb.Token(
                name=name, role=role, every_tenant=not tenant_ids, tenant_ids=tenant_ids
            )
        ),
        metadata=[("authorization", f"Bearer {token}")],
        timeout=DEADLINE_SECONDS,
    )
    return str(made.secret)
