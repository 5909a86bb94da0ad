"""WatchCdrs over the wire: two workers record, and watchers whose streams break receive each CDR
exactly once."""

from __future__ import annotations

import random
import threading
import time

import grpc
import pytest

from tests.integration.client import Client, make_call, refusal_of, refused
from tests.integration.conftest import NewDatabase
from tests.integration.serving import serving
from tollwire.v1 import cdr_service_pb2 as pb

WRITERS = 4
TURNS = 8
CHUNK = 60
SINGLES = 5


def write(address: str, tenant_id: int, number: int) -> None:
    """Chunks and single calls, on a connection of its own: so each worker gets some of them."""
    with Client(address) as client:
        for turn in range(TURNS):
            names = [f"{number}-{turn}-{index}" for index in range(CHUNK)]
            calls = [make_call(tenant_id, call_id=name) for name in names]
            (answer,) = client.cdrs.UploadCdrs(iter([pb.UploadCdrsRequest(calls=calls)]))
            assert answer.created == CHUNK
            for index in range(SINGLES):
                client.create_cdr(make_call(tenant_id, call_id=f"{number}-{turn}-single {index}"))


class Watcher:
    """Follows the feed, cancels after a few responses, and continues from the last cursor."""

    def __init__(self, address: str, tenant_id: int, seed: int) -> None:
        self.ids: list[int] = []
        self.breaks = 0
        self._chance = random.Random(seed)
        self._request = pb.WatchCdrsRequest(tenant_id=tenant_id, follow=True)
        self._address = address
        self.is_last = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self.is_last.is_set():
            with Client(self._address) as client:
                stream = client.cdrs.WatchCdrs(self._request, timeout=2)
                try:
                    for _ in range(self._chance.randrange(4)):
                        self._take(next(stream))
                    stream.cancel()
                except grpc.RpcError:
                    # All CDRs were recorded before.
                    assert stream.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            self.breaks += 1
        self._request.follow = False
        with Client(self._address) as client:
            for response in client.cdrs.WatchCdrs(self._request):
                self._take(response)

    def _take(self, response: pb.WatchCdrsResponse) -> None:
        self.ids += [cdr.id for cdr in response.cdrs]
        self._request.cursor = response.cursor


def test_watchers_that_break_off_get_each_cdr_once(new_database: NewDatabase) -> None:
    with serving(new_database(), workers=2) as server, Client(server.address) as client:
        tenants = [client.new_tenant().id for _ in range(2)]
        watchers = [
            Watcher(server.address, tenant_id, seed)
            for seed, tenant_id in enumerate([0, 0, tenants[0]])
        ]
        writers = [
            threading.Thread(target=write, args=(server.address, tenants[number % 2], number))
            for number in range(WRITERS)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        for watcher in watchers:
            watcher.is_last.set()
        for watcher in watchers:
            watcher.thread.join()
        every = {
            one: sorted(
                cdr.id
                for part in client.cdrs.ExportCdrs(pb.ExportCdrsRequest(tenant_id=one))
                for cdr in part.cdrs
            )
            for one in tenants
        }
        expected = WRITERS // 2 * TURNS * (CHUNK + SINGLES)
        assert [len(ids) for ids in every.values()] == [expected] * 2
        for watcher in watchers[:2]:
            assert sorted(watcher.ids) == sorted([*every[tenants[0]], *every[tenants[1]]])
        assert sorted(watchers[2].ids) == every[tenants[0]]
        assert all(watcher.breaks > 1 for watcher in watchers)


@pytest.mark.parametrize("workers", [1, 2])
def test_after_a_server_stops_the_stream_continues_on_another(
    new_database: NewDatabase, workers: int
) -> None:
    url = new_database()
    with serving(url, workers=workers) as server, Client(server.address) as client:
        tenant = client.new_tenant()
        first = client.create_cdr(make_call(tenant.id, call_id="a"))
        stream = client.cdrs.WatchCdrs(pb.WatchCdrsRequest(follow=True))
        response = next(stream)
        assert [cdr.id for cdr in response.cdrs] == [first.id]
        assert response.cdrs[0] == first
        began = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - began < 10
        with pytest.raises(grpc.RpcError) as ended:
            next(stream)
        found = refusal_of(ended.value)
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    with serving(url) as server, Client(server.address) as client:
        second = client.create_cdr(make_call(tenant.id, call_id="b"))
        request = pb.WatchCdrsRequest(cursor=response.cursor)
        (rest,) = client.cdrs.WatchCdrs(request)
        assert [cdr.id for cdr in rest.cdrs] == [second.id]
        assert rest.caught_up
        # The stream of a client with a deadline ends at the deadline.
        with pytest.raises(grpc.RpcError) as late:
            list(client.cdrs.WatchCdrs(pb.WatchCdrsRequest(follow=True), timeout=0.5))
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "cursor"):
            list(client.cdrs.WatchCdrs(pb.WatchCdrsRequest(cursor="no cursor")))
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "cursor"):
            list(
                client.cdrs.WatchCdrs(
                    pb.WatchCdrsRequest(cursor=response.cursor, tenant_id=tenant.id)
                )
            )
        with refused(grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND"):
            list(client.cdrs.WatchCdrs(pb.WatchCdrsRequest(tenant_id=10**9)))
