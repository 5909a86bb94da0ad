"""A client of one unary RPC that writes and reads the frames of HTTP/2 itself.

It needs a few microseconds of processor time a call, a tenth of ghz, and each request can have
another call_id, which h2load cannot. It sends over one connection, in a process of its own (see
load.py), and checks only that each answer has a message and ends: errors have no message.
"""

from __future__ import annotations

import secrets
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from itertools import count, cycle

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME = struct.Struct(">IBI")  # length and type, flags, stream
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
# The window of the connection: more than the answers of a run.
_WINDOW_BYTES = 2**30


def send(
    address: str, path: str, messages: Sequence[bytes], tag: bytes, in_flight: int, seconds: float
) -> tuple[float, list[float]]:
    """Calls a second, and the latency of each in milliseconds. ``tag`` in a message becomes another
    text of the same length each time."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 30) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Connection(line, _requests(path, address, messages, tag)).run(in_flight, seconds)


def _requests(
    path: str, address: str, messages: Sequence[bytes], tag: bytes
) -> Iterator[tuple[int, bytes]]:
    """The stream and the frames of one request after the other."""
    fields = (
        *((b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode())),
        *((b":authority", address.encode()), (b"te", b"trailers")),
        (b"content-type", b"application/grpc"),
    )
    block = b"".join(
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields
    )
    run = secrets.token_hex(len(tag)).encode()
    for stream, number, message in zip(count(1, 2), count(), cycle(messages), strict=False):
        text = b"%0*x" % (len(tag), number)
        data = message.replace(tag, run[: len(tag)], 1).replace(tag, text) if tag else message
        yield (
            stream,
            _FRAME.pack(len(block) << 8 | _HEADERS, _END_HEADERS, stream)
            + block
            + _FRAME.pack(len(data) + 5 << 8 | _DATA, _END_STREAM, stream)
            + b"\0"
            + len(data).to_bytes(4, "big")
            + data,
        )


class _Connection:
    def __init__(self, line: socket.socket, requests: Iterator[tuple[int, bytes]]) -> None:
        self._line = line
        self._requests = requests
        self._out: list[bytes] = []
        self._sent_at: dict[int, float] = {}
        self._answered: set[int] = set()
        self._latencies_ms: list[float] = []

    def run(self, in_flight: int, seconds: float) -> tuple[float, list[float]]:
        self._out += [_PREFACE, _FRAME.pack(_SETTINGS, 0, 0)]
        self._out += [_FRAME.pack(4 << 8 | _WINDOW_UPDATE, 0, 0), _WINDOW_BYTES.to_bytes(4, "big")]
        started = time.perf_counter()
        for _ in range(in_flight):
            self._start()
        unread = b""
        while self._sent_at:
            self._line.sendall(b"".join(self._out))
            self._out.clear()
            received = self._line.recv(1 << 18)
            if not received:
                raise RuntimeError("the server has closed the connection")
            unread = self._read(unread + received, time.perf_counter() - started < seconds)
        took = time.perf_counter() - started
        return len(self._latencies_ms) / took, self._latencies_ms

    def _start(self) -> None:
        stream, frames = next(self._requests)
        self._sent_at[stream] = time.perf_counter()
        self._out.append(frames)

    def _read(self, data: bytes, goes_on: bool) -> bytes:
        """Handle the whole frames. Returns the rest."""
        at = 0
        while at + 9 <= len(data):
            head, flags, stream = _FRAME.unpack_from(data, at)
            end = at + 9 + (head >> 8)
            if end > len(data):
                break
            self._handle(head & 0xFF, flags, stream, data[at + 9 : end], goes_on)
            at = end
        return data[at:]

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes, goes_on: bool) -> None:
        if kind == _DATA and payload:
            self._answered.add(stream)
        elif kind == _HEADERS and flags & _END_STREAM:
            if stream not in self._answered:
                raise RuntimeError("a call has failed")
            self._answered.remove(stream)
            sent_at = self._sent_at.pop(stream)
            self._latencies_ms.append((time.perf_counter() - sent_at) * 1000)
            if goes_on:
                self._start()
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            size = 0 if kind == _SETTINGS else len(payload)
            self._out.append(_FRAME.pack(size << 8 | kind, _ACK, 0) + payload[:size])
        elif kind in (_RST_STREAM, _GOAWAY):
            raise RuntimeError(f"the server has ended a call: frame {kind} {payload!r}")
