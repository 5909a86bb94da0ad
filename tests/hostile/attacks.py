"""Traffic on the port other than RPCs: one function for each kind; none of them is a client.

Each takes the address and an amount, and returns when all was sent or the server has closed the
connection. It does not state what the server should do: its caller does.
"""

from __future__ import annotations

import contextlib
import gzip
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import grpc

from tests.hostile import frames
from tests.hostile.frames import (
    CONTINUATION,
    END_HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Windows,
    block,
    data_frames,
    frame,
    headers,
    message,
    opening,
    request_headers,
)
from tests.hostile.targets import SPARED_TENANT_ID
from tollwire.v1.rating_service_pb2 import ImportRatesRequest
from tollwire.v1.types_pb2 import IMPORT_MODE_MERGE

# (host, port) and the amount
Attack = Callable[[tuple[str, int], int], None]
_PATIENCE_SECONDS = 20
# A tenant of targets.py.
_TENANT_ID = SPARED_TENANT_ID
_GET_CDR = "/tollwire.v1.CdrService/GetCdr"
_CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(32) + bytes(150)


@contextmanager
def _connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    """A connection that the server may close at any time."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(address, _PATIENCE_SECONDS) as line,
    ):
        yield line


def _send(address: tuple[str, int], *parts: bytes, listen_seconds: float = 0.2) -> None:
    with _connected(address) as line:
        for part in parts:
            line.sendall(part)
        line.settimeout(listen_seconds)
        while line.recv(65_536):
            pass


def other_protocols(address: tuple[str, int], much: int) -> None:
    draw = random.Random("other protocols")
    said = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /tollwire.v1.RatingService/RateCall HTTP/1.1\r\nContent-Length: 9\r\n\r\nxxxxxxxxx",
        b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n",
        _CLIENT_HELLO,
        b"SSH-2.0-x\r\n",
        bytes(5000),
        b"\xff" * 5000,
        frames.PREFACE[:10],
    ]
    for _ in range(much):
        said_now = draw.choice([*said, draw.randbytes(draw.randrange(1, 5000))])
        _send(address, said_now, listen_seconds=0.01)


def garbage_frames(address: tuple[str, int], much: int) -> None:
    draw = random.Random("garbage frames")
    for _ in range(much):
        parts = []
        for _ in range(draw.randrange(1, 20)):
            size = draw.choice((0, 1, 4, 5, 6, 8, 100))
            stream = draw.choice((0, 1, 2, 3, 2**31 - 1, 2**31))
            parts.append(
                frame(draw.randrange(12), draw.randrange(256), stream, draw.randbytes(size))
            )
        hello = draw.choice((opening(), frames.PREFACE))
        _send(address, hello, *parts, draw.randbytes(20), listen_seconds=0.01)


def continuation_flood(address: tuple[str, int], much: int) -> None:
    """Endless headers with small fields."""
    start = frame(frames.HEADERS, 0, 1, block(request_headers()))
    part = frame(CONTINUATION, 0, 1, block([("x-nobody", b"x" * 100)] * 100))
    empty = frame(CONTINUATION, 0, 1)
    _send(address, opening(), start, *[part, empty] * much)


def large_metadata(address: tuple[str, int], much: int) -> None:
    """One field of this number of KiB, over many frames."""
    fields = block(request_headers(("x-nobody", b"x" * 1024 * much)))
    parts = [fields[at : at + 16_384] for at in range(0, len(fields), 16_384)]
    sent = [frame(frames.HEADERS, 0, 1, parts[0])]
    sent += [frame(CONTINUATION, 0, 1, part) for part in parts[1:-1]]
    sent.append(frame(CONTINUATION, END_HEADERS, 1, parts[-1]))
    _send(address, opening(), *sent)


def undecodable_metadata(address: tuple[str, int], much: int) -> None:
    """RPCs with a hundred values that are not UTF-8 each, 200 a second, without a token."""
    fields = request_headers(*((f"x-{number}", b"\xff") for number in range(100)))
    with _connected(address) as line:
        line.sendall(opening())
        until = time.monotonic()
        for number in range(much):
            line.setblocking(True)
            line.sendall(headers(2 * number + 1, fields, END_HEADERS | frames.END_STREAM))
            until += 1 / 200
            time.sleep(max(0.0, until - time.monotonic()))
            line.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                line.recv(65_536)


def no_message(address: tuple[str, int], much: int) -> None:
    """This number of RPCs of each of some methods, on four connections, without their messages."""
    paths = (
        frames.RATE_CALL,
        "/tollwire.v1.RatingService/BatchRateCalls",
        "/tollwire.v1.RatingService/ExportRates",
        "/tollwire.v1.CdrService/CreateCdr",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
    )
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(_connected(address)) for _ in range(4)]
        for line in lines:
            line.sendall(opening())
        for number in range(len(paths) * much):
            fields = request_headers(path=paths[number % len(paths)])
            lines[number % 4].sendall(headers(2 * (number // 4) + 1, fields))
        time.sleep(2)


def reset_flood(address: tuple[str, int], much: int) -> None:
    """Requests that are cancelled as soon as they are made."""
    fields = block(request_headers())
    taken_back = struct.pack(">I", 8)
    parts = [
        frame(frames.HEADERS, END_HEADERS, stream, fields)
        + frame(RST_STREAM, 0, stream, taken_back)
        for stream in range(1, 2 * much, 2)
    ]
    _send(address, opening(), *parts)


def control_flood(address: tuple[str, int], much: int) -> None:
    """Endless settings, pings and windows, whose acknowledgements are not read."""
    part = frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535))
    part += frame(PING, 0, 0, bytes(8)) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1))
    with _connected(address) as line:
        line.settimeout(2)
        line.sendall(opening())
        for _ in range(much):
            line.sendall(part)


def wrong_content_types(address: tuple[str, int], much: int) -> None:
    for number in range(much):
        kind = (b"application/json", b"text/html", b"application/grpc+nobody", b"", b"\xff")
        fields = request_headers(content_type=kind[number % len(kind)])
        _send(
            address,
            opening(),
            headers(1, fields),
            data_frames(1, message(b"")),
            listen_seconds=0.05,
        )


def wrong_requests(address: tuple[str, int], much: int) -> None:
    """HTTP/2 requests that are no gRPC requests, and messages with another length than stated."""
    right = request_headers()
    said = [
        headers(1, right[2:]),
        headers(1, [(":method", b"GET"), *right[1:]]),
        headers(1, [*right, (":path", b"/x")]),
        headers(1, [*right, ("grpc-timeout", b"-1S")]),
        headers(1, [*right, ("grpc-timeout", b"99999999999999H")]),
        headers(1, [*right, ("grpc-encoding", b"nobody")]) + data_frames(1, message(b"x")),
        headers(1, [*right, ("x-nobody-bin", b"!!!")]),
        headers(1, [*right, ("UPPER", b"\x00\r\n")]),
        headers(2, right),
        headers(1, right) + data_frames(1, message(b"x", length=2**32 - 1)),
        headers(1, right) + data_frames(1, message(b"", length=100)),
        headers(1, right) + data_frames(1, b"\x00"),
        headers(1, right) + data_frames(1, b"\x07\x00\x00\x00\x01x"),
        headers(1, right) + data_frames(1, message(b"x", compressed=True)),
        headers(1, right) + headers(1, right),
    ]
    for number in range(much):
        _send(address, opening(), said[number % len(said)], listen_seconds=0.02)


def large_message(address: tuple[str, int], much: int) -> None:
    """One message of this number of MiB."""
    _say_at_once(address, bytes(much * 2**20), grpc.Compression.NoCompression, times=1)


def compressed_bombs(address: tuple[str, int], much: int) -> None:
    """A few messages that are this number of MiB when decompressed, and a thousandth before."""
    _say_at_once(address, bytes(much * 2**20), grpc.Compression.Gzip, times=4)


def many_bombs(address: tuple[str, int], much: int) -> None:
    """This number of messages at once, each on a connection of its own: 31 KiB that are 31 MiB when
    decompressed, for a method with small requests."""
    unpacked = message(gzip.compress(bytes(31 * 2**20)), compressed=True)
    fields = request_headers(("grpc-encoding", b"gzip"), path=_GET_CDR)
    said = opening() + headers(1, fields) + data_frames(1, unpacked)
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(_connected(address)) for _ in range(much)]
        for line in lines:
            with contextlib.suppress(OSError):
                line.sendall(said)
        time.sleep(3)


def many_large_messages(address: tuple[str, int], much: int) -> None:
    """This number of messages of 31 MiB at once, each on a connection of its own, for a method with
    small requests; none is complete."""
    senders = [
        threading.Thread(target=_send_unfinished, args=(address, 31 * 2**20)) for _ in range(much)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()


def _send_unfinished(address: tuple[str, int], size: int) -> None:
    """One message without its last byte, as fast as the server's windows allow, and hold it."""
    head = message(b"", length=size)
    until = time.monotonic() + 5
    with _connected(address) as line:
        line.sendall(opening() + headers(1, request_headers(path=_GET_CDR)))
        line.sendall(frame(frames.DATA, 0, 1, head))
        windows = Windows(len(head))
        left = size - 1
        line.settimeout(0.2)
        while time.monotonic() < until and not windows.is_over:
            while left and (part := min(16_384, left, windows.room)) > 0:
                line.sendall(frame(frames.DATA, 0, 1, bytes(part)))
                windows.use(part)
                left -= part
            with contextlib.suppress(TimeoutError):
                if not windows.read(line.recv(65_536)):
                    return


