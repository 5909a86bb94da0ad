"""Servers and uploads of the fault tests: the errors that a client may get, and the records that
must exist at the end.

Uses the stubs alone, like a switch: it sends calls again for which it has no response.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.integration.client import Client, Refusal, chunk, make_call, refusal_of
from tests.integration.serving import ServerProcess
from tollwire.v1 import cdr_service_pb2 as cdr_pb

T = TypeVar("T")

# The time in which a server must recover, on a busy machine.
PATIENCE_SECONDS = 45.0
MAY_PASS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
CHUNK_CALLS = 50


@contextmanager
def served(database_url: str, wait_seconds: float = 1.0) -> Iterator[Client]:
    """A client of a server with this wait for its database. No error may be a defect."""
    server = ServerProcess(database_url, TOLLWIRE_DATABASE_WAIT_SECONDS=str(wait_seconds))
    with server, Client(server.address) as client:
        yield client
        assert ": defect" not in server.log(), server.log()


def refused_unavailable(work: Callable[[], Any]) -> Refusal:
    """Expects UNAVAILABLE, with the time of a retry."""
    try:
        work()
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        assert (refusal.code, refusal.reason) == (MAY_PASS[0], "DATABASE_UNAVAILABLE"), refusal
        hints = [
            detail
            for detail in rpc_status.from_call(error).details
            if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
        ]
        assert hints, "no time of a retry"
        return refusal
    raise AssertionError("not refused")


def recovered(work: Callable[[], T]) -> T:
    """Retry ``work`` until it is not refused; return its result."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return work()
        except grpc.RpcError as error:
            refusal = refusal_of(error)
            assert refusal.code in MAY_PASS, refusal
            assert time.monotonic() < deadline, f"the server does not recover: {refusal}"
            time.sleep(0.05)


class Sender:
    """One upload of known calls, which sends again what was not acknowledged."""

    def __init__(self, client: Client, tenant_id: int, name: str, chunks: int) -> None:
        self._client = client
        self._tenant_id = tenant_id
        self._name = name
        self.total = chunks * CHUNK_CALLS
        self.acknowledged = 0
        self.breaks = 0
        self.upload_id = recovered(lambda: client.upload(chunk([]))[0].upload_id)

    def run(self) -> None:
        while self.acknowledged < self.total:
            try:
                for answer in self._client.cdrs.UploadCdrs(self._rest(), timeout=PATIENCE_SECONDS):
                    assert answer.created == CHUNK_CALLS, answer
                    self.acknowledged = answer.committed_offset
            except grpc.RpcError as error:
                refusal = refusal_of(error)
                assert refusal.code in MAY_PASS, refusal
                self.breaks += 1
                assert self.breaks < 500, refusal
                time.sleep(0.05)

    def _rest(self) -> Iterator[cdr_pb.UploadCdrsRequest]:
        for at in range(self.acknowledged, self.total, CHUNK_CALLS):
            yield chunk(self.calls(at, at + CHUNK_CALLS), at, self.upload_id)

    def calls(self, begin: int, end: int) -> Sequence[Any]:
        return [
            make_call(self._tenant_id, "4420", 7, call_id=f"{self._name}-{index}")
            for index in range(begin, end)
        ]

    def check(self) -> None:
        """Each of its calls is recorded once, and its totals say so."""
        state = recovered(lambda: self._client.get_upload(self.upload_id))
        assert (state.committed_offset, state.created) == (self.total, self.total)
        assert (state.duplicates, state.conflicts, state.rejected) == (0, 0, 0)
        cdrs = self._client.list_cdrs(tenant_id=self._tenant_id, page_size=1000)
        mine = [one.call_id for one in cdrs if one.call_id.startswith(f"{self._name}-")]
        assert sorted(mine) == sorted(f"{self._name}-{index}" for index in range(self.total))
