"""A server's memory for uploads while their database accepts nothing: one request a stream,
whatever amount the clients send."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.integration.client import Client, chunk, make_call
from tests.integration.serving import ServerProcess
from tests.process.processes import wait_until
from tollwire.v1 import cdr_service_pb2 as cdr_pb

STREAMS = 8
# A stream would have sent five, if only the transport's own limit held.
REQUESTS = 10
CALLS = 10_000
# For the effects of clients with more streams.
SETTLING_SECONDS = 1.0
MIB = 1024 * 1024


def test_streams_that_wait_hold_one_request_each(tmp_path: Path) -> None:
    path = tmp_path / "tollwire.db"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            ServerProcess(f"sqlite:///{path}", TOLLWIRE_DATABASE_WAIT_SECONDS="30")
        )
        clients = [stack.enter_context(Client(server.address)) for _ in range(STREAMS)]
        tenant_id = clients[0].new_tenant().id
        request = _long_request(tenant_id)
        lock = sqlite3.connect(path, isolation_level=None)
        stack.enter_context(contextlib.closing(lock))
        lock.execute("BEGIN IMMEDIATE")
        before = _memory(server)
        senders = [_Sender(client, request) for client in clients]
        for sender in senders:
            sender.thread.start()
        wait_until(lambda: all(sender.taken >= 2 for sender in senders))
        time.sleep(SETTLING_SECONDS)
        # One in the server, one that the transport keeps in the client.
        assert [sender.taken for sender in senders] == [2] * STREAMS
        grown = _memory(server) - before
        # In pieces, as they arrived, and as a whole; and what the allocator keeps.
        assert grown < STREAMS * 3 * len(request) + 32 * MIB
        lock.execute("ROLLBACK")
        for sender in senders:
            sender.thread.join()
            assert sender.answered == REQUESTS
        totals = [clients[0].get_upload(sender.upload_id) for sender in senders]
        assert sum(one.created for one in totals) == CALLS
        assert sum(one.duplicates for one in totals) == (STREAMS - 1) * CALLS


class _Sender:
    """A stream that repeats one request as fast as the server accepts it."""

    def __init__(self, client: Client, request: bytes) -> None:
        self.taken = 0
        self.answered = 0
        self.upload_id = 0
        self.thread = threading.Thread(target=self._run)
        self._request = request
        self._upload = client.channel.stream_stream(
            "/tollwire.v1.CdrService/UploadCdrs",
            response_deserializer=cdr_pb.UploadCdrsResponse.FromString,
        )

    def _run(self) -> None:
        for answer in self._upload(self._requests()):
            self.answered += 1
            self.upload_id = answer.upload_id

    def _requests(self) -> Iterator[bytes]:
        for _ in range(REQUESTS):
            self.taken += 1
            yield self._request


def _long_request(tenant_id: int) -> bytes:
    """A chunk with texts of nearly the longest allowed length: 5 MB."""
    calls = (
        make_call(tenant_id, "4420", 7, call_id=f"{'x' * 240}-{index}", caller_number="9" * 256)
        for index in range(CALLS)
    )
    request: bytes = chunk(calls).SerializeToString()
    return request


def _memory(server: ServerProcess) -> int:
    memory: int = psutil.Process(server.process.pid).memory_info().rss
    return memory
