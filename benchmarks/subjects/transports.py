"""The native transport: RateCall beside grpcio; CreateCdr beside an upload's small chunks."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from importlib.util import find_spec

import psutil

from benchmarks import databases, load, serving
from benchmarks.harness import (
    Row,
    agreed,
    at_least,
    at_most,
    compared,
    digest,
    in_turns,
    over_baseline,
)
from benchmarks.rate_calls import CREATE_CDR, Measured, Requests
from benchmarks.subjects.single_calls import CHUNK_CALLS, lockstep_seconds, upload_work_of
from benchmarks.subjects.unary import answers, sample
from benchmarks.workbench import Workbench

IN_FLIGHT = 16
CREATE_IN_FLIGHT = 64
# ghz takes more processor time than the server.
CLIENT = "sent by a client of our own that writes frames"


def run(bench: Workbench) -> Iterator[Row]:
    if find_spec("pygrpc_native") is None:
        yield Row("RateCall, native", "calls/s", skipped="pygrpc-native is not installed")
        return
    yield from _rate_calls(bench)
    for kind in databases.KINDS:
        yield from _create_cdrs(bench, kind)


def _rate_calls(bench: Workbench) -> Iterator[Row]:
    calls, expected = sample(bench, 100)
    requests = Requests(bench.folder, calls)
    seconds = bench.size(3.0, 0.3)
    with bench.loaded("sqlite", transport="native") as native, bench.loaded("sqlite") as grpcio:
        servers = {"native": native, "grpcio": grpcio}
        for server in servers.values():
            with load.channel(server.address) as channel:
                same = agreed("RateCall", expected, answers(channel, calls))
        milliseconds: dict[str, list[float]] = {name: [] for name in servers}

        def per_second(name: str) -> float:
            before = _processor_seconds(servers[name])
            found = _measure(servers[name], requests, seconds, IN_FLIGHT)
            used = _processor_seconds(servers[name]) - before
            milliseconds[name].append(used * 1000 / len(found.latencies_ms))
            return found.per_second

        contestants = {name: lambda name=name: per_second(name) for name in servers}
        in_turns(contestants, 1)  # warming up
        for taken in milliseconds.values():
            taken.clear()
        rates = in_turns(contestants, bench.size(7, 1))
    note = f"one worker, one connection; {CLIENT}"
    yield compared(
        f"RateCall, native, {IN_FLIGHT} in flight",
        "calls/s",
        rates["native"],
        "on grpcio",
        rates["grpcio"],
        over_baseline,
        "times",
        budget=at_least(5),
        digest=same,
        note=note,
    )
    yield compared(
        f"processor time of a RateCall, native, {IN_FLIGHT} in flight",
        "ms",
        milliseconds["native"],
        "on grpcio",
        milliseconds["grpcio"],
        over_baseline,
        "of it",
        budget=at_most(0.2),
        note=note,
    )


def _create_cdrs(bench: Workbench, kind: str) -> Iterator[Row]:
    """Each measurement on a database of its own: identity checks slow down as it grows."""
    calls, _ = sample(bench, bench.size(2_000, 100))
    requests = Requests(bench.folder, calls, CREATE_CDR)
    work = upload_work_of(bench, bench.size(400, 10) * CHUNK_CALLS)
    seconds = bench.size(3.0, 0.3)
    measured: list[tuple[Measured, float]] = []

    def create() -> float:
        with bench.loaded(kind, transport="native") as server:
            _measure(server, requests, seconds / 3, IN_FLIGHT)
            before = _processor_seconds(server)
            found = _measure(server, requests, seconds, CREATE_IN_FLIGHT)
            used = _processor_seconds(server) - before
            measured.append((found, used * 1000 / len(found.latencies_ms)))
        return found.per_second

    def upload() -> float:
        return len(work) / lockstep_seconds(bench, kind, work)

    taken = in_turns({"create": create, "upload": upload}, bench.size(3, 1))
    p50, p99 = (
        statistics.median(one.percentile_ms(percent) for one, _ in measured) for percent in (50, 99)
    )
    milliseconds = statistics.median(used for _, used in measured)
    yield compared(
        f"CreateCdr, native, {CREATE_IN_FLIGHT} in flight, {kind}",
        "calls/s",
        taken["create"],
        f"UploadCdrs, {CHUNK_CALLS} calls a chunk in lockstep",
        taken["upload"],
        over_baseline,
        "of it",
        budget=at_least(0.8),
        digest=digest(len(work)),
        note=f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, {milliseconds:.3f} ms of processor time a call;"
        f" one worker, one connection; {CLIENT}",
    )


def _measure(
    server: serving.Server, requests: Requests, seconds: float, in_flight: int
) -> Measured:
    method = requests.method
    return Measured(
        **load.run(
            "unary_frames",
            address=server.address,
            method=f"{method.service}/{method.name}",
            messages=str(requests.as_bytes),
            in_flight=in_flight,
            seconds=seconds,
        )
    )


def _processor_seconds(server: serving.Server) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in server.processes())
