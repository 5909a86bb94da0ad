"""RateUnrated is killed in the middle, run again, and sent by two clients at once: no call is
priced twice, and none is left out.

Between the runs the price changes, so a call that was priced again would show.
"""

from __future__ import annotations

import random
import time

from tests.integration.client import RATED, Client, chunk, make_rate
from tests.integration.wire_oracle import Outcome, assert_recomputes, outcome_of
from tests.torture.callfiles import new_tenant, plain_call
from tests.torture.counting import count, exported, verify
from tests.torture.kills import settle
from tests.torture.service import Service, patient, service
from tests.torture.stage import Stage
from tests.torture.tally import Tally
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types

CHUNK_CALLS = 1_000
# All calls have this prefix; at first it has no rate.
DESTINATION, PREFIX = "4930123456", "4930"
LONGEST_PAUSE_SECONDS = 0.02
RATE_SECONDS = 300


class Known:
    """The first price at which each call was seen."""

    def __init__(self, tally: Tally) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._tally = tally

    def look(self, client: Client, tenant_id: int) -> None:
        for cdr in exported(client, tenant_id=tenant_id, status=RATED):
            if cdr.caller_number not in self.outcomes:
                try:
                    assert_recomputes(cdr)
                except AssertionError as error:
                    self._tally.wrong += 1
                    self._tally.problem(str(error))
            self.outcomes.setdefault(cdr.caller_number, outcome_of(cdr))

    def outcome(self, call: types.Call) -> Outcome:
        """The cost that the call must have from then on."""
        return self.outcomes[call.caller_number]


def run(stage: Stage) -> Tally:
    tally = stage.tally("RateUnrated killed")
    draw = stage.draw("unrated")
    known = Known(tally)
    with service(stage.new_database(), stage.workers) as server:
        with patient(server.address) as client:
            tenant = new_tenant(client)
            calls = [_call(tenant.id, n, draw) for n in range(stage.size.unrated_calls)]
            _upload(client, calls)
        tally.sent = tally.acknowledged = len(calls)
        for number in range(stage.size.unrated_kills):
            _killed(server, tenant.id, f"{number + 1}", draw)
            with patient(server.address) as client:
                known.look(client, tenant.id)
            stage.say(f"{len(known.outcomes):,} of {len(calls):,} priced")
        left = len(calls) - len(known.outcomes)
        with patient(server.address) as client:
            client.import_rates(tenant.id, [make_rate(PREFIX, "0.0600", 6)])
        asked = [Asked(server.address, tenant.id) for _ in range(2)]
        counts = [one.rated() for one in asked]
        tally.require(sum(counts) == left, f"two at once priced {counts}, there were {left:,}")
        with patient(server.address) as client:
            known.look(client, tenant.id)
            tally.require(len(known.outcomes) == len(calls), f"{len(known.outcomes):,} are priced")
            sent = {call.caller_number: call for call in calls}
            count(tally, client, tenant.id, sent, sent, known)
            verify(tally, client)
        settle(tally, server)
    tally.more["priced before a kill"] = len(calls) - left
    tally.more["by two at once"] = sum(counts)
    return tally


def _call(tenant_id: int, number: int, draw: random.Random) -> types.Call:
    call = plain_call(tenant_id, f"{number}", draw)
    call.destination_number = DESTINATION
    call.direction = types.DIRECTION_OUTBOUND
    call.disposition = types.DISPOSITION_ANSWERED
    return call


def _upload(client: Client, calls: list[types.Call]) -> None:
    for at in range(0, len(calls), CHUNK_CALLS):
        part = calls[at : at + CHUNK_CALLS]
        [answer] = client.upload(chunk(part))
        assert (answer.created, answer.unrated) == (len(part), len(part)), answer


class Asked:
    """A RateUnrated in the background, on a connection of its own."""

    def __init__(self, address: str, tenant_id: int) -> None:
        self._client = patient(address)
        request = cdr_pb.RateUnratedRequest(tenant_id=tenant_id)
        self._answer = self._client.cdrs.RateUnrated.future(request, timeout=RATE_SECONDS)

    def rated(self) -> int:
        """The number of calls that it priced."""
        with self._client:
            return int(self._answer.result().rated)

    def broken(self) -> None:
        """Wait for the end of one whose server was killed, with any result."""
        with self._client:
            self._answer.exception()


def _killed(server: Service, tenant_id: int, price: str, draw: random.Random) -> None:
    """Two clients run it with this price, and are killed soon after the first calls are priced."""
    with patient(server.address) as client:
        client.import_rates(tenant_id, [make_rate(PREFIX, price, 6)])
        before = _unrated(client, tenant_id)
        asked = [Asked(server.address, tenant_id) for _ in range(2)]
        deadline = time.monotonic() + RATE_SECONDS
        while before and _unrated(client, tenant_id) == before:
            assert time.monotonic() < deadline, "nothing is priced"
        time.sleep(draw.uniform(0, LONGEST_PAUSE_SECONDS))
    server.kill_all()
    for one in asked:
        one.broken()
    server.restart()


def _unrated(client: Client, tenant_id: int) -> int:
    usage = client.cdrs.SummarizeUsage(cdr_pb.SummarizeUsageRequest(tenant_id=tenant_id))
    return int(usage.rows[0].unrated)
