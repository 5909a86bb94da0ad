"""One call_id with two contents, by two clients at the same moment, by CreateCdr and UploadCdrs.

One of them is recorded; the other client gets a conflict with the id of the recorded CDR.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc

from tests.integration.client import Client, chunk, refusal_of
from tests.torture.callfiles import Prices, new_tenant, plain_call
from tests.torture.counting import count, verify
from tests.torture.kills import settle
from tests.torture.service import patient
from tests.torture.stage import Stage
from tests.torture.tally import Tally
from tollwire.v1 import types_pb2 as types

# Connections of each side, so that the sides share a worker in some rounds and not in others.
CONNECTIONS = 3
# Rounds in which each side sends many calls in one chunk, the sides in opposite orders.
CHUNK_ROUNDS_OF_ALL = 10
CHUNK_CALLS = 50
PATIENCE_SECONDS = 60

# Records calls and returns the CDR with which each is in conflict; 0 if it was recorded.
Way = Callable[[Client, Sequence[types.Call]], list[int]]


def by_create(client: Client, calls: Sequence[types.Call]) -> list[int]:
    return [_created(client, call) for call in calls]


def _created(client: Client, call: types.Call) -> int:
    try:
        cdr = client.create_cdr(call)
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        assert refusal.reason == "CDR_CONFLICT", refusal
        return int(refusal.metadata["cdr_id"])
    assert cdr.caller_number == call.caller_number, "answered with another call"
    return 0


def by_upload(client: Client, calls: Sequence[types.Call]) -> list[int]:
    [answer] = client.upload(chunk(calls))
    named = [0] * len(calls)
    for failure in answer.failures:
        assert failure.reason == "CDR_CONFLICT", failure
        assert failure.call_id == calls[failure.index].call_id
        found = re.search(r"is recorded as CDR (\d+) with other content", failure.message)
        assert found is not None, failure
        named[failure.index] = int(found[1])
    assert answer.created == named.count(0)
    assert answer.conflicts == len(calls) - named.count(0)
    return named


WAYS: tuple[tuple[Way, Way], ...] = (
    (by_create, by_create),
    (by_create, by_upload),
    (by_upload, by_create),
    (by_upload, by_upload),
)


def run(stage: Stage) -> Tally:
    tally = stage.tally("one call_id, two contents")
    draw = stage.draw("conflicts")
    winners: dict[str, types.Call] = {}
    by_side = [0, 0]
    with stage.serving() as server, ExitStack() as stack:
        clients = [stack.enter_context(patient(server.address)) for _ in range(2 * CONNECTIONS)]
        tenant = new_tenant(clients[0])
        pool = stack.enter_context(ThreadPoolExecutor(2))
        for number in range(stage.size.conflicts):
            size = 1
            ways = WAYS[number % len(WAYS)]
            if number % CHUNK_ROUNDS_OF_ALL == CHUNK_ROUNDS_OF_ALL - 1:
                size, ways = CHUNK_CALLS, (by_upload, by_upload)
            sides = _two_contents(tenant.id, number, size, draw)
            pair = draw.sample(clients, 2)
            named = _at_once(pool, pair, ways, (sides[0], sides[1][::-1]))
            named[1].reverse()
            tally.sent += 2 * size
            tally.acknowledged += 2 * size
            for calls, ids in zip(zip(*sides, strict=True), zip(*named, strict=True), strict=True):
                if ids.count(0) != 1:
                    tally.problem(f"round {number}: the results of the sides are {ids}")
                    continue
                winner = ids.index(0)
                by_side[winner] += 1
                winners[calls[winner].caller_number] = calls[winner]
                shown = pair[0].get_cdr(ids[1 - winner])
                tally.require(
                    shown.caller_number == calls[winner].caller_number,
                    f"round {number}: the conflict names another CDR, {shown.id}",
                )
        count(tally, clients[0], tenant.id, winners, winners, Prices(tenant))
        verify(tally, clients[0])
        settle(tally, server)
    tally.more["recorded from one side"] = by_side[0]
    tally.more["from the other"] = by_side[1]
    return tally


def _two_contents(
    tenant_id: int, number: int, size: int, draw: random.Random
) -> tuple[list[types.Call], list[types.Call]]:
    """Calls of two sides: the same call_ids, each with two contents."""
    ours = [plain_call(tenant_id, f"{number}-{n}-a", draw) for n in range(size)]
    theirs = [plain_call(tenant_id, f"{number}-{n}-b", draw) for n in range(size)]
    for mine, other in zip(ours, theirs, strict=True):
        other.call_id = mine.call_id
    return ours, theirs


def _at_once(
    pool: ThreadPoolExecutor,
    clients: Sequence[Client],
    ways: tuple[Way, Way],
    sides: tuple[Sequence[types.Call], Sequence[types.Call]],
) -> list[list[int]]:
    barrier = threading.Barrier(2)

    def record(side: int) -> list[int]:
        barrier.wait(PATIENCE_SECONDS)
        return ways[side](clients[side], sides[side])

    return [job.result(PATIENCE_SECONDS) for job in [pool.submit(record, n) for n in range(2)]]
