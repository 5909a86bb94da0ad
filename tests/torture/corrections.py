"""ReverseUpload is killed in the middle, run again, and sent by two clients at once: every CDR of
the upload is reversed once, no other is, and none is changed."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

import grpc

from tests.integration.client import Client, chunk
from tests.torture.callfiles import Prices, new_tenant, plain_file
from tests.torture.counting import count, exported, verify
from tests.torture.kills import settle
from tests.torture.service import Service, patient, service
from tests.torture.stage import Stage
from tests.torture.tally import Tally
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types

# In chunks of 1,000 it is reversed in several transactions.
UPLOAD_CALLS, CHUNK_CALLS = 30_000, 1_000
PAGE_SIZE = 1_000
LONGEST_PAUSE_SECONDS = 0.1
REVERSE_SECONDS = 300


def run(stage: Stage) -> Tally:
    tally = stage.tally("ReverseUpload killed")
    draw = stage.draw("corrections")
    seed = f"{stage.seed}/{stage.kind}"
    with service(stage.new_database(), stage.workers) as server:
        with patient(server.address) as client:
            tenant = new_tenant(client)
        sent: dict[str, types.Call] = {}
        taken_back = 0
        # The last upload stays.
        for number in range(stage.size.reversal_kills + 1):
            file = plain_file(seed, f"reversed {number}", tenant.id, UPLOAD_CALLS)
            sent |= {call.caller_number: call for call in file.calls}
            with patient(server.address) as client:
                upload_id = _uploaded(client, file.calls)
            if number < stage.size.reversal_kills:
                before_the_kill = _killed(server, tenant.id, upload_id, draw)
                _finish(tally, server, upload_id, before_the_kill)
                taken_back += before_the_kill
            stage.say(f"{number + 1} uploads, {taken_back:,} reversed before a kill")
        tally.sent = tally.acknowledged = len(sent)
        with patient(server.address) as client:
            count(tally, client, tenant.id, sent, sent, Prices(tenant))
            _count_reversals(tally, client, tenant.id, f"reversed {number}-")
            verify(tally, client)
        settle(tally, server)
    tally.more["reversed"] = stage.size.reversal_kills * UPLOAD_CALLS
    tally.more["before a kill"] = taken_back
    return tally


def _uploaded(client: Client, calls: list[types.Call]) -> int:
    upload_id = client.upload(chunk([]))[0].upload_id
    parts = (
        chunk(calls[at : at + CHUNK_CALLS], at, upload_id)
        for at in range(0, len(calls), CHUNK_CALLS)
    )
    assert client.upload(*parts)[-1].committed_offset == len(calls)
    return upload_id


def _request(upload_id: int) -> cdr_pb.ReverseUploadRequest:
    return cdr_pb.ReverseUploadRequest(upload_id=upload_id, reason="tried", requested_by="torture")


def _killed(server: Service, tenant_id: int, upload_id: int, draw: random.Random) -> int:
    """Two clients reverse it, and are killed soon after the first CDRs are reversed; return the
    number of reversed ones."""
    with patient(server.address) as client, patient(server.address) as other:
        before = _reversed(client, tenant_id)
        asked = [
            one.cdrs.ReverseUpload.future(_request(upload_id), timeout=REVERSE_SECONDS)
            for one in (client, other)
        ]
        deadline = time.monotonic() + REVERSE_SECONDS
        while _reversed(client, tenant_id) == before:
            assert time.monotonic() < deadline, "nothing is reversed"
        time.sleep(draw.uniform(0, LONGEST_PAUSE_SECONDS))
        server.kill_all()
        for one in asked:
            one.exception()  # with any result
    server.restart()
    with patient(server.address) as client:
        return _reversed(client, tenant_id) - before


def _reversed(client: Client, tenant_id: int) -> int:
    usage = client.cdrs.SummarizeUsage(cdr_pb.SummarizeUsageRequest(tenant_id=tenant_id))
    return int(usage.rows[0].calls - usage.rows[0].corrected.calls)


def _finish(tally: Tally, server: Service, upload_id: int, done: int) -> None:
    """Two clients reverse the rest, at once. The sum of their results is the rest."""
    with patient(server.address) as client, patient(server.address) as other:
        asked = [
            one.cdrs.ReverseUpload.future(_request(upload_id), timeout=REVERSE_SECONDS)
            for one in (client, other)
        ]
        answers = [one.result() for one in asked]
        made = sum(answer.reversed for answer in answers)
        tally.require(made == UPLOAD_CALLS - done, f"{done:,} and then {made:,} were reversed")
        for answer in answers:
            shown = answer.cdrs, answer.reversed + answer.reversed_before
            tally.require(
                shown == (UPLOAD_CALLS, UPLOAD_CALLS), f"the results of two at once are {answers}"
            )
        try:
            client.upload(chunk([], UPLOAD_CALLS, upload_id))
        except grpc.RpcError as error:
            tally.require("UPLOAD_REVERSED" in str(error), f"{error}")


def _count_reversals(tally: Tally, client: Client, tenant_id: int, stays: str) -> None:
    """One reversal of each CDR, except those of the upload that ``stays``; in the list, and in the
    CDRs."""
    listed = Counter[int]()
    for reversal in _listed(client, tenant_id):
        cdr = reversal.cdr
        listed[cdr.id] += 1
        cost = -Decimal(cdr.cost) if cdr.HasField("cost") else None
        if (Decimal(reversal.cost) if reversal.HasField("cost") else None) != cost:
            tally.wrong += 1
            tally.problem(f"CDR {cdr.id} of {cdr.cost} is reversed by {reversal.cost}")
    for cdr in exported(client, tenant_id=tenant_id):
        expected = 0 if cdr.caller_number.startswith(stays) else 1
        found = listed.pop(cdr.id, 0)
        tally.lost += found < expected
        tally.doubled += found > expected
        if found != expected or cdr.HasField("reversal") != bool(expected):
            tally.problem(f"CDR {cdr.id} of {cdr.caller_number} has {found} reversals")
    tally.require(not listed, f"{len(listed):,} reversals are of no CDR")


def _listed(client: Client, tenant_id: int) -> Iterator[types.Reversal]:
    token = ""
    while True:
        page = client.cdrs.ListReversals(
            cdr_pb.ListReversalsRequest(tenant_id=tenant_id, page_size=PAGE_SIZE, page_token=token)
        )
        yield from page.reversals
        token = page.next_page_token
        if not token:
            return
