"""A server's concurrent work is limited, whatever its clients do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.process.processes import wait_until
from tests.rpc.running import DEADLINE_SECONDS, connected
from tests.torture.badline import BadLine
from tollwire.service.domain.record_model import ChunkResult
from tollwire.service.rpc import server as rpc_server
from tollwire.service.rpc.capacity import CHUNKS_AT_ONCE, Capacity, chunks_at_once
from tollwire.service.rpc.pipeline import RpcPipeline
from tollwire.service.rpc.server import RpcServer, Subjects
from tollwire.service.settings.parsing import Listen
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import cdr_service_pb2_grpc

UPLOADS = 3 * CHUNKS_AT_ONCE


class Uploads:
    """Chunks that are in progress until ``go_on`` is set."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.in_work = 0
        self.most_in_work = 0
        self._lock = threading.Lock()

    def commit(
        self, upload_id: int, offset: int, chunk: Any, new: Any, *, was_visible: bool
    ) -> ChunkResult:
        with self._lock:
            self.in_work += 1
            self.most_in_work = max(self.most_in_work, self.in_work)
        assert self.go_on.wait(DEADLINE_SECONDS)
        with self._lock:
            self.in_work -= 1
        return ChunkResult(upload_id or 1, offset, 0, 0, 0, 0, 0, ())


def server_over(uploads: Any, max_streams: int = 2 * UPLOADS) -> RpcServer:
    nothing: Any = None
    names = [field.name for field in fields(Subjects)]
    subjects = Subjects(**dict.fromkeys(names, nothing) | {"uploads": uploads})
    return RpcServer(subjects, capacity=Capacity(max_streams=max_streams), pipeline=RpcPipeline())


def test_few_chunks_are_in_progress_at_one_time() -> None:
    """A client that sends nothing, or that does not read, blocks no other."""
    uploads = Uploads()
    server = server_over(uploads)
    address = str(server.bind(Listen("127.0.0.1", 0)))
    server.start()
    silence = threading.Event()

    def silent() -> Iterator[pb.UploadCdrsRequest]:
        yield pb.UploadCdrsRequest()
        silence.wait(DEADLINE_SECONDS)

    with connected(address) as channel, ThreadPoolExecutor(UPLOADS) as pool:
        stub = cdr_service_pb2_grpc.CdrServiceStub(channel)
        waiting = [stub.UploadCdrs(silent(), timeout=DEADLINE_SECONDS) for _ in range(UPLOADS)]

        def upload() -> int:
            requests = iter([pb.UploadCdrsRequest()] * 5)
            return len(list(stub.UploadCdrs(requests, timeout=DEADLINE_SECONDS)))

        answers = [pool.submit(upload) for _ in range(UPLOADS)]
        wait_until(lambda: uploads.in_work == CHUNKS_AT_ONCE)
        uploads.go_on.set()
        assert [answer.result() for answer in answers] == [5] * UPLOADS
        assert [len([next(stream)]) for stream in waiting] == [1] * UPLOADS
        silence.set()
        for stream in waiting:
            assert list(stream) == []
    assert uploads.most_in_work == CHUNKS_AT_ONCE
    assert server.stop(0)


def test_rpcs_of_one_connection_beyond_the_limit_stay_with_the_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = 5
    options = dict(rpc_server.OPTIONS)
    assert options["grpc.max_concurrent_streams"] == rpc_server.MAX_RPCS_A_CONNECTION
    options["grpc.max_concurrent_streams"] = few
    monkeypatch.setattr("tollwire.service.rpc.server.OPTIONS", tuple(options.items()))
    server = server_over(None)
    address = str(server.bind(Listen("127.0.0.1", 0)))
    server.start()
    request = health_pb2.HealthCheckRequest()

    def watch(channel: grpc.Channel) -> Any:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Watch(request, timeout=DEADLINE_SECONDS)

    with connected(address) as one, connected(address) as another, ThreadPoolExecutor(1) as pool:
        watches = [watch(one) for _ in range(few)]
        for open_watch in watches:
            next(open_watch)
        beyond = pool.submit(next, watch(one))
        # Another connection has a limit of its own.
        other = watch(another)
        next(other)
        assert not beyond.done()
        watches[0].cancel()
        assert beyond.result(DEADLINE_SECONDS).status == health_pb2.HealthCheckResponse.SERVING
        for open_watch in (*watches, other):
            open_watch.cancel()
    assert server.stop(0)


def test_a_client_that_vanishes_silently_frees_its_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No FIN, no RST, only silence: the server sends pings, and closes a connection without
    answers. Here in a twentieth of the usual time, which is a minute and 20 seconds."""
    times = ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")
    hurried = [
        (name, value // 20 if name in times else value) for name, value in rpc_server.OPTIONS
    ]
    monkeypatch.setattr("tollwire.service.rpc.server.OPTIONS", tuple(hurried))
    uploads = Uploads()
    uploads.go_on.set()
    server = server_over(uploads, max_streams=1)
    address = str(server.bind(Listen("127.0.0.1", 0)))
    server.start()
    silence = threading.Event()

    def silent() -> Iterator[pb.UploadCdrsRequest]:
        yield pb.UploadCdrsRequest()
        silence.wait()

    line = BadLine(address)
    with connected(line.address) as gone, connected(address) as other:
        next(cdr_service_pb2_grpc.CdrServiceStub(gone).UploadCdrs(silent()))
        line.spoil("gone")

        def has_a_slot() -> bool:
            requests = iter([pb.UploadCdrsRequest()])
            stub = cdr_service_pb2_grpc.CdrServiceStub(other)
            try:
                return len(list(stub.UploadCdrs(requests, timeout=DEADLINE_SECONDS))) == 1
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                return False

        assert not has_a_slot()
        wait_until(has_a_slot)
        silence.set()
    line.close()
    assert server.stop(0)


def test_a_machine_has_two_chunks_in_progress_and_each_worker_at_least_one() -> None:
    assert [chunks_at_once(workers) for workers in (1, 2, 3, 16)] == [2, 1, 1, 1]