def _say_at_once(
    address: tuple[str, int], data: bytes, compression: grpc.Compression, times: int
) -> None:
    """By a client that obeys all rules of HTTP/2: otherwise the server closes the connection
    early."""
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"{address[0]}:{address[1]}", options) as channel:
        method = channel.unary_unary(frames.RATE_CALL)
        asked = [
            method.future(data, timeout=5 * _PATIENCE_SECONDS, compression=compression)
            for _ in range(times)
        ]
        for call in asked:
            with contextlib.suppress(grpc.RpcError):
                call.result()


def empty_records(address: tuple[str, int], much: int) -> None:
    """Messages of this number of empty rates, and of empty calls: each takes the server many times
    as long as its two bytes. Some of the clients leave before the answer."""
    head = ImportRatesRequest(tenant_id=_TENANT_ID, mode=IMPORT_MODE_MERGE).SerializeToString()
    rates = head + b"\x22\x00" * much
    uploads = [b"\x1a\x00" * 10_000, b"\x1a\x00" * much]
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    for seconds in (0.05, _PATIENCE_SECONDS):
        with grpc.insecure_channel(f"{address[0]}:{address[1]}", options) as channel:
            imports = channel.stream_unary(frames.IMPORT_RATES)
            batches = channel.unary_unary(frames.BATCH_RATE_CALLS)
            upload = channel.stream_stream(frames.UPLOAD_CDRS)
            asked = [
                imports.future(iter([rates, rates]), timeout=seconds),
                batches.future(b"\x0a\x00" * 10_000, timeout=seconds),
                batches.future(b"\x0a\x00" * much, timeout=seconds),
            ]
            with contextlib.suppress(grpc.RpcError):
                list(upload(iter(uploads), timeout=seconds))
            for call in asked:
                with contextlib.suppress(grpc.RpcError):
                    call.result()


