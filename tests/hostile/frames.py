"""HTTP/2 frames, correct or wrong: a library would refuse to write some of these."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1

RATE_CALL = "/tollwire.v1.RatingService/RateCall"
BATCH_RATE_CALLS = "/tollwire.v1.RatingService/BatchRateCalls"
IMPORT_RATES = "/tollwire.v1.RatingService/ImportRates"
UPLOAD_CDRS = "/tollwire.v1.CdrService/UploadCdrs"
Header = tuple[str, bytes]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def opening() -> bytes:
    """The first bytes of a client."""
    return PREFACE + frame(SETTINGS, 0, 0)


def block(headers: Iterable[Header]) -> bytes:
    """Header fields, none of them indexed or compressed."""
    return b"".join(
        b"\x00" + _length(len(name)) + name.encode() + _length(len(value)) + value
        for name, value in headers
    )


def _length(value: int) -> bytes:
    if value < 127:
        return bytes([value])
    out, value = bytearray([127]), value - 127
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def request_headers(
    *more: Header, path: str = RATE_CALL, content_type: bytes = b"application/grpc"
) -> list[Header]:
    return [
        (":method", b"POST"),
        (":scheme", b"http"),
        (":path", path.encode()),
        (":authority", b"localhost"),
        ("te", b"trailers"),
        ("content-type", content_type),
        *more,
    ]


def headers(stream: int, fields: Sequence[Header], flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, block(fields))


def message(data: bytes, *, compressed: bool = False, length: int | None = None) -> bytes:
    """A gRPC message; ``length``: the length that it states."""
    return struct.pack(">BI", compressed, len(data) if length is None else length) + data


def data_frames(stream: int, data: bytes, *, end: bool = True) -> bytes:
    """In frames of the smallest size that every server accepts."""
    parts = [data[at : at + 16_384] for at in range(0, len(data), 16_384)] or [b""]
    last = len(parts) - 1
    return b"".join(
        frame(DATA, END_STREAM if end and number == last else 0, stream, part)
        for number, part in enumerate(parts)
    )


class Windows:
    """What a client may send on its connection and on its stream 1, by the frames of the server."""

    def __init__(self, sent: int) -> None:
        """``sent``: the bytes of data that are sent already."""
        # The server's settings do not count, because this client does not acknowledge them.
        self._connection = self._stream = 65_535 - sent
        self._unread = b""
        # The stream or the connection has ended.
        self.is_over = False

    @property
    def room(self) -> int:
        return min(self._connection, self._stream)

    def use(self, size: int) -> None:
        self._connection -= size
        self._stream -= size

    def read(self, received: bytes) -> bool:
        """Take what the server has sent; False at its end."""
        self._unread += received
        while len(self._unread) >= 9:
            size = int.from_bytes(self._unread[:3])
            if len(self._unread) < 9 + size:
                break
            kind, flags, stream = struct.unpack(">BBI", self._unread[3:9])
            self._take(kind, flags, stream, self._unread[9 : 9 + size])
            self._unread = self._unread[9 + size :]
        return bool(received)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            more = int.from_bytes(payload)
            self._connection += more if not stream else 0
            self._stream += more if stream else 0
        elif kind in (GOAWAY, RST_STREAM) or (kind in (DATA, HEADERS) and flags & END_STREAM):
            self.is_over = True
