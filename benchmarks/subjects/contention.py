"""RateCall's latency alone, and during four uploads at full speed: two workers on two cores.

RateCall is sent at a steady rate over eight connections, so that both workers get some, and timed
from the moment of sending. The uploads come from another process, each over its own connection.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import databases, load, rate_calls, serving, workload
from benchmarks.harness import Row, Spread, agreed, at_most, compared, over_baseline
from benchmarks.rate_calls import Measured
from benchmarks.subjects.unary import answers, sample
from benchmarks.workbench import TENANT_ID, Workbench

UPLOADS = 4
CHUNK_CALLS = 10_000
PER_SECOND = 400
CONNECTIONS = 8
PICTURED = "sqlite"


def run(bench: Workbench) -> Iterator[Row]:
    for kind in bench.size(databases.KINDS, ("sqlite",)):
        with bench.loaded(kind, workers=2) as server:
            yield from _on(bench, kind, server)


def _on(bench: Workbench, kind: str, server: serving.Server) -> Iterator[Row]:
    calls, expected = sample(bench, bench.size(2_000, 100))
    requests = rate_calls.Requests(bench.folder, calls)
    chunks = bench.folder / "contention"
    chunk_calls = bench.size(CHUNK_CALLS, 500)
    load.write_messages(chunks, _chunks(bench, 8, chunk_calls))
    seconds = bench.size(6.0, 0.5)
    alone: list[Measured] = []
    beside: list[Measured] = []
    uploaded: list[float] = []
    with load.channel(server.address) as channel:
        same = agreed("RateCall", expected, answers(channel, calls))
    _rate_calls(server, requests, seconds / 4)  # warming up
    for _ in range(bench.size(3, 1)):
        alone.append(_rate_calls(server, requests, seconds))
        uploads = load.Background(
            "uploads",
            address=server.address,
            messages=str(chunks),
            chunk_calls=chunk_calls,
            window=2,
            streams=UPLOADS,
            seconds=seconds + 1.0,
        )
        uploads.wait_until_started()
        beside.append(_rate_calls(server, requests, seconds))
        uploaded.append(uploads.result()["per_second"])
    note = (
        f"{PER_SECOND} a second by {rate_calls.client()}; the uploads brought"
        f" {Spread.of(uploaded).median:,.0f} calls a second meanwhile"
    )
    # SQLite's writer and the calls share one process; the contract's limit is 5 on both.
    most = {"postgresql": 3, "sqlite": 5}[kind]
    for percent, budget in ((50, None), (99, at_most(most))):
        yield compared(
            f"RateCall p{percent} under {UPLOADS} uploads, {kind}",
            "ms",
            [one.percentile_ms(percent) for one in beside],
            "alone",
            [one.percentile_ms(percent) for one in alone],
            over_baseline,
            "times alone",
            budget=budget,
            digest=same,
            note=note,
        )
    if kind == PICTURED:
        bench.series["contention"] = {"alone": _curve(alone), "under uploads": _curve(beside)}


def _rate_calls(server: serving.Server, requests: rate_calls.Requests, seconds: float) -> Measured:
    return rate_calls.measure(
        server.address,
        requests,
        seconds,
        in_flight=2 * CONNECTIONS,
        connections=CONNECTIONS,
        per_second=PER_SECOND,
    )


def _chunks(bench: Workbench, count: int, size: int) -> list[bytes]:
    """Chunks that are new each time they are sent: the end of every call_id changes."""
    real = workload.real_calls(bench.prefixes, count * size, seed=7)
    tag = load.ROUND_TAG.decode()
    ids = [call_id[:8] + tag for call_id in workload.random_ids(len(real), seed=7)]
    return workload.upload_messages(workload.wire_calls(real, TENANT_ID, ids), size)


def _curve(measured: list[Measured]) -> list[list[float]]:
    """Latencies at rising percentiles, of all repetitions together."""
    together = Measured(0, [latency for one in measured for latency in one.latencies_ms])
    percents = [*range(0, 99, 2), 99, 99.5, 99.9, 99.95, 100]
    return [[percent, together.percentile_ms(percent)] for percent in percents]
