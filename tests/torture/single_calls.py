"""kill -9 of the server at random moments, while 16 clients record single calls.

Calls of several clients share a transaction, so a kill ends many calls at once. A client repeats a
call until it is answered. Afterwards every call is recorded exactly once at the right cost, and a
call that was acknowledged before a kill has the id of its response.
"""

from __future__ import annotations

import itertools
import threading
import time

import grpc

from tests.integration.client import Client
from tests.torture.callfiles import Prices, new_tenant, plain_call
from tests.torture.counting import count, exported, verify
from tests.torture.kills import LONGEST_PAUSE_SECONDS, kill, settle
from tests.torture.service import PATIENCE_SECONDS, await_, patient, service
from tests.torture.stage import Stage
from tests.torture.tally import Tally
from tollwire.v1 import types_pb2 as types

CLIENTS = 16
RPC_SECONDS = 20
# CANCELLED: a worker whose parent was killed stops, and ends the RPCs that have no handler yet.
_REPEATED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)


class Recorder(threading.Thread):
    """A client that records one call after the other. ``finish`` raises its error."""

    def __init__(self, stage: Stage, number: int, address: str, tenant_id: int) -> None:
        super().__init__(daemon=True)
        self.sent: dict[str, types.Call] = {}
        self.ids: dict[str, int] = {}
        self.attempts = 0
        self._draw = stage.draw(f"recorder {number}")
        self._number = number
        self._address = address
        self._client = Client(address, RPC_SECONDS)
        self._tenant_id = tenant_id
        self._enough = threading.Event()
        self._failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            for index in itertools.count():
                marker = f"{self._number}-{index}"
                call = plain_call(self._tenant_id, marker, self._draw)
                self.sent[marker] = call
                self.ids[marker] = self._record(call)
                if self._enough.is_set():
                    return
        except BaseException as failure:
            self._failure = failure
        finally:
            self._client.close()

    def _record(self, call: types.Call) -> int:
        """The id of the CDR. The same call is sent until it is answered, over a new connection each
        time: grpc waits for up to two minutes before it connects again."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            self.attempts += 1
            try:
                return self._client.create_cdr(call).id
            except grpc.RpcError as error:
                if error.code() not in _REPEATED or time.monotonic() > until:
                    raise
                self._client.close()
                time.sleep(0.02)
                self._client = Client(self._address, RPC_SECONDS)

    def finish(self) -> None:
        self._enough.set()
        self.join(PATIENCE_SECONDS * 2)
        if self._failure is not None:
            raise self._failure
        assert not self.is_alive(), "a client does not end"


def run(stage: Stage) -> Tally:
    tally = stage.tally("kill -9 under CreateCdr")
    draw = stage.draw("single calls")
    with service(stage.new_database(), stage.workers) as server:
        with patient(server.address) as client:
            tenant = new_tenant(client)
        recorders = [
            Recorder(stage, number, server.address, tenant.id) for number in range(CLIENTS)
        ]
        for number in range(stage.size.kills):
            acknowledged = sum(len(one.ids) for one in recorders)
            await_(
                lambda: sum(len(one.ids) for one in recorders) > acknowledged + CLIENTS,  # noqa: B023
                "the progress of the clients",
            )
            time.sleep(draw.uniform(0, LONGEST_PAUSE_SECONDS))
            kill(server, draw, number)
            stage.say(f"{number + 1} kills, {sum(len(one.ids) for one in recorders):,} recorded")
        for one in recorders:
            one.finish()
        with patient(server.address) as client:
            _check(tally, client, recorders, tenant.id, Prices(tenant))
            verify(tally, client)
        settle(tally, server)
    tally.more["sent again"] = tally.sent - tally.acknowledged
    return tally


def _check(
    tally: Tally, client: Client, recorders: list[Recorder], tenant_id: int, prices: Prices
) -> None:
    sent: dict[str, types.Call] = {}
    ids: dict[str, int] = {}
    for one in recorders:
        sent |= one.sent
        ids |= one.ids
        tally.sent += one.attempts
    tally.acknowledged = len(ids)
    count(tally, client, tenant_id, sent, ids, prices)
    stored = {cdr.caller_number: cdr.id for cdr in exported(client, tenant_id=tenant_id)}
    moved = [marker for marker, cdr_id in ids.items() if stored.get(marker) != cdr_id]
    tally.require(not moved, f"these calls have another id than their answers: {moved[:5]}")
