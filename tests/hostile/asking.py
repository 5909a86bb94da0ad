"""Sends unusual and malformed RPCs to a server, and counts the results.

Each input is an RPC: a method, the bytes of its messages, metadata. For every input the server must
answer with a code of the contract, in time, and not with INTERNAL or UNKNOWN.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from tests.hostile.drawing import Drawer, Known
from tests.hostile.reflected import Method

Metadata = tuple[tuple[str, str | bytes], ...]

# A server without a response by then is considered to hang.
PATIENCE_SECONDS = 60
# The number of responses that are read, and of those whose ids are remembered.
_READ = 200
_LEARNT = 3
# Streams that last as long as the client wants, after an immediate first response; WatchCdrs only
# with follow.
_ENDLESS = frozenset({"Watch"})
NEVER = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
]


@dataclass(frozen=True, slots=True)
class Input:
    """One RPC to send.

    ``deadline_seconds`` 0: PATIENCE_SECONDS. ``cancel``: its client leaves after the first
    response.
    """

    method: Method
    messages: tuple[bytes, ...]
    metadata: Metadata = ()
    deadline_seconds: float = 0
    compression: grpc.Compression = grpc.Compression.NoCompression
    cancel: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "method": self.method.path,
            "messages": [data.hex() for data in self.messages],
            "metadata": [[key, repr(value)] for key, value in self.metadata],
            "deadline_seconds": self.deadline_seconds,
            "compression": self.compression.name,
            "cancel": self.cancel,
        }


@dataclass
class Counts:
    """The results of the inputs. Thread-safe."""

    codes: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def inputs(self) -> int:
        return self.codes.total()

    def add(self, asked: Input, code: grpc.StatusCode, details: str) -> None:
        with self.lock:
            self.codes[code.name] += 1
            self.methods[asked.method.path] += 1
            hangs = code is grpc.StatusCode.DEADLINE_EXCEEDED and not asked.deadline_seconds
            if code in NEVER or hangs:
                self.findings.append(
                    {"code": code.name, "details": details[:1000], **asked.as_json()}
                )


def draw_input(
    methods: Sequence[Method], drawer: Drawer, tokens: Sequence[str], draw: random.Random
) -> Input:
    method = draw.choice(methods)
    number = draw.choice((0, 1, 1, 2, 3, 8)) if method.client_streaming else 1
    if not method.client_streaming and draw.random() < 0.02:
        number = draw.choice((0, 2))
    return Input(
        method,
        tuple(drawer.request(method.input_type, draw) for _ in range(number)),
        _metadata(tokens, draw),
        draw.choice((0.0001, 0.005, 0.05)) if draw.random() < 0.02 else 0,
        draw.choice((grpc.Compression.Gzip, grpc.Compression.Deflate))
        if draw.random() < 0.05
        else grpc.Compression.NoCompression,
        draw.random() < 0.02,
    )


_ODD_METADATA: tuple[tuple[str, str | bytes], ...] = (
    ("x-request-id", ""),
    ("x-request-id", "x" * 3000),
    ("x-request-id", " a  b "),
    ("x-request-id", "~!@#$%^&*()"),
    ("x-request-id-bin", b"\x00\xff\n"),
    ("x-nobody-bin", b"\xff" * 2000),
    ("x-nobody", ""),
    ("traceparent", "00-" + "f" * 32 + "-" + "0" * 16 + "-ff"),
    ("traceparent", "not-one"),
    ("tracestate", "=,=,="),
    ("baggage", "a=%ff,b"),
    ("grpc-previous-rpc-attempts", "-1"),
    ("cookie", "a=b"),
    ("content-length", "-1"),
    ("x-forwarded-for", "127.0.0.1"),
)
_ODD_CREDENTIALS = (
    *("", "Bearer", "Bearer ", "bearer x", "Basic YTpi", "Bearer tw_", "Bearer tw_1_", "tw_1_x"),
    *("Bearer tw_0_" + "A" * 43, "Bearer tw_" + "9" * 40 + "_" + "A" * 43, "Bearer tw_-1_x"),
    *("Bearer " + "x" * 4000, "Bearer tw_1_" + "A" * 43, "Bearer tw_1_A Bearer tw_1_B"),
)


def _metadata(tokens: Sequence[str], draw: random.Random) -> Metadata:
    items: list[tuple[str, str | bytes]] = []
    if draw.random() < 0.1:
        items += draw.choices(_ODD_METADATA, k=draw.choice((1, 1, 2, 5)))
    way = draw.random()
    if tokens and way < 0.95:
        # The first one has all rights.
        token = tokens[0] if way < 0.7 else draw.choice(tokens)
        items.append(("authorization", f"Bearer {token}"))
    if draw.random() < 0.03:
        items.append(("authorization", draw.choice(_ODD_CREDENTIALS)))
    return tuple(items)


def ask(channel: grpc.Channel, asked: Input, known: Known | None = None) -> tuple[Any, str]:
    """The code and details of the response. All inputs are sent as streams: they look the same on
    the wire, and may have no message or too many."""
    call = channel.stream_stream(asked.method.path)(
        iter(asked.messages),
        timeout=asked.deadline_seconds or PATIENCE_SECONDS,
        metadata=asked.metadata,
        compression=asked.compression,
    )
    most = 1 if asked.cancel or _is_endless(asked) else _READ
    try:
        answers = list(islice(call, most))
        if len(answers) == most:
            call.cancel()
        code, details = call.code(), call.details() or ""
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        answers, code, details = [], error.code(), error.details() or ""
    if known is not None:
        kind = GetMessageClass(asked.method.output_type)
        for data in answers[:_LEARNT]:
            with contextlib.suppress(DecodeError):
                known.learn(kind.FromString(data))
    return code, details


def _is_endless(asked: Input) -> bool:
    if asked.method.name != "WatchCdrs":
        return asked.method.name in _ENDLESS
    kind: Any = GetMessageClass(asked.method.input_type)
    with contextlib.suppress(DecodeError):
        return any(kind.FromString(data).follow for data in asked.messages)
    return False


@dataclass(frozen=True, slots=True)
class Effort:
    """The duration of the test, by this number of clients at one time: until the first of both
    limits is reached."""

    seconds: float
    inputs: int = 2**62
    clients: int = 4


def ask_at_random(
    address: str,
    methods: Sequence[Method],
    known: Known,
    tokens: Sequence[str],
    spares: Callable[[Input], bool],
    effort: Effort,
    seed: str,
) -> Counts:
    """``spares``: whether an input is left out, because it would end the run itself."""
    counts = Counts()
    drawer = Drawer(known)
    until = time.monotonic() + effort.seconds

    def client(number: int) -> None:
        draw = random.Random(f"{seed}/{number}")
        with grpc.insecure_channel(address, CHANNEL_OPTIONS) as channel:
            for _ in range(-(-effort.inputs // effort.clients)):
                if time.monotonic() > until:
                    return
                asked = draw_input(methods, drawer, tokens, draw)
                if not spares(asked):
                    counts.add(asked, *ask(channel, asked, known))

    with ThreadPoolExecutor(effort.clients) as pool:
        list(pool.map(client, range(effort.clients)))
    return counts
