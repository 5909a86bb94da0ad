"""One rate changed in a tenant with the real deck: the time until both workers rate with it, and
the latency of other calls meanwhile."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
from google.protobuf.field_mask_pb2 import FieldMask

from benchmarks import databases, load, rate_calls, serving
from benchmarks.harness import Row, Spread, agreed, at_most, digest, timed
from benchmarks.subjects.unary import sample
from benchmarks.workbench import TENANT_ID, Workbench
from benchmarks.workload import price_e8
from ratingcore import Deck, DeckBuilder
from tollwire.service.domain.money import format_price
from tollwire.v1.rating_service_pb2 import RateCallRequest, UpdateRateRequest
from tollwire.v1.rating_service_pb2_grpc import RatingServiceStub
from tollwire.v1.types_pb2 import Call, Rate, RatedCall

WORKERS = 2
PER_SECOND = 200
CONNECTIONS = 8
# The follower checks many times a second: pauses of random length start the change at any moment
# between two checks.
PAUSE_SECONDS = (0.05, 0.15)
PATIENCE_SECONDS = 10
POLL_SECONDS = 0.0005


def run(bench: Workbench) -> Iterator[Row]:
    yield _in_the_core(bench)
    for kind in bench.size(databases.KINDS, ("sqlite",)):
        with bench.loaded(kind, workers=WORKERS) as server:
            yield from _on(bench, kind, server)


def _in_the_core(bench: Workbench) -> Row:
    """The core's part of a change: the next deck from the last one and one changed rate."""
    deck, row = bench.deck, bench.rows[len(bench.rows) // 2]
    version = len(bench.rows) // 2 + 1
    new = (10_000_000, version, row.prefix, row.destination, 12_345, row.billing_increment)

    def change() -> Deck:
        builder = DeckBuilder(deck)
        builder.remove(version, row.prefix)
        builder.put(*new)
        return builder.build(2)

    ms = Spread.of(timed(change)() / 1e6 for _ in range(bench.size(51, 3)))
    prices = {one.prefix: price_e8(one) for one in bench.rows} | {row.prefix: 12_345}
    same = agreed(
        "the changed deck",
        digest(sorted(prices.items())),
        digest(sorted((rate.prefix, rate.cost_per_minute_e8) for rate in change())),
    )
    return Row("one rate of the real deck changed, in the core alone", "ms", ms, digest=same)


def _on(bench: Workbench, kind: str, server: serving.Server) -> Iterator[Row]:
    calls, _ = sample(bench, bench.size(2_000, 100))
    requests = rate_calls.Requests(bench.folder, calls)
    changes = bench.size(100, 3)
    # Long enough for all changes and their pauses.
    seconds = changes * 0.2 + 1

    def steady() -> rate_calls.Driver:
        return rate_calls.Driver(
            server.address,
            requests,
            seconds,
            in_flight=2 * CONNECTIONS,
            connections=CONNECTIONS,
            per_second=PER_SECOND,
        )

    with contextlib.ExitStack() as stack:
        workers = _one_connection_each(stack, server)
        changing = _Changing(workers, calls[0])
        changing.once()
        quiet = steady().result()
        driver = steady()
        time.sleep(0.5)
        taken_ms = []
        for _ in range(changes):
            time.sleep(random.uniform(*PAUSE_SECONDS))
            taken_ms.append(changing.once())
        busy = driver.result()
        same = agreed("all workers", *changing.answers())
    what = f"one rate changed until both workers rate with it, {kind}"
    yield Row(
        what,
        "ms",
        Spread.of(taken_ms),
        digest=same,
        note=f"{changes} changes in a deck of {len(bench.rows):,}, each from the sending of"
        " UpdateRate on",
    )
    yield Row(
        f"{what}: slowest of {changes}",
        "ms",
        Spread.of([max(taken_ms)]),
        budget=at_most(100),
        digest=same,
    )
    yield Row(
        f"slowest RateCall meanwhile, {kind}",
        "ms",
        Spread.of([max(busy.latencies_ms)]),
        "slowest without changes",
        Spread.of([max(quiet.latencies_ms)]),
        budget=at_most(10),
        digest=same,
        note=f"of {len(busy.latencies_ms):,} at {PER_SECOND} a second over {CONNECTIONS}"
        f" connections; p99.9 {busy.percentile_ms(99.9):.1f} ms, without changes"
        f" {quiet.percentile_ms(99.9):.1f} ms",
    )


class _Changing:
    """One rate, changed through one worker and observed in all of them."""

    def __init__(self, workers: list[RatingServiceStub], call: Call) -> None:
        self._workers = workers
        self._request = RateCallRequest(call=call)
        self._rate_id = self._rated(workers[0]).rate_id
        self._turn = 0

    def once(self) -> float:
        """Milliseconds from sending the change until the last worker rates with it."""
        self._turn += 1
        price = format_price((10_000 + self._turn) * 10_000)
        sent = threading.Barrier(len(self._workers) + 1)

        def until_seen(worker: RatingServiceStub) -> float:
            sent.wait()
            deadline = time.perf_counter() + PATIENCE_SECONDS
            while self._rated(worker).cost_per_minute != price:
                if time.perf_counter() > deadline:
                    raise AssertionError("a worker does not rate with a committed change")
                time.sleep(POLL_SECONDS)
            return time.perf_counter()

        with ThreadPoolExecutor(len(self._workers)) as pool:
            seen = [pool.submit(until_seen, worker) for worker in self._workers]
            sent.wait()
            started = time.perf_counter()
            self._workers[self._turn % len(self._workers)].UpdateRate(
                UpdateRateRequest(
                    rate=Rate(id=self._rate_id, tenant_id=TENANT_ID, cost_per_minute=price),
                    update_mask=FieldMask(paths=["cost_per_minute"]),
                ),
                timeout=30,
            )
            return (max(one.result() for one in seen) - started) * 1000

    def answers(self) -> list[str]:
        """The present answer of each worker."""
        rated = [self._rated(worker) for worker in self._workers]
        return [
            digest(one.cost_per_minute, one.cost, one.rate_revision - self._turn) for one in rated
        ]

    def _rated(self, worker: RatingServiceStub) -> RatedCall:
        return worker.RateCall(self._request, timeout=30).rated


def _one_connection_each(
    stack: contextlib.ExitStack, server: serving.Server
) -> list[RatingServiceStub]:
    """A stub for each worker.

    The kernel selects the worker of a connection, and the operating system knows which process it
    selected; so connections are opened until all workers have one.
    """
    found: dict[int, grpc.Channel] = {}
    pids = server.processes()
    for _ in range(100):
        before = {pid: _connections(pid) for pid in pids}
        channel = stack.enter_context(load.channel(server.address))
        # The handshake is done, but the worker may not have accepted the connection yet.
        deadline = time.monotonic() + 5
        new: list[int] = []
        while not new and time.monotonic() < deadline:
            new = [pid for pid in pids if _connections(pid) - before[pid]]
        for pid in new:
            found.setdefault(pid, channel)
        if len(found) == len(pids):
            return [RatingServiceStub(channel) for channel in found.values()]
    raise RuntimeError("the kernel gives all connections to one worker")


def _connections(pid: int) -> set[object]:
    return {
        connection.raddr
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED
    }
