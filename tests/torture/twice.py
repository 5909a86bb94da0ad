"""Two uploads of the same records at the same time, through different connections."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tests.integration.client import Client, chunk
from tests.torture.callfiles import Prices, Totals, new_tenant, plain_file
from tests.torture.counting import count, verify
from tests.torture.kills import settle
from tests.torture.service import LONGEST_SECONDS, patient
from tests.torture.stage import Stage
from tests.torture.tally import Tally
from tollwire.v1 import cdr_service_pb2 as cdr_pb

CHUNK_CALLS = 5_000
WINDOW = 4
UPLOAD_SECONDS = LONGEST_SECONDS


def run(stage: Stage) -> Tally:
    tally = stage.tally("the same records twice")
    with stage.serving() as server:
        with patient(server.address) as client:
            tenant = new_tenant(client)
        prices = Prices(tenant)
        size = stage.size.same_calls
        file = plain_file(f"{stage.seed}/{stage.kind}", "same", tenant.id, size)
        chunks = [
            chunk(file.calls[at : at + CHUNK_CALLS], at) for at in range(0, size, CHUNK_CALLS)
        ]
        first, second = at_once(server.address, chunks)
        tally.sent = 2 * size
        tally.acknowledged = _settled(first) + _settled(second)
        for totals in (first, second):
            tally.require(_settled(totals) == size, f"{totals} of {size:,} records")
            tally.require(totals.conflicts + totals.rejected == 0, f"refused: {totals}")
        created = first.created + second.created
        tally.require(created == size, f"{created:,} recorded of {size:,}")
        tally.more["recorded by the first"] = first.created
        tally.more["by the second"] = second.created
        with patient(server.address) as client:
            sent = {call.caller_number: call for call in file.calls}
            count(tally, client, tenant.id, sent, sent, prices)
            verify(tally, client)
        settle(tally, server)
    return tally


def _settled(totals: Totals) -> int:
    return totals.created + totals.duplicates + totals.conflicts + totals.rejected


def at_once(address: str, chunks: Sequence[cdr_pb.UploadCdrsRequest]) -> list[Totals]:
    """The results of each of two uploads of the chunks, according to the responses."""
    sums: list[Totals | BaseException] = [Totals()] * 2
    barrier = threading.Barrier(2)

    def send(side: int) -> None:
        try:
            with patient(address) as client:
                # So that both are connected.
                client.cdrs.ListCdrs(cdr_pb.ListCdrsRequest(page_size=1))
                barrier.wait(60)
                sums[side] = _uploaded(client, chunks)
        except BaseException as failure:
            sums[side] = failure

    threads = [threading.Thread(target=send, args=(side,)) for side in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in sums:
        if isinstance(one, BaseException):
            raise one
    return sums  # type: ignore[return-value]


def _uploaded(client: Client, chunks: Sequence[cdr_pb.UploadCdrsRequest]) -> Totals:
    slots = threading.Semaphore(WINDOW)

    def requests() -> object:
        for one in chunks:
            slots.acquire()
            yield one

    total = Totals()
    for answer in client.cdrs.UploadCdrs(requests(), timeout=UPLOAD_SECONDS):
        total += Totals.of(answer)
        slots.release()
    return total
