"""VerifyCdrs: the server's records verify, whatever changes followed.

The tests of the subject (tests/record) verify changed rows; random rates, rules and calls are
verified at the end of each random history (test_stateful.py).
"""

from __future__ import annotations

import threading

import grpc

from tests.integration.client import NOON_NS, Client, chunk, make_call, timestamp
from tests.integration.uploading import calls_of
from tollwire.v1 import cdr_service_pb2 as cdr_pb


def test_filters(client: Client, rated_tenant: int) -> None:
    (answer,) = client.upload(chunk(calls_of(rated_tenant, 0, 10)))
    client.create_cdr(make_call(rated_tenant, "4490", 7, call_id="blocked", started_at=NOON_NS + 5))
    client.create_cdr(make_call(rated_tenant, "nobody", 7, call_id="wrong"))
    assert client.verify(tenant_id=rated_tenant).checked == 12
    assert client.verify(upload_id=answer.upload_id).checked == 10
    period = {"started_after": timestamp(NOON_NS + 5), "started_before": timestamp(NOON_NS + 7)}
    assert client.verify(tenant_id=rated_tenant, **period).checked == 3
    both = client.verify(tenant_id=rated_tenant, upload_id=answer.upload_id, **period)
    assert (both.checked, both.different, len(both.differences)) == (2, 0, 0)


def test_reversed_cdrs_verify(client: Client, rated_tenant: int) -> None:
    cdr = client.create_cdr(make_call(rated_tenant, "4420", 7))
    why = {"reason": "wrong tenant", "requested_by": "audit"}
    client.cdrs.ReverseCdr(cdr_pb.ReverseCdrRequest(id=cdr.id, **why))
    verified = client.verify(tenant_id=rated_tenant)
    assert (verified.checked, verified.different) == (1, 0)


def test_while_calls_are_uploaded(client: Client, rated_tenant: int) -> None:
    """Records that were acknowledged before are checked, and none is a false alarm."""
    settled = [0]
    stop = threading.Event()

    def upload() -> None:
        upload_id = 0
        with Client(client.address) as sender:
            while not stop.is_set() and settled[0] < 5_000:
                calls = calls_of(rated_tenant, settled[0], 100)
                (answer,) = sender.upload(chunk(calls, settled[0], upload_id))
                upload_id, settled[0] = answer.upload_id, answer.committed_offset

    sending = threading.Thread(target=upload)
    sending.start()
    try:
        while settled[0] < 1_000 and sending.is_alive():
            before = settled[0]
            verified = client.verify(tenant_id=rated_tenant)
            assert verified.checked >= before
            assert verified.different == 0
    finally:
        stop.set()
        sending.join(60)
    assert client.verify(tenant_id=rated_tenant).checked == settled[0] >= 1_000


def test_a_client_that_leaves_ends_it(client: Client, rated_tenant: int) -> None:
    client.create_cdr(make_call(rated_tenant, "4420", 7))
    answers = client.cdrs.VerifyCdrs(cdr_pb.VerifyCdrsRequest())
    answers.cancel()
    assert answers.code() is grpc.StatusCode.CANCELLED
    assert client.verify(tenant_id=rated_tenant).checked == 1


def test_all_records_so_far_verify(client: Client) -> None:
    """Of all the tests that share this server."""
    verified = client.verify()
    assert list(verified.differences) == []
    assert verified.checked > 0
