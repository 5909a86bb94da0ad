"""``python -m tests.hostile.soak``: mixed work for minutes, and a check of whether anything grows.

Calls are rated, alone and in streams; records are uploaded; lists are read to their ends; rates
change; tokens, valid and invalid, are checked. Meanwhile the memory, the file descriptors and the
threads of all the server's processes are sampled. The last third of the samples is compared with
the first, after a warm-up: the exit code is 1 if one has grown by more than its limit, or if an RPC
failed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc

from tests.hostile.asking import CHANNEL_OPTIONS, PATIENCE_SECONDS
from tests.hostile.bearer import with_token
from tests.hostile.results import written
from tests.hostile.targets import SPARED_PREFIX, SPARED_TENANT_ID, Target, target
from tests.integration.client import NOON_NS, chunk, make_call, make_rate
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import types_pb2 as types
from tollwire.v1.cdr_service_pb2_grpc import CdrServiceStub
from tollwire.v1.rating_service_pb2_grpc import RatingServiceStub

# The allowed growth from the first third to the last, of all processes together. SQLite's pages and
# the allocator's arenas fill for some minutes; changed rates stay in memory until no request can
# need them.
MOST = {"bytes": 48 * 2**20, "descriptors": 24, "threads": 24}
WARM_UP_SHARE = 0.1
SAMPLES = 200
# The pause of a client between two pieces of work: the test is about growth, not about speed.
PAUSE_SECONDS = 0.01
_IMPORT_EVERY = 20


@dataclass
class Sample:
    """Of all processes together."""

    seconds: float
    bytes: int
    descriptors: int
    threads: int


@dataclass
class Outcome:
    """``growth``: from the first third's median to the last one's."""

    seconds: float
    done: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def thirds(self) -> dict[str, tuple[float, float]]:
        kept = self.samples[int(len(self.samples) * WARM_UP_SHARE) :]
        third = max(1, len(kept) // 3)
        return {
            name: (
                statistics.median(getattr(one, name) for one in kept[:third]),
                statistics.median(getattr(one, name) for one in kept[-third:]),
            )
            for name in MOST
        }

    def grown(self) -> list[str]:
        return [
            f"{name} grew from {first:.0f} to {last:.0f}, by more than {MOST[name]}"
            for name, (first, last) in self.thirds().items()
            if last - first > MOST[name]
        ]

    @property
    def passed(self) -> bool:
        return bool(self.done) and not (self.failures or self.problems or self.grown())

    def as_json(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "done": dict(self.done),
            "failures": dict(self.failures),
            "problems": self.problems,
            "thirds": self.thirds(),
            "most": MOST,
            "grown": self.grown(),
            "samples": [asdict(sample) for sample in self.samples],
        }


def soaked(asked: Target, seconds: float) -> Outcome:
    """Work for this time, and sample."""
    outcome = Outcome(seconds)
    over = threading.Event()
    lock = threading.Lock()

    def client(name: str, work: Callable[[grpc.Channel, int], None]) -> None:
        token = asked.token if name != "wrong tokens" else "tw_1_" + "A" * 43
        with grpc.insecure_channel(asked.address, CHANNEL_OPTIONS) as plain:
            channel = with_token(plain, token)
            for number in itertools.count():
                if over.wait(PAUSE_SECONDS):
                    return
                try:
                    work(channel, number)
                    code = ""
                except grpc.RpcError as error:
                    assert isinstance(error, grpc.Call)
                    code = f"{name}: {error.code().name}"
                with lock:
                    outcome.done[name] += 1
                    if code:
                        outcome.failures[code] += 1

    threads = [threading.Thread(target=client, args=one) for one in WORK.items()]
    for thread in threads:
        thread.start()
    _watch(asked, outcome, seconds)
    over.set()
    for thread in threads:
        thread.join()
    outcome.problems += asked.problems()
    return outcome


def _watch(asked: Target, outcome: Outcome, seconds: float) -> None:
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        processes = asked.processes()
        outcome.samples.append(
            Sample(
                round(now, 1),
                sum(one.memory_info().rss for one in processes),
                sum(one.num_fds() for one in processes),
                sum(one.num_threads() for one in processes),
            )
        )
        time.sleep(seconds / SAMPLES)


def _call(number: int = 0) -> types.Call:
    return make_call(SPARED_TENANT_ID, SPARED_PREFIX + "79460000", call_id=f"call {number}")


def _rate(channel: grpc.Channel, number: int) -> None:
    request = rating_pb.RateCallRequest(call=_call(), explain=number % 10 == 0)
    RatingServiceStub(channel).RateCall(request, timeout=PATIENCE_SECONDS)


def _stream(channel: grpc.Channel, number: int) -> None:
    requests = [rating_pb.StreamRateCallsRequest(calls=[_call()] * 100)] * 5
    for _ in RatingServiceStub(channel).StreamRateCalls(iter(requests), timeout=PATIENCE_SECONDS):
        pass


def _upload(channel: grpc.Channel, number: int) -> None:
    calls = [_call(50 * number + each) for each in range(50)]
    requests = [chunk(calls[:25]), chunk(calls[25:], 25)]
    for _ in CdrServiceStub(channel).UploadCdrs(iter(requests), timeout=PATIENCE_SECONDS):
        pass


def _list(channel: grpc.Channel, number: int) -> None:
    stub, token = CdrServiceStub(channel), ""
    for _ in range(5):
        request = cdr_pb.ListCdrsRequest(
            tenant_id=SPARED_TENANT_ID, page_size=100, page_token=token
        )
        token = stub.ListCdrs(request, timeout=PATIENCE_SECONDS).next_page_token
        if not token:
            return


def _change(channel: grpc.Channel, number: int) -> None:
    """A rate is created, changed and deleted; now and then as a deck."""
    stub = RatingServiceStub(channel)
    if number % _IMPORT_EVERY == 0:
        rates = [make_rate(f"7{each:03}", effective_from=NOON_NS) for each in range(200)]
        deck = rating_pb.ImportRatesRequest(
            tenant_id=SPARED_TENANT_ID, mode=types.IMPORT_MODE_MERGE, rates=rates
        )
        stub.ImportRates(iter([deck]), timeout=PATIENCE_SECONDS)
    made = make_rate("8", tenant_id=SPARED_TENANT_ID)
    rate = stub.CreateRate(rating_pb.CreateRateRequest(rate=made), timeout=PATIENCE_SECONDS)
    rate.cost_per_minute = "0.1000"
    stub.UpdateRate(rating_pb.UpdateRateRequest(rate=rate), timeout=PATIENCE_SECONDS)
    stub.DeleteRate(rating_pb.DeleteRateRequest(id=rate.id), timeout=PATIENCE_SECONDS)


def _refused(channel: grpc.Channel, number: int) -> None:
    try:
        _rate(channel, number)
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
            raise


# By its name in the results, each by a client of its own.
WORK: dict[str, Callable[[grpc.Channel, int], None]] = {
    "RateCall": _rate,
    "streams": _stream,
    "uploads": _upload,
    "lists": _list,
    "changes of rates": _change,
    "wrong tokens": _refused,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("tests.hostile.soak", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=600, help="default: 600")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory() as folder,
        target(f"sqlite:///{folder}/tollwire.db", "tokens", workers=2) as asked,
    ):
        outcome = soaked(asked, options.seconds)
    print(", ".join(f"{name} {number}" for name, number in outcome.done.items()))
    for name, (first, last) in outcome.thirds().items():
        print(f"{name:12} first third {first:12.0f}  last third {last:12.0f}  most +{MOST[name]}")
    for text in (*outcome.failures, *outcome.problems, *outcome.grown()):
        print(f"PROBLEM: {text}")
    written("soak", outcome.as_json())
    return 0 if outcome.passed else 1


if __name__ == "__main__":
    sys.exit(main())
