"""StreamRateCalls: one stream, the client in another process with several messages in flight.

Beside it, with the same server settings and the same client: a handler that returns the request's
bytes untouched, and the handler with message objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks import load, serving, workload
from benchmarks.harness import (
    Row,
    Spread,
    agreed,
    at_least,
    batches,
    compared,
    digest,
    over_baseline,
)
from benchmarks.workbench import TENANT_ID, Workbench
from benchmarks.workload import RealCalls
from ratingcore import Columns
from tollwire.service.domain.money import cost_e8, format_cost
from tollwire.v1.rating_service_pb2 import StreamRateCallsResponse
from tollwire.v1.types_pb2 import RATED_CALL_VIEW_BASIC, RatedCall

CALLS_A_MESSAGE = 10_000
SIZES = (1, 10, 100, 1_000, 10_000)
WINDOW = 4
SMALL_WINDOW = 32


def run(bench: Workbench) -> Iterator[Row]:
    real = workload.real_calls(bench.prefixes, bench.size(200_000, 20_000))
    ids = [f"{number:016x}" for number in range(len(real))]
    calls = workload.wire_calls(real, TENANT_ID, ids)
    files = {}
    for size in SIZES:
        files[size] = bench.folder / f"stream-{size}"
        # A few hundred messages do not repeat within the server's caches.
        messages = workload.stream_messages(calls[: size * 400], size)
        load.write_messages(files[size], messages)
    with (
        bench.loaded("sqlite") as tollwire,
        serving.peer("floor") as echo,
        serving.peer("objects", bench.every) as objects,
    ):
        targets = {
            "tollwire": tollwire.address,
            "echo": echo.address,
            "objects": objects.address,
        }
        expected = expected_digest(real, ids, real.rated(bench.deck))
        same, response_bytes = _answers(tollwire.address, files[CALLS_A_MESSAGE])
        basic = bench.folder / "stream-basic"
        load.write_messages(
            basic, workload.stream_messages(calls, CALLS_A_MESSAGE, RATED_CALL_VIEW_BASIC)
        )
        agreed("rated calls", expected, same, _answers(objects.address, files[CALLS_A_MESSAGE])[0])
        taken = {
            size: _rates(bench, targets, files[size], size)
            for size in bench.size(SIZES, (CALLS_A_MESSAGE,))
        }
        of_basic = _rates(
            bench,
            {name: targets[name] for name in ("tollwire", "echo")},
            basic,
            CALLS_A_MESSAGE,
        )
        basic_bytes = _response_bytes(tollwire.address, basic)
    note = (
        f"{files[CALLS_A_MESSAGE].stat().st_size / len(calls):.0f} bytes a call in,"
        f" {response_bytes / len(calls):.0f} out; {WINDOW} messages in flight"
    )
    yield from _rows(taken[CALLS_A_MESSAGE], same, note)
    yield compared(
        "StreamRateCalls, RATED_CALL_VIEW_BASIC",
        "calls/s",
        of_basic["tollwire"],
        "bytes returned untouched",
        of_basic["echo"],
        over_baseline,
        "of it",
        note=f"{basic_bytes / len(calls):.0f} bytes a call out; {WINDOW} messages in flight",
    )
    bench.series["stream"] = [
        [size, *(Spread.of(rates[name]).median for name in targets)]
        for size, rates in taken.items()
    ]


def _rates(
    bench: Workbench, targets: dict[str, str], messages: Path, size: int
) -> dict[str, list[float]]:
    """Calls a second."""
    main = size == CALLS_A_MESSAGE
    rates: dict[str, list[float]] = load.run(
        "stream",
        targets=targets,
        messages=str(messages),
        window=WINDOW if size >= 1_000 else SMALL_WINDOW,
        seconds=bench.size(1.5 if main else 1.0, 0.2),
        repetitions=bench.size(7 if main else 2, 1),
    )
    return {name: [rate * size for rate in found] for name, found in rates.items()}


def _rows(rates: dict[str, list[float]], same: str, note: str) -> Iterator[Row]:
    for baseline, name, budget in (
        ("echo", "bytes returned untouched", at_least(0.55)),
        ("objects", "message objects", None),
    ):
        yield compared(
            f"StreamRateCalls, against {name}",
            "calls/s",
            rates["tollwire"],
            name,
            rates[baseline],
            over_baseline,
            "of it" if budget else "times faster",
            budget=budget,
            digest=same,
            note=note,
        )


def _answers(address: str, messages: Path) -> tuple[str, int]:
    """A digest of the server's responses to all messages (each call's id, status, seconds and
    cost), and their size in bytes."""
    parts, size = [], 0
    with load.channel(address) as channel:
        method = load.stream_stream(channel, "/tollwire.v1.RatingService/StreamRateCalls")
        for data in method(iter(load.read_messages(str(messages)))):
            size += len(data)
            parts.append([_essence(one) for one in StreamRateCallsResponse.FromString(data).rated])
    return digest(*parts), size


def _response_bytes(address: str, messages: Path) -> int:
    with load.channel(address) as channel:
        method = load.stream_stream(channel, "/tollwire.v1.RatingService/StreamRateCalls")
        return sum(map(len, method(iter(load.read_messages(str(messages))))))


def _essence(rated: RatedCall) -> tuple[str, int, int, str]:
    return rated.call_id, rated.status, rated.bill_seconds, rated.cost


def expected_digest(real: RealCalls, ids: list[str], columns: Columns) -> str:
    rated = [
        (call_id, status, seconds, format_cost(cost_e8(cost_scaled, 4), 4))
        for call_id, status, seconds, cost_scaled in zip(
            ids, columns.status, columns.bill_seconds, columns.cost_scaled, strict=True
        )
    ]
    assert len(rated) == len(real)
    return digest(*map(list, batches(rated, CALLS_A_MESSAGE)))
