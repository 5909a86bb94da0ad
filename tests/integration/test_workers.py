"""Two workers behind one port: the view of one connection, and the effects of a worker's death."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import grpc
import psutil

from benchmarks.serving import worker_processes
from tests.integration.client import Client, make_call, make_rate, refused
from tests.integration.conftest import NewDatabase
from tests.integration.serving import ServerProcess, serving
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2 as types

PATIENCE_SECONDS = 20
CONNECTIONS = 6
IMPORTS = 8


@contextmanager
def connections(server: ServerProcess) -> Iterator[list[Client]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Client(server.address)) for _ in range(CONNECTIONS)]


class Rating:
    """A connection that rates one call repeatedly, in a thread of its own, by all three methods:
    ``revisions`` in order, ``errors`` of the failed RPCs, ``rounds`` of those without errors."""

    def __init__(self, client: Client, call: types.Call, least_revision: int) -> None:
        self.revisions: list[int] = []
        self.errors: list[grpc.StatusCode] = []
        self.rounds = 0
        self.wrong: AssertionError | None = None
        self._client = client
        self._call = call
        self._stop = threading.Event()
        self._least_revision = least_revision
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def demand(self, revision: int) -> None:
        """From the next round on."""
        self._least_revision = revision

    def further(self, rounds: int) -> None:
        """Wait for this number of further rounds."""
        goal = self.rounds + rounds
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.rounds < goal and self.wrong is None:
            assert time.monotonic() < deadline, self.errors
            time.sleep(0.01)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()
        if self.wrong is not None:
            raise self.wrong

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            try:
                self._round(self._least_revision)
                self.rounds += 1
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call)
                self.errors.append(error.code())
            except AssertionError as wrong:
                self.wrong = wrong
                return

    def _round(self, least: int) -> None:
        rating, call = self._client.rating, self._call
        single = pb.RateCallRequest(call=call, min_rate_revision=least)
        one = rating.RateCall(single, timeout=30).rated
        several = pb.BatchRateCallsRequest(calls=[call] * 3, min_rate_revision=least)
        batch = rating.BatchRateCalls(several, timeout=30).rated
        asked = pb.StreamRateCallsRequest(calls=[call] * 3, min_rate_revision=least)
        stream = rating.StreamRateCalls(iter([asked] * 3), timeout=30)
        seen = [one, *batch, *(rated for response in stream for rated in response.rated)]
        assert all(rated.rate_revision >= least for rated in seen)
        # The cost of a call and the revision in its response must agree.
        assert all(rated.cost == f"{rated.rate_revision}.0000" for rated in seen)
        self.revisions += [rated.rate_revision for rated in seen]


def test_a_connection_never_goes_back_to_an_older_revision(new_database: NewDatabase) -> None:
    with serving(new_database(), workers=2) as server, connections(server) as clients:
        tenant = clients[0].new_tenant()
        call = make_call(tenant.id, "44", 60)

        def import_next(client: Client) -> int:
            """A price that identifies its revision: each import creates the next one."""
            rate = make_rate("44", f"{revision + 1}", 60)
            return client.import_rates(tenant.id, [rate]).rate_revision

        revision = 1  # the tenant's creation
        revision = import_next(clients[0])
        # All connections find it, whichever worker they have.
        ratings = [Rating(client, call, revision) for client in clients]
        for turn in range(IMPORTS):
            client = clients[turn % len(clients)]
            before = revision
            revision = import_next(client)
            assert revision == before + 1
            assert client.rate(call).rate_revision == revision
            at_once = pb.RateCallRequest(call=call, min_rate_revision=revision)
            for other in clients:
                assert other.rating.RateCall(at_once).rated.rate_revision == revision
            for rating in ratings[turn % 2 :: 2]:
                rating.demand(revision)
        for rating in ratings:
            rating.demand(revision)
            rating.further(2)
            rating.stop()
            assert rating.errors == []
            assert rating.revisions == sorted(rating.revisions)
            assert rating.revisions[-1] == revision


@dataclass
class Worker:
    """A worker process and the number of its connections."""

    process: psutil.Process
    connections: int = field(default=0)


def workers_of(server: ServerProcess) -> list[Worker]:
    return [
        Worker(
            process,
            sum(
                connection.status == psutil.CONN_ESTABLISHED
                and server.address.endswith(f":{connection.laddr.port}")
                for connection in process.net_connections("tcp")
            ),
        )
        for process in worker_processes(server.process.pid)
    ]


def test_a_killed_worker_fails_only_its_own_connections(new_database: NewDatabase) -> None:
    with serving(new_database(), workers=2) as server, connections(server) as clients:
        tenant = clients[0].new_tenant()
        clients[0].new_rate(tenant.id, "44", "2", 60)
        call = make_call(tenant.id, "44", 60)
        # The tenant's creation is revision 1, its rate revision 2: the price identifies it.
        ratings = [Rating(client, call, least_revision=2) for client in clients]

        for rating in ratings:
            rating.further(2)
        victim, other = sorted(workers_of(server), key=lambda worker: worker.connections)
        assert victim.connections + other.connections == CONNECTIONS
        if not victim.connections:
            victim, other = other, victim
        victim.process.kill()
        # The connections of the dead worker are restored, to another worker.
        for rating in ratings:
            rating.further(3)
        for rating in ratings:
            rating.stop()
        failed = [rating for rating in ratings if rating.errors]
        assert len(failed) <= victim.connections
        errors = set(itertools.chain.from_iterable(rating.errors for rating in failed))
        assert errors <= {grpc.StatusCode.UNAVAILABLE}
        assert other.process.is_running()
        died = [line for line in server.log().splitlines() if "ended with code -9" in line]
        assert len(died) == 1 and f"(pid {victim.process.pid})" in died[0]
        assert server.terminate() == 0, server.log()


def revision_of(call: grpc.Call) -> int:
    return int(dict(call.trailing_metadata())["tollwire-rate-revision"])


def test_every_change_returns_the_revision_that_another_worker_rates_with(
    new_database: NewDatabase,
) -> None:
    """The change goes to one worker; each connection demands it, and both workers have some."""
    with serving(new_database(), workers=2) as server, connections(server) as clients:
        client = clients[0]
        tenant, created = client.tenants.CreateTenant.with_call(
            tenant_pb.CreateTenantRequest(tenant=types.Tenant(name="Acme"))
        )
        revision = revision_of(created)
        assert revision > 0
        call = make_call(tenant.id, "0044", 60)

        def costs(least: int) -> set[str]:
            """The cost of the call on every connection; "-" if no rate matches."""
            found = set()
            for other in clients:
                one = pb.BatchRateCallsRequest(calls=[call], min_rate_revision=least)
                (rated,) = other.rating.BatchRateCalls(one).rated
                assert rated.rate_revision >= least
                found.add(rated.cost or "-")
            return found

        def next_of(call: grpc.Call) -> int:
            nonlocal revision
            assert revision_of(call) == revision + 1
            revision += 1
            return revision

        rate = make_rate("0044", "1", 60, tenant_id=tenant.id)
        made, answer = client.rating.CreateRate.with_call(pb.CreateRateRequest(rate=rate))
        assert made.rate_revision == revision + 1
        assert costs(next_of(answer)) == {"1.0000"}

        made.cost_per_minute = "2"
        changed, answer = client.rating.UpdateRate.with_call(pb.UpdateRateRequest(rate=made))
        assert changed.rate_revision == revision + 1
        assert costs(next_of(answer)) == {"2.0000"}
        # A request that changes nothing returns the present revision.
        same, answer = client.rating.UpdateRate.with_call(pb.UpdateRateRequest(rate=changed))
        assert same == changed
        assert revision_of(answer) == revision

        wanted = pb.ImportRatesRequest(tenant_id=tenant.id, mode=types.IMPORT_MODE_MERGE)
        wanted.rates.append(make_rate("0044", "3", 60))
        imported, answer = client.rating.ImportRates.with_call(iter([wanted]))
        assert imported.rate_revision == revision + 1
        assert costs(next_of(answer)) == {"3.0000"}

        # The rules change the number, so that no rate matches any more.
        rules = tenant_pb.UpdateTenantRequest(
            tenant=types.Tenant(id=tenant.id, international_prefix="00")
        )
        rules.update_mask.paths.append("international_prefix")
        _, answer = client.tenants.UpdateTenant.with_call(rules)
        assert costs(next_of(answer)) == {"-"}
        rules.tenant.international_prefix = ""
        _, answer = client.tenants.UpdateTenant.with_call(rules)
        assert costs(next_of(answer)) == {"3.0000"}

        _, answer = client.rating.DeleteRate.with_call(pb.DeleteRateRequest(id=made.id))
        assert costs(next_of(answer)) == {"-"}

        ahead = pb.RateCallRequest(call=call, min_rate_revision=revision + 1)
        for other in clients:
            with refused(grpc.StatusCode.FAILED_PRECONDITION, "RATE_REVISION_AHEAD"):
                other.rating.RateCall(ahead)
        _, answer = client.tenants.DeleteTenant.with_call(
            tenant_pb.DeleteTenantRequest(id=tenant.id)
        )
        assert next_of(answer) == revision


RATES = 100_000


def test_after_the_answer_to_an_import_every_worker_rates_with_it(
    new_database: NewDatabase,
) -> None:
    """A worker takes a while to read a large deck: the response waits for it."""
    with serving(new_database(), workers=2) as server, Client(server.address) as client:
        tenant = client.new_tenant()
        call = make_call(tenant.id, "10099999", 60)

        def import_at(price: str) -> int:
            rates = [make_rate(f"1{index:05}", price, 60) for index in range(RATES)]
            requests = [
                pb.ImportRatesRequest(
                    tenant_id=tenant.id, mode=types.IMPORT_MODE_MERGE, rates=rates[at : at + 5000]
                )
                for at in range(0, RATES, 5000)
            ]
            return client.rating.ImportRates(iter(requests)).rate_revision

        import_at("1")
        with ExitStack() as stack:
            others = [stack.enter_context(Client(server.address)) for _ in range(12)]
            assert {other.rate(call).cost for other in others} == {"1.0000"}
            assert all(worker.connections for worker in workers_of(server))
            for price in ("2", "3"):
                revision = import_at(price)
                # At once, on old connections and on new ones.
                for other in (
                    *others,
                    *(stack.enter_context(Client(server.address)) for _ in "12"),
                ):
                    rated = other.rate(call)
                    assert (rated.cost, rated.rate_revision) == (f"{price}.0000", revision)
            # The same holds for a single rate and for the rules.
            rate = client.new_rate(tenant.id, "10099999", "4", 60)
            assert {other.rate(call).cost for other in others} == {"4.0000"}
            client.rating.DeleteRate(pb.DeleteRateRequest(id=rate.id))
            assert {other.rate(call).cost for other in others} == {"3.0000"}


def test_a_worker_that_hangs_or_dies_delays_a_change_for_seconds_at_most(
    new_database: NewDatabase,
) -> None:
    with serving(new_database(), workers=2) as server, connections(server) as clients:
        tenant = clients[0].new_tenant()
        rate = clients[0].new_rate(tenant.id, "44", "1", 60)
        call = make_call(tenant.id, "44", 60)
        hanging = workers_of(server)[0].process
        hanging.suspend()
        try:
            client = next(one for one in clients if _answers(one, call))
            seconds = []
            for price in ("2", "3", "4"):
                began = time.monotonic()
                changed = types.Rate(id=rate.id, cost_per_minute=price)
                client.update_rate(changed, "cost_per_minute")
                seconds.append(time.monotonic() - began)
                assert client.rate(call).cost == f"{price}.0000"
            # It is waited for once, and not again until it makes progress.
            assert seconds[0] < 10
            assert max(seconds[1:]) < 1.5
        finally:
            hanging.resume()
        client.update_rate(types.Rate(id=rate.id, cost_per_minute="5"), "cost_per_minute")
        hanging.kill()
        began = time.monotonic()
        client.update_rate(types.Rate(id=rate.id, cost_per_minute="6"), "cost_per_minute")
        assert time.monotonic() - began < 10


def _answers(client: Client, call: types.Call) -> bool:
    try:
        client.rating.RateCall(pb.RateCallRequest(call=call), timeout=2)
        return True
    except grpc.RpcError:
        return False
