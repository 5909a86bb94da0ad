"""The client of the benchmarks, in its own process, so that it does not use the servers' time.

``python -m benchmarks.load`` reads its work as JSON from standard input (one of the functions below
and its arguments) and writes the measurements as JSON to standard output. Requests come from files,
serialised beforehand, and responses are read only as far as the measurement needs.
"""

from __future__ import annotations

import gc
import itertools
import json
import secrets
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import grpc

from benchmarks import frames_client
from benchmarks.machine import REPOSITORY
from benchmarks.serving import environment
from benchmarks.workload import chunk_header
from tollwire.v1.cdr_service_pb2 import UploadCdrsResponse

# RPCs on serialised messages.
Unary = Callable[..., bytes]
StreamStream = Callable[[Iterator[bytes]], Iterator[bytes]]

_RATING = "/tollwire.v1.RatingService/"
_CDR = "/tollwire.v1.CdrService/"
_LENGTH = struct.Struct("<Q")
# A placeholder in the call_ids of chunks that are sent repeatedly; each time another number
# replaces it.
ROUND_TAG = b"-round--"


def write_messages(path: Path, messages: Sequence[bytes]) -> None:
    path.write_bytes(b"".join(_LENGTH.pack(len(message)) + message for message in messages))


def read_messages(path: str) -> list[bytes]:
    data, position, messages = Path(path).read_bytes(), 0, []
    while position < len(data):
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        messages.append(data[position : position + length])
        position += length
    return messages


def run(work: str, **arguments: Any) -> Any:
    """Do ``work`` in another process; return its measurements."""
    return Background(work, **arguments).result()


class Background:
    """Like ``run``, while the caller does something else."""

    def __init__(self, work: str, **arguments: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=environment(),
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([work, arguments]) + "\n")
        self._process.stdin.flush()

    def wait_until_started(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def result(self) -> Any:
        output, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError("the load generator failed; its output is on standard error")
        return json.loads(output.splitlines()[-1])


@contextmanager
def channel(address: str) -> Iterator[grpc.Channel]:
    """A new connection."""
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_http_proxy", 0),
    ]
    with grpc.insecure_channel(address, options=options) as opened:
        grpc.channel_ready_future(opened).result(30)
        yield opened


def stream_stream(opened: grpc.Channel, method: str) -> StreamStream:
    return cast(StreamStream, opened.stream_stream(method))


def stream(
    targets: dict[str, str], messages: str, window: int, seconds: float, repetitions: int
) -> dict[str, list[float]]:
    """Messages a second through one StreamRateCalls stream to each target, alternately, with
    ``window`` of them in flight."""
    payloads = read_messages(messages)
    taken: dict[str, list[float]] = {name: [] for name in targets}
    for repetition in range(-1, repetitions):
        names = list(targets) if repetition % 2 else list(reversed(targets))
        for name in names:
            with channel(targets[name]) as opened:
                method = stream_stream(opened, _RATING + "StreamRateCalls")
                rate = _pump(method, payloads, window, seconds)
            if repetition >= 0:  # until then it warms up
                taken[name].append(rate)
    return taken


def _pump(
    method: StreamStream,
    payloads: Sequence[bytes],
    window: int,
    seconds: float,
) -> float:
    slots = threading.Semaphore(window)
    started = time.perf_counter()

    def requests() -> Iterator[bytes]:
        for payload in itertools.cycle(payloads):
            slots.acquire()
            if time.perf_counter() - started > seconds:
                return
            yield payload

    answered = 0
    for _ in method(requests()):
        answered += 1
        slots.release()
    return answered / (time.perf_counter() - started)


