"""The time to identify the caller, and what the time of a refusal reveals about a wrong token.

Both are measured in this process, around the handler: over the wire a microsecond is lost in the
noise, which would make the second result look better than it is.
"""

from __future__ import annotations

import math
import random
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks import databases
from benchmarks.harness import (
    Row,
    Spread,
    agreed,
    at_most,
    compared,
    digest,
    in_turns,
    over_baseline,
    timed,
)
from benchmarks.workbench import TENANT_ID, Workbench
from tollwire.service.domain.errors import Unauthenticated
from tollwire.service.domain.model import Rate, Tenant, Token
from tollwire.service.domain.request import EVERY_TENANT, Role
from tollwire.service.process.composition import Application, build_application
from tollwire.service.rpc.access_control import AccessControl
from tollwire.service.rpc.pipeline import RpcContext, RpcPipeline
from tollwire.service.rpc.rating_service import RatingServicer
from tollwire.service.rpc.transports.grpcio import GrpcioCall
from tollwire.service.settings.config import Settings
from tollwire.v1 import rating_service_pb2, types_pb2

METHOD = "RatingService/RateCall"
CALLS = 20_000
TOKENS = 1_000
SAMPLES = 10_000


class Context:
    """The part of grpc's context that is used before a message is read."""

    def __init__(self, *authorization: str) -> None:
        # What grpc's own client sends, and the token after it.
        self._metadata = (
            ("user-agent", "grpc-python/1.85.1 grpc-c/53.0.0 (linux; chttp2)"),
            *(("authorization", text) for text in authorization),
        )

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def time_remaining(self) -> float:
        return math.inf  # the value for a client without a deadline

    def is_active(self) -> bool:
        return True


def run(bench: Workbench) -> Iterator[Row]:
    url, _ = bench.databases.keep("sqlite")
    databases.prepare(url)
    with build_application(Settings(database=url)) as everything:
        subjects = everything.subjects
        subjects.tenants.create(Tenant(name="Bench"))
        subjects.rates.create(Rate(tenant_id=TENANT_ID, prefix="44", cost_per_minute_e8=200_0000))
        made = [
            subjects.tokens.create(Token("bench", Role.RATER, EVERY_TENANT))
            for _ in range(bench.size(TOKENS, 5))
        ]
        (gone, _), (known, text) = made[-3:-1]
        # Its id is as long as the known one.
        subjects.tokens.revoke(gone.id)
        secret = text.removeprefix(f"tw_{known.id}_")
        yield from _costs(bench, everything, text)
        yield _what_time_tells(bench, everything, known.id, gone.id, secret)


def _costs(bench: Workbench, everything: Application, text: str) -> Iterator[Row]:
    """RateCall between the transport and the core, by the way to identify its caller."""
    servicer = RatingServicer(everything.subjects.calls, everything.subjects.rates)
    access = AccessControl(everything.credentials, is_open=True)
    request = rating_service_pb2.RateCallRequest(
        call=types_pb2.Call(
            tenant_id=TENANT_ID,
            destination_number="442079460000",
            direction=types_pb2.DIRECTION_OUTBOUND,
            disposition=types_pb2.DISPOSITION_ANSWERED,
            duration_seconds=63,
        )
    )
    request.call.started_at.seconds = 1_772_445_600
    data = request.SerializeToString()
    count = bench.size(CALLS, 100)
    answers: list[str] = []

    def rating(pipeline: RpcPipeline, context: Any) -> Callable[[], float]:
        def work() -> None:
            for _ in range(count):
                rpc = RpcContext(METHOD, GrpcioCall(context, iter([]), print))
                with pipeline.admit(rpc):
                    answer = servicer.RateCall(data, context)
                pipeline.ended(rpc)
            answers.append(digest(answer))

        return timed(work, per=count)

    contestants = {
        "no check": rating(RpcPipeline(), Context()),
        "no token": rating(RpcPipeline(access, access.check_again), Context()),
        "token": rating(RpcPipeline(access, access.check_again), Context(f"Bearer {text}")),
    }
    in_turns(contestants, 1)  # warming up
    taken = in_turns(contestants, bench.size(9, 1))
    same = agreed("RateCall", *answers)
    for name, words in (("no token", "an open server, no token"), ("token", "a token")):
        yield compared(
            f"RateCall's handler, {words}",
            "ns",
            taken[name],
            "without a check of the caller",
            taken["no check"],
            over_baseline,
            "times that",
            digest=same,
            note="from the transport's call to the response's bytes, in one thread",
        )


def _what_time_tells(
    bench: Workbench, everything: Application, known_id: int, unknown_id: int, secret: str
) -> Row:
    """How much the time helps an attacker to find out whether a token's id exists: 0 is not at all,
    1 is certain. Beside it, the same of two sets of tokens that are wrong in the same way."""
    wrong_secret = ("A" if secret[0] != "A" else "B") + secret[1:]
    wrong = f"tw_{known_id}_{wrong_secret}"
    lots = {"unknown": f"tw_{unknown_id}_{secret}", "wrong": wrong, "wrong as well": wrong}
    refusals = {name: _refusal(everything, token) for name, token in lots.items()}
    same = agreed("what is refused", *map(digest, refusals.values()))
    told, noise, times = [], [], []
    for round_number in range(bench.size(9, 1)):
        taken = _timed_in_a_mix(everything, lots, bench.size(SAMPLES, 50), round_number)
        told.append(_advantage(taken["unknown"], taken["wrong"]))
        noise.append(_advantage(taken["wrong as well"], taken["wrong"]))
        times.append(Spread.of(taken["unknown"]).median / Spread.of(taken["wrong"]).median)
    return Row(
        "what the time reveals about a token's id",
        "of certainty",
        Spread.of(told),
        "two sets of wrong secrets",
        Spread.of(noise),
        Spread.of(times),
        "times the median time",
        budget=at_most(1.02),
        digest=same,
        note="0 is nothing, 1 certainty: by how much an unknown id takes longer, or shorter, than a"
        " wrong secret more often than not",
    )


def _refusal(everything: Application, token: str) -> str:
    try:
        everything.credentials.of_token(token)
    except Unauthenticated as error:
        return error.message
    raise AssertionError("a wrong token was accepted")


def _timed_in_a_mix(
    everything: Application, lots: dict[str, str], count: int, seed: int
) -> dict[str, list[float]]:
    """The times to refuse the tokens of each set, ``count`` times, in random order."""
    order = list(lots) * count
    random.Random(seed).shuffle(order)
    taken: dict[str, list[float]] = {name: [] for name in lots}
    of_token = everything.credentials.of_token
    for name in order:
        token = lots[name]
        started = time.perf_counter_ns()
        try:
            of_token(token)
        except Unauthenticated:
            taken[name].append(time.perf_counter_ns() - started)
    return taken


def _advantage(one: Sequence[float], other: Sequence[float]) -> float:
    """How far the chance that a value of one set is the greater one is from one half, ties halved:
    0 to 1. Only the order counts, so no outlier counts more than another."""
    ordered = sorted(other)
    beaten = sum(bisect_left(ordered, value) + bisect_right(ordered, value) for value in one)
    return abs(beaten / (len(one) * len(other)) - 1)
