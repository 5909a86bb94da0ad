"""Health checks when all slots are taken, and the last message of a health watch."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.rpc.running import DEADLINE_SECONDS, connected, refusal
from tollwire.service.domain.record_model import ChunkResult
from tollwire.service.rpc.capacity import REFLECTION_STREAMS, Capacity
from tollwire.service.rpc.pipeline import RpcPipeline
from tollwire.service.rpc.server import RpcServer, Subjects
from tollwire.service.settings.parsing import Listen
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import cdr_service_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
MAX_STREAMS = 2


class Uploads:
    def commit(
        self, upload_id: int, offset: int, chunk: Any, new: Any, *, was_visible: bool
    ) -> ChunkResult:
        return ChunkResult(upload_id or 1, offset, 0, 0, 0, 0, 0, ())


@pytest.fixture
def server(transport: str) -> Iterator[RpcServer]:
    nothing: Any = None
    uploads: Any = Uploads()
    names = [field.name for field in fields(Subjects)]
    subjects = Subjects(**dict.fromkeys(names, nothing) | {"uploads": uploads})
    yield RpcServer(
        subjects,
        capacity=Capacity(max_streams=MAX_STREAMS),
        pipeline=RpcPipeline(),
        is_native=transport == "native",
    )


@pytest.fixture
def channel(server: RpcServer) -> Iterator[grpc.Channel]:
    with connected(str(server.bind(Listen("127.0.0.1", 0)))) as channel:
        server.start()
        yield channel
        assert server.stop(0)


class Open:
    """A stream that stays open."""

    def __init__(self, method: Any) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.responses = method(iter(self._requests.get, None), timeout=DEADLINE_SECONDS)

    def ask(self, request: Any) -> Any:
        self._requests.put(request)
        return next(self.responses)


def test_operators_are_served_when_all_slots_are_taken(channel: grpc.Channel) -> None:
    upload = cdr_service_pb2_grpc.CdrServiceStub(channel).UploadCdrs
    uploads = [Open(upload) for _ in range(MAX_STREAMS)]
    assert [each.ask(pb.UploadCdrsRequest()).upload_id for each in uploads] == [1] * MAX_STREAMS
    found = refusal(lambda: Open(upload).ask(pb.UploadCdrsRequest()))
    assert found.reason == "TOO_MANY_STREAMS"

    reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    reflections = [Open(reflect) for _ in range(REFLECTION_STREAMS)]
    for each in reflections:
        assert len(each.ask(question).list_services_response.service) == 6
    assert refusal(lambda: Open(reflect).ask(question)).reason == "TOO_MANY_STREAMS"

    # Health watchers take no slot, whatever their number.
    health = health_pb2_grpc.HealthStub(channel)
    watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(50)]
    assert [next(watch).status for watch in watches] == [SERVING] * 50
    assert health.Check(health_pb2.HealthCheckRequest()).status == SERVING


def test_watchers_that_come_and_go_do_not_block_each_other(channel: grpc.Channel) -> None:
    """With grpcio's own servicer the server would block here permanently."""
    health = health_pb2_grpc.HealthStub(channel)

    def come_and_go() -> None:
        for _ in range(200):
            watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_SECONDS)
            assert next(watch).status == SERVING
            watch.cancel()

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(come_and_go) for _ in range(8)]:
            done.result()
    request = health_pb2.HealthCheckRequest()
    assert health.Check(request, timeout=DEADLINE_SECONDS).status == SERVING


def test_nothing_serves_before_the_start_and_after_the_stop(
    server: RpcServer, channel: grpc.Channel
) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    watches = [
        health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_SECONDS)
        for service in ("", "tollwire.v1.CdrService", "tollwire.v1.Unknown")
    ]
    unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    assert [next(watch).status for watch in watches] == [SERVING, SERVING, unknown]
    cancelled = health.Watch(health_pb2.HealthCheckRequest())
    assert next(cancelled).status == SERVING
    cancelled.cancel()

    stopping = threading.Thread(target=server.stop, args=(DEADLINE_SECONDS,))
    stopping.start()
    for watch in watches[:2]:
        assert next(watch).status == NOT_SERVING
    for watch in watches:
        found = refusal(lambda watch=watch: next(watch))
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    # Watchers do not delay the stop.
    stopping.join(DEADLINE_SECONDS / 2)
    assert not stopping.is_alive()


def test_every_watcher_gets_the_status_of_the_stop(
    server: RpcServer, channel: grpc.Channel
) -> None:
    """Also over the native transport, which must not close before it has passed them on."""
    health = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest()
    watches = [health.Watch(request, timeout=DEADLINE_SECONDS) for _ in range(200)]
    assert [next(watch).status for watch in watches] == [SERVING] * 200
    assert server.stop(DEADLINE_SECONDS)
    for watch in watches:
        assert next(watch).status == NOT_SERVING
        found = refusal(lambda watch=watch: next(watch))
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


def test_services_of_the_database_serve_while_it_answers(
    server: RpcServer, channel: grpc.Channel
) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    names = ("", "tollwire.v1.RatingService", "tollwire.v1.CdrService", "tollwire.v1.TenantService")
    watches = [
        health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=DEADLINE_SECONDS)
        for name in names
    ]

    def checked() -> list[int]:
        return [health.Check(health_pb2.HealthCheckRequest(service=name)).status for name in names]

    assert [next(watch).status for watch in watches] == [SERVING] * 4
    for _ in range(3):
        server.database_answers(False)
        server.database_answers(False)
        assert checked() == [SERVING, SERVING, NOT_SERVING, NOT_SERVING]
        assert [next(watch).status for watch in watches[2:]] == [NOT_SERVING] * 2
        server.database_answers(True)
        assert checked() == [SERVING] * 4
        assert [next(watch).status for watch in watches[2:]] == [SERVING] * 2
    for watch in watches:
        watch.cancel()
