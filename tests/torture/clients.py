"""Clients that stop reading, that send a byte a second, that vanish silently, that never end.

Meanwhile others are served, and the server's memory is limited to the memory of its streams,
however much is sent in all.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc

from tests.integration.client import Client, chunk, make_call, refusal_of
from tests.torture.badline import FAULTS, BadLine
from tests.torture.callfiles import Prices, Totals, new_tenant, plain_call, plain_file
from tests.torture.counting import count, verify
from tests.torture.kills import settle
from tests.torture.service import Service, await_, patient, service
from tests.torture.stage import Stage
from tests.torture.tally import Tally
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types

MIB = 2**20
# As many as fit into a message of less than 32 MiB with texts of full length.
LONG_CALLS = 9_000
LONG_CHARACTER = "\U0001d7d8"  # of four bytes
FLOODS = 4
NEW_OF_ALL = 10
# The memory limit of a process while four streams send only such messages. Two of them are in
# progress at one time, often repeatedly, because all of their calls are recorded already.
MOST_BYTES = 2048 * MIB
FILE_CALLS, FILE_CHUNK_CALLS = 300, 30
JUNK_CALLS = 5_000
# More than the 80 seconds after which the server closes a connection without answers to pings.
PLACES, GIVEN_UP_SECONDS = 4, 120
RPC_SECONDS = 600


def run(stage: Stage) -> Tally:
    tally = stage.tally("clients that misbehave")
    with stage.serving() as server, ExitStack() as stack:
        client = stack.enter_context(patient(server.address))
        tenant, flooded = new_tenant(client), new_tenant(client)
        others = Others(server.address, new_tenant(client), stage.draw("others"))
        before = server.peak_bytes()
        spoiled = [stack.enter_context(Spoiled(stage, server, fault, tenant)) for fault in FAULTS]
        _flood(tally, server, flooded.id, stage.size.flood_bytes)
        _too_long_a_message(tally, client)
        time.sleep(stage.size.clients_seconds)
        others.finish(tally, client)
        sent: dict[str, types.Call] = {}
        for one in spoiled:
            sent |= one.completed(tally, client)
        count(tally, client, tenant.id, sent, sent, Prices(tenant))
        verify(tally, client)
        peak = server.peak_bytes()
        tally.more |= {"MiB before": before // MIB, "MiB at most": peak // MIB}
        tally.more |= {
            "others served": others.served,
            "ignored bytes sent to the client that does not read": spoiled[0].junk,
        }
        tally.require(peak < MOST_BYTES, f"a process held {peak // MIB:,} MiB")
        settle(tally, server)
    if stage.size.gives_up:
        tally.more["seconds until the vanished are given up"] = _given_up(tally, stage)
    return tally


class Others:
    """A well-behaved client beside the others: it rates and records one call after the other."""

    def __init__(self, address: str, tenant: types.Tenant, draw: random.Random) -> None:
        self.served = 0
        self._tenant = tenant
        self._sent: dict[str, types.Call] = {}
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(address, draw), daemon=True)
        self._thread.start()

    def _run(self, address: str, draw: random.Random) -> None:
        try:
            with patient(address) as client:
                for number in itertools.count():
                    call = plain_call(self._tenant.id, f"other {number}", draw)
                    client.batch([call])
                    client.create_cdr(call)
                    self._sent[call.caller_number] = call
                    self.served += 1
                    if self._stop.wait(0.02):
                        return
        except BaseException as failure:
            self._failure = failure

    def finish(self, tally: Tally, client: Client) -> None:
        self._stop.set()
        self._thread.join(RPC_SECONDS)
        if self._failure is not None:
            tally.problem(f"others were not served: {self._failure}")
        tally.sent += self.served
        tally.acknowledged += self.served
        count(tally, client, self._tenant.id, self._sent, self._sent, Prices(self._tenant))


class Spoiled:
    """An upload over a connection that becomes bad when a third of it is acknowledged, and calls
    that are refused after it."""

    def __init__(self, stage: Stage, server: Service, fault: str, tenant: types.Tenant) -> None:
        seed = f"{stage.seed}/{stage.kind}"
        self.junk = 0
        self._file = plain_file(seed, fault, tenant.id, FILE_CALLS)
        self._acknowledged = 0
        self._line = BadLine(server.address)
        self._client = patient(self._line.address)
        self._upload_id = self._client.upload(chunk([]))[0].upload_id
        self._closing = threading.Event()
        self._answers = self._client.cdrs.UploadCdrs(self._requests(), timeout=RPC_SECONDS)
        while self._acknowledged < FILE_CALLS // 3:
            self._acknowledged = next(self._answers).committed_offset
        self._line.spoil(fault)
        self._junk = self._client.cdrs.UploadCdrs(self._junk_requests(), timeout=RPC_SECONDS)

    def _requests(self) -> Iterator[cdr_pb.UploadCdrsRequest]:
        for at in range(0, FILE_CALLS, FILE_CHUNK_CALLS):
            yield chunk(self._file.calls[at : at + FILE_CHUNK_CALLS], at, self._upload_id)
            # The rest must not be sent before the connection is bad.
            while at >= self._acknowledged and not self._closing.wait(0.01):
                pass

    def _junk_requests(self) -> Iterator[cdr_pb.UploadCdrsRequest]:
        """Calls that are refused with long messages, until the client no longer reads them."""
        calls = [make_call(-1, duration_seconds=-1)] * JUNK_CALLS
        while not self._closing.is_set():
            yield chunk(calls, self.junk * JUNK_CALLS)
            self.junk += 1

    def completed(self, tally: Tally, client: Client) -> dict[str, types.Call]:
        """Send the missing calls over a good connection; return all calls by their keys."""
        self.close()
        stands = client.get_upload(self._upload_id).committed_offset
        tally.require(stands >= self._acknowledged, f"{self._file.name}: {stands} are there")
        client.upload(chunk(self._file.calls[stands:], stands, self._upload_id))
        totals = Totals.of(client.get_upload(self._upload_id))
        tally.require(totals.created == FILE_CALLS, f"{self._file.name}: {totals}")
        tally.sent += FILE_CALLS
        tally.acknowledged += FILE_CALLS
        return {call.caller_number: call for call in self._file.calls}

    def close(self) -> None:
        self._closing.set()
        self._line.close()
        self._client.close()

    def __enter__(self) -> Spoiled:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _flood(tally: Tally, server: Service, tenant_id: int, flood_bytes: int) -> None:
    """Messages of the largest size with this number of bytes in all, over a few streams at once.

    All have the same calls, so one of each is recorded, from whichever stream comes first. One of
    every NEW_OF_ALL messages continues the upload; the others are its first chunk again.
    """
    calls = [_long_call(tenant_id, number) for number in range(LONG_CALLS)]
    body = cdr_pb.UploadCdrsRequest(calls=calls).SerializeToString()
    messages = max(1, flood_bytes // FLOODS // len(body))
    offsets = [
        0 if number % NEW_OF_ALL else number // NEW_OF_ALL * LONG_CALLS
        for number in range(messages)
    ]

    def requests(upload_id: int, answered: int) -> Iterator[bytes]:
        for offset in offsets[answered:]:
            # Consecutive messages are one message.
            header = cdr_pb.UploadCdrsRequest(offset=offset, upload_id=upload_id)
            yield header.SerializeToString() + body

    def send(_: int) -> tuple[Totals, int]:
        """The server's totals at the end, and the number of times the database was overloaded."""
        answers: list[cdr_pb.UploadCdrsResponse] = []
        breaks = 0
        with patient(server.address) as client:
            upload_id = client.upload(chunk([]))[0].upload_id
            method = client.channel.stream_stream("/tollwire.v1.CdrService/UploadCdrs")
            while len(answers) < len(offsets):
                try:
                    for answer in method(requests(upload_id, len(answers))):
                        answers.append(cdr_pb.UploadCdrsResponse.FromString(answer))
                except grpc.RpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        raise
                    breaks += 1
                    time.sleep(1)
            again = [one for one, offset in zip(answers, offsets, strict=True) if offset == 0]
            tally.require(again == again[:1] * len(again), "one chunk was answered in two ways")
            return Totals.of(client.get_upload(upload_id)), breaks

    with ThreadPoolExecutor(FLOODS) as pool:
        ends = list(pool.map(send, range(FLOODS)))
    total = sum((totals for totals, _ in ends), Totals())
    settled = FLOODS * -(-messages // NEW_OF_ALL) * LONG_CALLS
    expected = Totals(created=LONG_CALLS, duplicates=settled - LONG_CALLS, unrated=LONG_CALLS)
    tally.require(total == expected, f"the flood came to {total}; expected {expected}")
    tally.more["times that the flood was told to retry"] = sum(breaks for _, breaks in ends)
    tally.more["MiB of the flood"] = FLOODS * messages * len(body) // MIB
    tally.more["records of the flood"] = FLOODS * messages * LONG_CALLS


def _long_call(tenant_id: int, number: int) -> types.Call:
    call_id = f"{number:05}"
    return make_call(
        tenant_id,
        LONG_CHARACTER * 256,
        caller_number=LONG_CHARACTER * 256,
        call_id=call_id + LONG_CHARACTER * (255 - len(call_id)),
    )


def _too_long_a_message(tally: Tally, client: Client) -> None:
    """One message above the limit is refused before it is read."""
    method = client.channel.stream_stream("/tollwire.v1.CdrService/UploadCdrs")
    try:
        list(method(iter([bytes(33 * MIB)])))
    except grpc.RpcError as error:
        expected = grpc.StatusCode.RESOURCE_EXHAUSTED
        tally.require(error.code() == expected, f"a message of 33 MiB: {error}")
    else:
        tally.problem("a message of 33 MiB was accepted")


def _given_up(tally: Tally, stage: Stage) -> int:
    """Clients that vanish take all slots for streams. Return the seconds until others get one."""
    bounded = {"TOLLWIRE_MAX_STREAMS": str(PLACES)}
    with service(stage.new_database(), 1, **bounded) as server, ExitStack() as stack:
        client = stack.enter_context(patient(server.address))
        tenant = new_tenant(client)
        for fault in ["gone"] * PLACES:
            _hold_a_place(stack, server, fault)
        began = time.monotonic()
        try:
            client.upload(chunk([make_call(tenant.id)]))
        except grpc.RpcError as error:
            tally.require(refusal_of(error).reason == "TOO_MANY_STREAMS", f"{error}")
        else:
            tally.problem("more streams than slots")

        def has_a_slot() -> bool:
            try:
                return bool(client.upload(chunk([make_call(tenant.id)])))
            except grpc.RpcError:
                time.sleep(0.5)
                return False

        await_(has_a_slot, "a slot of the vanished clients", GIVEN_UP_SECONDS)
        return round(time.monotonic() - began)


def _hold_a_place(stack: ExitStack, server: Service, fault: str) -> None:
    line = BadLine(server.address)
    stack.callback(line.close)
    gone = stack.enter_context(patient(line.address))
    closing = threading.Event()
    stack.callback(closing.set)

    def requests() -> Iterator[cdr_pb.UploadCdrsRequest]:
        yield chunk([])
        closing.wait(RPC_SECONDS)

    next(gone.cdrs.UploadCdrs(requests(), timeout=RPC_SECONDS))
    line.spoil(fault)
