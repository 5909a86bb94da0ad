"""Clients that hold the streams of a server, and the service for others meanwhile.

Two customers open as many streams of calls to rate as they can get, and send nothing in them. The
token of a third opens exports and reads nothing of them. Then other customers rate in a stream, and
the customer with the unread exports uploads. The streams that are held must end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import grpc

from tests.endurance.overload import Caller, make_token
from tests.integration.client import chunk, make_call
from tests.integration.serving import ServerProcess
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import types_pb2
from tollwire.v1.access_service_pb2 import ROLE_INGEST, ROLE_RATER, ROLE_READER
from tollwire.v1.cdr_service_pb2_grpc import CdrServiceStub
from tollwire.v1.rating_service_pb2_grpc import RatingServiceStub
from tollwire.v1.tenant_service_pb2 import CreateTenantRequest
from tollwire.v1.tenant_service_pb2_grpc import TenantServiceStub

TENANTS = 4
# More than one export may send before its client reads: several MiB.
RECORDS = 40_000
CHUNK = 10_000
SETTLE_SECONDS = 1.0
PATIENCE_SECONDS = 60.0


@dataclass
class Figures:
    """``held_*``: streams that a customer with two tokens got. ``*_ended``: with which status those
    streams ended; "" if they did not."""

    max_streams: int
    wait_seconds: float
    held_by_first: int = 0
    held_by_second: int = 0
    third_rates: str = ""
    unread_exports: int = 0
    owner_of_exports_uploads: str = ""
    another_exports: str = ""
    idle_ended: str = ""
    unread_ended: str = ""

    @property
    def passed(self) -> bool:
        return (
            self.held_by_first + self.held_by_second < self.max_streams
            and self.third_rates == self.owner_of_exports_uploads == self.another_exports == "OK"
            and self.idle_ended == "UNAVAILABLE"
            and self.unread_ended == "RESOURCE_EXHAUSTED"
        )


class _Held:
    """Streams of calls to rate that are open and silent."""

    def __init__(self) -> None:
        self._end = threading.Event()
        self.streams: list[Any] = []

    def fill(self, caller: Caller, call: types_pb2.Call, most: int) -> int:
        """Open as many as the server allows."""
        for count in range(most):
            stub = RatingServiceStub(caller.channel)
            stream = stub.StreamRateCalls(self._requests(call), metadata=caller.metadata)
            try:
                next(stream)
            except grpc.RpcError:
                return count
            self.streams.append(stream)
        return most

    def _requests(self, call: types_pb2.Call) -> Iterator[rating_pb.StreamRateCallsRequest]:
        yield rating_pb.StreamRateCallsRequest(calls=[call])
        self._end.wait()

    def close(self) -> None:
        self._end.set()
        for stream in self.streams:
            stream.cancel()


def holding(
    database_url: str,
    *,
    first_token: str,
    max_streams: int = 32,
    wait_seconds: float = 5.0,
    **env: str,
) -> Figures:
    figures = Figures(max_streams, wait_seconds)
    settings = {
        "TOLLWIRE_ACCESS": "tokens",
        "TOLLWIRE_MAX_STREAMS": str(max_streams),
        "TOLLWIRE_STREAM_WAIT_SECONDS": str(wait_seconds),
        "TOLLWIRE_LOG_LEVEL": "ERROR",
    }
    with ServerProcess(database_url, **settings | env) as server, ExitStack() as stack:
        admin = stack.enter_context(grpc.insecure_channel(server.address))
        tenants = [_tenant(admin, first_token) for _ in range(TENANTS)]

        def caller(tenant_id: int, role: int) -> Caller:
            text = make_token(admin, first_token, "any", role=role, tenant_ids=[tenant_id])
            one = Caller(server.address, text)
            stack.callback(one.channel.close)
            return one

        first, second, third, owner = (make_call(each, "4420", 7) for each in tenants)
        _record(caller(owner.tenant_id, ROLE_INGEST), owner)
        held = _Held()
        stack.callback(held.close)
        for _ in range(2):  # two tokens
            figures.held_by_first += held.fill(caller(tenants[0], ROLE_RATER), first, max_streams)
        for _ in range(2):
            figures.held_by_second += held.fill(caller(tenants[1], ROLE_RATER), second, max_streams)
        rater = caller(third.tenant_id, ROLE_RATER)
        figures.third_rates = _outcome(lambda: rater.stream(third, _SET))
        reader = caller(owner.tenant_id, ROLE_READER)
        exports = [_export(reader, owner.tenant_id) for _ in range(2 * max_streams)]
        unread = _settled(exports)
        figures.unread_exports = len(unread)
        uploader = caller(owner.tenant_id, ROLE_INGEST)
        figures.owner_of_exports_uploads = _outcome(lambda: _upload(uploader, owner, "more"))
        another = caller(third.tenant_id, ROLE_READER)
        figures.another_exports = _outcome(lambda: list(_export(another, third.tenant_id)))
        figures.idle_ended = _ending(held.streams, wait_seconds)
        _await_slots(reader, owner.tenant_id, len(unread), wait_seconds)
        # A client gets the status after the responses before it, which it has not read.
        figures.unread_ended = ", ".join(sorted({_read_on(export) for export in unread}))
        for export in exports:
            export.cancel()
    return figures


_SET = threading.Event()
_SET.set()


def _outcome(ask: Callable[[], object]) -> str:
    try:
        ask()
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        return f"{error.code().name}: {error.details()}"
    return "OK"


def _ending(streams: list[Any], wait_seconds: float) -> str:
    """The code with which all the streams have ended; "" if one has not ended in a multiple of the
    wait."""
    until = time.monotonic() + min(PATIENCE_SECONDS, 10 + 4 * wait_seconds)
    while any(stream.is_active() for stream in streams):
        if time.monotonic() > until:
            return ""
        time.sleep(0.05)
    return ", ".join(sorted({stream.code().name for stream in streams}))


def _settled(exports: list[Any]) -> list[Any]:
    """Those that are not refused, once no more are."""
    before = len(exports) + 1
    while len(exports) < before:
        before = len(exports)
        time.sleep(SETTLE_SECONDS)
        exports = [export for export in exports if export.is_active()]
    return exports


def _await_slots(caller: Caller, tenant_id: int, count: int, wait_seconds: float) -> None:
    """Wait until the caller can open as many exports again; a multiple of the wait at most."""
    until = time.monotonic() + min(PATIENCE_SECONDS, 10 + 4 * wait_seconds)
    opened = 0
    while opened < count and time.monotonic() < until:
        exports = [_export(caller, tenant_id) for _ in range(count)]
        opened = len(_settled(exports))
        for export in exports:
            export.cancel()


def _read_on(export: Any) -> str:
    return _outcome(lambda: list(export)).partition(":")[0]


def _export(caller: Caller, tenant_id: int) -> Any:
    request = cdr_pb.ExportCdrsRequest(tenant_id=tenant_id)
    return CdrServiceStub(caller.channel).ExportCdrs(
        request, metadata=caller.metadata, timeout=2 * PATIENCE_SECONDS
    )


def _record(caller: Caller, call: types_pb2.Call) -> None:
    for at in range(0, RECORDS, CHUNK):
        _upload(caller, call, f"record {at}", CHUNK)


def _upload(caller: Caller, call: types_pb2.Call, name: str, count: int = 1) -> None:
    calls = [
        make_call(call.tenant_id, call.destination_number, 7, call_id=f"{name} {number}")
        for number in range(count)
    ]
    stub = CdrServiceStub(caller.channel)
    answers = stub.UploadCdrs(
        iter([chunk(calls)]), metadata=caller.metadata, timeout=PATIENCE_SECONDS
    )
    assert [answer.created for answer in answers] == [count]


def _tenant(channel: grpc.Channel, token: str) -> int:
    made = TenantServiceStub(channel).CreateTenant(
        CreateTenantRequest(tenant=types_pb2.Tenant(name="holding")),
        metadata=[("authorization", f"Bearer {token}")],
        wait_for_ready=True,
        timeout=PATIENCE_SECONDS,
    )
    rate = types_pb2.Rate(
        tenant_id=made.id, prefix="44", cost_per_minute="0.0200", billing_increment=6
    )
    RatingServiceStub(channel).CreateRate(
        rating_pb.CreateRateRequest(rate=rate), metadata=[("authorization", f"Bearer {token}")]
    )
    return int(made.id)
