"""Corrections as clients see them: through several workers at once, and across a crash."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import grpc

from tests.integration.client import NOON_NS, Client, chunk, make_call, refused
from tests.integration.conftest import NewDatabase
from tests.integration.serving import serving
from tests.integration.uploading import calls_of
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types

WHY = {"reason": "poured in twice", "requested_by": "anna@noc-1"}
# Of the upload whose reversal is killed: chunks enough for several transactions.
CHUNK, CHUNKS = 1_000, 30


def reverse(client: Client, cdr_id: int, **fields: str) -> types.Reversal:
    return client.cdrs.ReverseCdr(cdr_pb.ReverseCdrRequest(id=cdr_id, **(WHY | fields)))


def reverse_upload(client: Client, upload_id: int) -> tuple[int, int, int]:
    """cdrs, reversed, reversed_before"""
    request = cdr_pb.ReverseUploadRequest(upload_id=upload_id, **WHY)
    answer = client.cdrs.ReverseUpload(request)
    return answer.cdrs, answer.reversed, answer.reversed_before


def reversals_of(client: Client, upload_id: int, size: int = 1000) -> list[types.Reversal]:
    """The first page."""
    request = cdr_pb.ListReversalsRequest(upload_id=upload_id, page_size=size)
    return list(client.cdrs.ListReversals(request).reversals)


def usage_of(client: Client, tenant_id: int) -> cdr_pb.UsageRow:
    request = cdr_pb.SummarizeUsageRequest(tenant_id=tenant_id)
    [row] = client.cdrs.SummarizeUsage(request).rows
    return row


def the_ledger_fits(client: Client) -> None:
    *_, last = client.cdrs.VerifyLedger(cdr_pb.VerifyLedgerRequest())
    assert last.done
    assert not last.differences, last


def test_the_fields_of_a_reversal(client: Client, payer: int) -> None:
    cdr = client.create_cdr(make_call(payer, "4420", 7, call_id="a"))
    other = client.create_cdr(make_call(payer, "4420", 7, call_id="b"))
    made = reverse(client, cdr.id)
    assert made.cdr == cdr
    assert Decimal(made.cost) == -Decimal(cdr.cost) < 0
    assert (made.reason, made.requested_by) == (WHY["reason"], WHY["requested_by"])
    assert reverse(client, cdr.id, reason="another") == made
    within = types.Reversal()
    within.CopyFrom(made)
    within.ClearField("cdr")
    now = client.get_cdr(cdr.id)
    assert now.reversal == within
    now.ClearField("reversal")
    assert now == cdr
    assert not client.get_cdr(other.id).HasField("reversal")
    row = usage_of(client, payer)
    assert (row.calls, row.corrected.calls) == (2, 1)
    assert (Decimal(row.cost), row.corrected.cost) == (2 * Decimal(cdr.cost), cdr.cost)


def test_through_several_workers_at_once(new_database: NewDatabase) -> None:
    """All workers reverse the same CDRs, one by one and as an upload: each is reversed once, and
    all responses are equal."""
    with serving(new_database(), workers=2) as server:
        clients = [Client(server.address) for _ in range(6)]
        tenant = clients[0].new_tenant()
        clients[0].new_rate(tenant.id, "44", "0.6", 1)
        [upload] = clients[0].upload(chunk(calls_of(tenant.id, 0, 25)))
        cdrs = clients[0].list_cdrs(tenant_id=tenant.id)
        ready = threading.Barrier(len(clients))

        def one_by_one(client: Client) -> list[bytes]:
            ready.wait(20)
            return [reverse(client, cdr.id).SerializeToString() for cdr in cdrs]

        def whole(client: Client) -> tuple[int, int, int]:
            ready.wait(20)
            return reverse_upload(client, upload.upload_id)

        with ThreadPoolExecutor(len(clients)) as pool:
            singly = [pool.submit(one_by_one, client) for client in clients[:4]]
            wholly = [pool.submit(whole, client) for client in clients[4:]]
        answers = singly[0].result()
        assert [future.result() for future in singly] == [answers] * 4
        assert {future.result()[0] for future in wholly} == {25}
        listed = reversals_of(clients[0], upload.upload_id)
        assert sorted(one.SerializeToString() for one in listed) == sorted(answers)
        assert usage_of(clients[0], tenant.id).corrected.calls == 0
        the_ledger_fits(clients[0])
        for client in clients:
            client.close()


def test_a_server_that_is_killed_during_a_reversal(new_database: NewDatabase) -> None:
    """Sent again, the request is exact: every CDR of the upload, once, and no other."""
    url = new_database()
    with serving(url) as server, Client(server.address) as client, ThreadPoolExecutor(1) as pool:
        tenant = client.new_tenant()
        client.new_rate(tenant.id, "44", "0.6", 1)
        stays = client.create_cdr(make_call(tenant.id, "4420", 7, call_id="stays"))
        upload_id = client.upload(chunk([]))[0].upload_id
        chunks = [
            chunk(calls_of(tenant.id, at * CHUNK, CHUNK), at * CHUNK, upload_id)
            for at in range(CHUNKS)
        ]
        assert client.upload(*chunks)[-1].committed_offset == CHUNKS * CHUNK
        asked = pool.submit(reverse_upload, client, upload_id)
        deadline = time.monotonic() + 20
        while not reversals_of(client, upload_id, size=1):
            assert time.monotonic() < deadline, "nothing is reversed"
        server.kill()
        assert asked.exception() is None or isinstance(asked.exception(), grpc.RpcError)
    with serving(url) as server, Client(server.address) as client:
        before = usage_of(client, tenant.id).corrected.calls
        done = CHUNKS * CHUNK + 1 - before
        assert done > 0
        assert reverse_upload(client, upload_id) == (CHUNKS * CHUNK, CHUNKS * CHUNK - done, done)
        row = usage_of(client, tenant.id)
        assert (row.calls, row.corrected.calls) == (CHUNKS * CHUNK + 1, 1)
        assert row.corrected.cost == stays.cost
        assert client.get_cdr(stays.id) == stays
        assert client.get_upload(upload_id).HasField("reversed_at")
        more = chunk([make_call(tenant.id, started_at=NOON_NS)], CHUNKS * CHUNK, upload_id)
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "UPLOAD_REVERSED"):
            client.upload(more)
        the_ledger_fits(client)
