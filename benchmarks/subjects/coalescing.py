"""``rate`` and ``record`` of tollwire.client beside the stubs: 64 callers in one process, threads
or tasks of asyncio. Calls for each second of processor time of client and server together."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psutil

from benchmarks import serving
from benchmarks.harness import Row, agreed, at_least, compared, digest, in_turns, over_baseline
from benchmarks.subjects.unary import sample
from benchmarks.workbench import TENANT_ID, Workbench
from tollwire.client import AsyncClient, Client
from tollwire.v1.cdr_service_pb2 import CreateCdrRequest
from tollwire.v1.rating_service_pb2 import RateCallRequest
from tollwire.v1.types_pb2 import Call

CALLERS = 64
BUDGETS = {"rate": 5, "record": 3}


class Calls:
    """The calls in turn, for any number of threads: each with a call_id that no other has."""

    def __init__(self, calls: list[Call]) -> None:
        self._calls = calls
        self._numbers = itertools.count()
        self.count = 0

    def take(self) -> Call:
        number = next(self._numbers)
        call = Call()
        call.CopyFrom(self._calls[number % len(self._calls)])
        call.call_id = f"{number:016x}"
        return call


def run(bench: Workbench) -> Iterator[Row]:
    calls, expected = sample(bench, bench.size(2_000, 100))
    for transport in ("grpcio", "native"):
        with bench.loaded("sqlite", transport=transport) as server:
            same = agreed("rate", expected, rated(server, calls))
            source = Calls(calls)
            for callers, measure in (("threads", by_threads), ("tasks", by_tasks)):
                for method in BUDGETS:
                    yield compare(bench, server, transport, callers, method, measure, source, same)
            with Client(server.address, environment={}) as client:
                stored = sum(1 for _ in client.export_cdrs(tenant_id=TENANT_ID))
            if stored != source.count:
                raise AssertionError(f"{source.count} calls were recorded, {stored} are stored")


def rated(server: serving.Server, calls: list[Call]) -> str:
    with Client(server.address, environment={}) as client:
        found = [client.rate(call) for call in calls]
    return digest([(one.call_id, one.bill_seconds, one.cost) for one in found])


# Makes calls for a time; returns their number.
Measure = Callable[[str, str, float, Calls], int]


def compare(
    bench: Workbench,
    server: serving.Server,
    transport: str,
    callers: str,
    method: str,
    measure: Measure,
    source: Calls,
    same: str,
) -> Row:
    seconds = bench.size(1.0, 0.2)

    def per_processor_second(name: str) -> float:
        before = processor_seconds(server)
        count = measure(server.address, name, seconds, source)
        if method == "record":
            source.count += count
        return count / (processor_seconds(server) - before)

    names = {"coalesced": method, "stub": f"{method} by the stub"}
    contestants = {kind: partial(per_processor_second, name) for kind, name in names.items()}
    taken = in_turns(contestants, bench.size(5, 1))
    rpc = "RateCall" if method == "rate" else "CreateCdr"
    return compared(
        f"{method}(), {CALLERS} {callers}, {transport}",
        "calls/CPU s",
        taken["coalesced"],
        f"{rpc} by the stub",
        taken["stub"],
        over_baseline,
        "times",
        # The native transport halves the baseline, so the budget is grpcio's.
        budget=at_least(BUDGETS[method]) if transport == "grpcio" else None,
        digest=same if method == "rate" else "",
        note="one worker, SQLite; processor time of client and server together",
    )


def processor_seconds(server: serving.Server) -> float:
    """The processor time of this process and of the server's."""
    processes = [psutil.Process(), *map(psutil.Process, server.processes())]
    times = [process.cpu_times() for process in processes]
    return float(sum(one.user + one.system for one in times))


def by_threads(address: str, name: str, seconds: float, calls: Calls) -> int:
    with Client(address, environment={}) as client:
        stubs = client._rating_service, client._cdr_service
        methods: dict[str, Callable[[Call], object]] = {
            "rate": client.rate,
            "record": client.record,
            "rate by the stub": lambda call: stubs[0].RateCall(
                RateCallRequest(call=call), timeout=60
            ),
            "record by the stub": lambda call: stubs[1].CreateCdr(
                CreateCdrRequest(call=call), timeout=60
            ),
        }
        method = methods[name]
        end = time.perf_counter() + seconds

        def work(_: int) -> int:
            for count in itertools.count():
                if count and time.perf_counter() >= end:
                    return count
                method(calls.take())
            raise AssertionError

        with ThreadPoolExecutor(CALLERS) as pool:
            return sum(pool.map(work, range(CALLERS)))


def by_tasks(address: str, name: str, seconds: float, calls: Calls) -> int:
    async def run() -> int:
        async with AsyncClient(address, environment={}) as client:
            stubs = client._rating_service, client._cdr_service
            methods: dict[str, Callable[[Call], Awaitable[object]]] = {
                "rate": client.rate,
                "record": client.record,
                "rate by the stub": lambda call: stubs[0].RateCall(
                    RateCallRequest(call=call), timeout=60
                ),
                "record by the stub": lambda call: stubs[1].CreateCdr(
                    CreateCdrRequest(call=call), timeout=60
                ),
            }
            method = methods[name]
            end = time.perf_counter() + seconds

            async def work() -> int:
                for count in itertools.count():
                    if count and time.perf_counter() >= end:
                        return count
                    await method(calls.take())
                raise AssertionError

            return sum(await asyncio.gather(*(work() for _ in range(CALLERS))))

    return asyncio.run(run())