def unary(
    address: str,
    method: str,
    messages: str,
    in_flight: int,
    connections: int,
    seconds: float,
    per_second: float,
) -> dict[str, Any]:
    """A unary RPC by ``in_flight`` threads over ``connections`` connections: as fast as possible,
    or ``per_second`` in all if that is not 0. The latency of each RPC in milliseconds, from the
    moment of sending. ROUND_TAG in a message becomes another text each time."""
    payloads = read_messages(messages)
    is_tagged = ROUND_TAG in payloads[0]
    gc.disable()
    with _channels(address, connections) as opened:
        methods: list[Unary] = [one.unary_unary(f"/tollwire.v1.{method}") for one in opened]
        started = time.perf_counter()
        print(flush=True)

        def send(thread: int) -> list[float]:
            call = methods[thread % connections]
            latencies: list[float] = []
            for turn in itertools.count():
                due = started
                if per_second:
                    due += (turn * in_flight + thread) / per_second
                    time.sleep(max(0.0, due - time.perf_counter()))
                sent = time.perf_counter()
                if sent - started >= seconds:
                    return latencies
                payload = payloads[(turn * in_flight + thread) % len(payloads)]
                if is_tagged:
                    payload = payload.replace(ROUND_TAG, secrets.token_hex(4).encode())
                call(payload, timeout=60)
                latencies.append((time.perf_counter() - sent) * 1000)
            raise AssertionError

        with ThreadPoolExecutor(in_flight) as pool:
            latencies = list(itertools.chain.from_iterable(pool.map(send, range(in_flight))))
        took = time.perf_counter() - started
    return {"per_second": len(latencies) / took, "latencies_ms": latencies}


def unary_frames(
    address: str, method: str, messages: str, in_flight: int, seconds: float
) -> dict[str, Any]:
    """As ``unary`` over one connection, by a client that takes far less processor time."""
    payloads = read_messages(messages)
    tag = ROUND_TAG if ROUND_TAG in payloads[0] else b""
    gc.disable()
    per_second, latencies = frames_client.send(
        address, f"/tollwire.v1.{method}", payloads, tag, in_flight, seconds
    )
    return {"per_second": per_second, "latencies_ms": latencies}


@contextmanager
def _channels(address: str, count: int) -> Iterator[list[grpc.Channel]]:
    if count == 0:
        yield []
        return
    with channel(address) as first, _channels(address, count - 1) as others:
        yield [first, *others]


def upload(address: str, messages: str, chunk_calls: int, window: int) -> dict[str, Any]:
    """One upload of all chunks: seconds from sending the first chunk to the last response, and the
    server's totals."""
    chunks = read_messages(messages)
    totals = {"created": 0, "duplicates": 0, "conflicts": 0, "rejected": 0, "unrated": 0}
    with channel(address) as opened:
        started = time.perf_counter()
        for answer in _upload(opened, iter(chunks), chunk_calls, window):
            for name in totals:
                totals[name] += getattr(answer, name)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "committed": answer.committed_offset, **totals}


def uploads(
    address: str, messages: str, chunk_calls: int, window: int, streams: int, seconds: float
) -> dict[str, float]:
    """``streams`` uploads at once, as fast as possible for some time, each over its own connection.
    Every chunk is new: the round's number replaces ROUND_TAG."""
    templates = read_messages(messages)
    rounds = itertools.count()
    started = time.perf_counter()
    print(flush=True)

    def chunks() -> Iterator[bytes]:
        for template in itertools.cycle(templates):
            if time.perf_counter() - started >= seconds:
                return
            yield template.replace(ROUND_TAG, b"%08x" % next(rounds))

    def send(number: int) -> int:
        with channel(address) as opened:
            return sum(answer.created for answer in _upload(opened, chunks(), chunk_calls, window))

    with ThreadPoolExecutor(streams) as pool:
        created = sum(pool.map(send, range(streams)))
    return {"created": created, "per_second": created / (time.perf_counter() - started)}


def _upload(
    opened: grpc.Channel, chunks: Iterator[bytes], chunk_calls: int, window: int
) -> Iterator[UploadCdrsResponse]:
    slots = threading.Semaphore(window)

    def requests() -> Iterator[bytes]:
        # The upload of the stream is the one that its first message starts.
        for number, chunk in enumerate(chunks):
            slots.acquire()
            yield chunk_header(0, number * chunk_calls) + chunk

    method = stream_stream(opened, _CDR + "UploadCdrs")
    for data in method(requests()):
        slots.release()
        yield UploadCdrsResponse.FromString(data)


def main() -> None:
    work, arguments = json.loads(sys.stdin.readline())
    functions: dict[str, Callable[..., Any]] = {
        "stream": stream,
        "unary": unary,
        "unary_frames": unary_frames,
        "upload": upload,
        "uploads": uploads,
    }
    print(json.dumps(functions[work](**arguments)))


if __name__ == "__main__":
    main()
