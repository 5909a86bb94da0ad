"""RateCall, 16 in flight on one connection, one worker, against a constant handler."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from benchmarks import load, rate_calls, serving, workload
from benchmarks.harness import Row, agreed, at_least, compared, digest, in_turns, over_baseline
from benchmarks.workbench import TENANT_ID, Workbench
from tollwire.service.domain.money import cost_e8, format_cost
from tollwire.v1.rating_service_pb2 import RateCallRequest
from tollwire.v1.rating_service_pb2_grpc import RatingServiceStub
from tollwire.v1.types_pb2 import Call

IN_FLIGHT = 16
REQUESTS = 2_000


def run(bench: Workbench) -> Iterator[Row]:
    calls, expected = sample(bench, bench.size(REQUESTS, 100))
    requests = rate_calls.Requests(bench.folder, calls)
    with bench.loaded("sqlite") as tollwire, serving.peer("floor") as floor:
        with load.channel(tollwire.address) as channel:
            same = agreed("RateCall", expected, answers(channel, calls))
        seconds = bench.size(2.0, 0.2)

        def per_second(address: str) -> float:
            return rate_calls.measure(address, requests, seconds, in_flight=IN_FLIGHT).per_second

        contestants = {
            "tollwire": lambda: per_second(tollwire.address),
            "constant": lambda: per_second(floor.address),
        }
        in_turns(contestants, 1)  # warming up
        taken = in_turns(contestants, bench.size(9, 1))
    yield compared(
        "RateCall, 16 in flight",
        "calls/s",
        taken["tollwire"],
        "a constant answer",
        taken["constant"],
        over_baseline,
        "of it",
        budget=at_least(0.9),
        digest=same,
        note=f"one worker, one connection, client: {rate_calls.client()} in another process",
    )


def sample(bench: Workbench, count: int) -> tuple[list[Call], str]:
    """Calls to send one by one, and the digest of the correct responses."""
    real = workload.real_calls(bench.prefixes, count)
    ids = [f"{number:016x}" for number in range(count)]
    columns = real.rated(bench.deck)
    expected = [
        (call_id, seconds, format_cost(cost_e8(cost_scaled, 4), 4))
        for call_id, seconds, cost_scaled in zip(
            ids, columns.bill_seconds, columns.cost_scaled, strict=True
        )
    ]
    return workload.wire_calls(real, TENANT_ID, ids), digest(expected)


def answers(channel: grpc.Channel, calls: list[Call]) -> str:
    stub = RatingServiceStub(channel)
    rated = [stub.RateCall(RateCallRequest(call=call), timeout=30).rated for call in calls]
    return digest([(one.call_id, one.bill_seconds, one.cost) for one in rated])