def slow_headers(address: tuple[str, int], much: int) -> None:
    """This number of connections that send a byte now and then."""
    _hold(address, much, opening()[:30] + headers(1, request_headers()), seconds=3)


def idle_connections(address: tuple[str, int], much: int) -> None:
    """This number of connections that send nothing."""
    _hold(address, much, b"", seconds=1)


def _hold(address: tuple[str, int], much: int, said: bytes, seconds: float) -> None:
    with contextlib.ExitStack() as stack:
        lines = []
        for _ in range(much):
            with contextlib.suppress(OSError):
                line = socket.create_connection(address, _PATIENCE_SECONDS)
                lines.append(stack.enter_context(line))
        until, at = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            for line in lines:
                with contextlib.suppress(OSError):
                    line.sendall(said[at : at + 1])
            at += 1
            threading.Event().wait(0.05)


# The attacks: the amount in the short form, and in the long one.
ATTACKS: Mapping[str, tuple[Attack, int, int]] = MappingProxyType(
    {
        "other protocols": (other_protocols, 30, 2_000),
        "garbage frames": (garbage_frames, 30, 2_000),
        "CONTINUATION flood": (continuation_flood, 500, 10_000),
        "metadata, KiB": (large_metadata, 1024, 65_536),
        "metadata not UTF-8, RPCs": (undecodable_metadata, 200, 10_000),
        "RPCs without message": (no_message, 100, 600),
        "RST_STREAM flood": (reset_flood, 2_000, 100_000),
        "SETTINGS and PING flood": (control_flood, 5_000, 500_000),
        "wrong content types": (wrong_content_types, 5, 100),
        "wrong requests": (wrong_requests, 15, 600),
        "a message, MiB": (large_message, 40, 1_000),
        "compressed bombs, MiB": (compressed_bombs, 40, 1_000),
        "empty records": (empty_records, 100_000, 5_000_000),
        "compressed messages": (many_bombs, 32, 128),
        "messages of 31 MiB": (many_large_messages, 8, 64),
        "slow headers": (slow_headers, 100, 1_000),
        "connections": (idle_connections, 300, 10_000),
    }
)
