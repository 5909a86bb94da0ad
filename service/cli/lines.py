"""The lines of a text file, one by one, numbered from 1, in bounded memory.

A line ends with LF, CRLF or CR. gzip is decompressed; other compressed, binary and UTF-16 files are
refused by name. The readers of CSV and of JSON lines interpret the lines.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

MAX_LINE_BYTES = 1024 * 1024
_BLOCK_BYTES = 256 * 1024
_GZIP = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# The first bytes of a file, its type, and what to do.
_OTHER_FILES = (
    (b"PK\x03\x04", "an Excel workbook (xlsx) or another zip file; save it as CSV in UTF-8"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (xls); save it as CSV in UTF-8"),
    (b"\xff\xfe\x00\x00", "in UTF-32; save it in UTF-8"),
    (b"\xff\xfe", "in UTF-16; save it in UTF-8"),
    (b"\xfe\xff", "in UTF-16; save it in UTF-8"),
    (b"BZh", "compressed with bzip2; decompress it first (only gzip is decompressed)"),
    (b"\xfd7zXZ\x00", "compressed with xz; decompress it first (only gzip is decompressed)"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; decompress it first (only gzip is decompressed)"),
    (b"PAR1", "a Parquet file; export it as CSV in UTF-8"),
    (b"%PDF", "a PDF document"),
)


class BadFile(ValueError):
    """The file as a whole cannot be read."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A record that cannot be read: the reason, and its bytes in the file without the line end, up
    to MAX_LINE_BYTES."""

    message: str
    content: bytes


# The number of a line, its bytes, and the reason why it cannot be read, or "".
Line = tuple[int, bytes, str]


class Lines:
    """The lines of a file, including blank ones; with line ends if ``keep_ends``. ``count``: the
    number of lines read so far. BadFile if the file is not a text file: before the first line,
    except for a damaged gzip file."""

    def __init__(self, stream: BinaryIO, *, keep_ends: bool = False) -> None:
        self._stream = stream
        self._keep_ends = keep_ends
        self.count = 0

    def __iter__(self) -> Iterator[Line]:
        for number, line in enumerate(_split(_text(_blocks(self._stream)), self._keep_ends), 1):
            self.count = number
            if len(line) > MAX_LINE_BYTES and len(line.rstrip(b"\r\n")) > MAX_LINE_BYTES:
                yield number, line[:MAX_LINE_BYTES], f"is longer than {MAX_LINE_BYTES:,} bytes"
            else:
                yield number, line, ""


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    # From a pipe this reads the bytes that have arrived, without waiting for a full block.
    read = getattr(stream, "read1", stream.read)
    while block := _read(read):
        yield block


def _read(read: Callable[[int], bytes]) -> bytes:
    try:
        return read(_BLOCK_BYTES)
    except OSError as error:
        raise BadFile(f"cannot be read: {error.strerror or error}") from None


def _text(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The blocks of text: decompressed, and without the byte order mark."""
    start = _start(blocks)
    if start.startswith(_GZIP):
        blocks = _unzipped(_chained(start, blocks))
        start = _start(blocks)
    for magic, name in _OTHER_FILES:
        if start.startswith(magic):
            raise BadFile(f"the file is {name}")
    # A damaged line may contain a NUL; many NULs mean another type of file.
    if start.count(0) > len(start) // 8:
        raise BadFile("the file is binary or in UTF-16; it must be text in UTF-8")
    return _chained(start.removeprefix(_BYTE_ORDER_MARK), blocks)


def _start(blocks: Iterator[bytes]) -> bytes:
    """The first bytes of the file, enough to recognise its type."""
    start = b""
    for block in blocks:
        start += block
        if len(start) >= 8:
            break
    return start


def _chained(start: bytes, blocks: Iterable[bytes]) -> Iterator[bytes]:
    if start:
        yield start
    yield from blocks


def _unzipped(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The decompressed content of a gzip file, which may have several members."""
    member = zlib.decompressobj(wbits=31)
    try:
        for block in blocks:
            packed, full = block, False
            while packed or full:
                if member.eof:
                    if not packed.strip(b"\0"):  # padding
                        break
                    member = zlib.decompressobj(wbits=31)
                text = member.decompress(packed, _BLOCK_BYTES)
                yield text
                packed = member.unused_data if member.eof else member.unconsumed_tail
                full = len(text) == _BLOCK_BYTES and not member.eof
    except zlib.error as error:
        raise BadFile(f"the gzip file is damaged: {error}") from None
    if not member.eof:
        raise BadFile("the gzip file ends early: a part of it is missing")


def _split(blocks: Iterable[bytes], keep_ends: bool) -> Iterator[bytes]:
    """The lines. A line that is too long may be cut, but stays longer than MAX_LINE_BYTES."""
    rest = b""
    for block in blocks:
        # A CR at the end of a block may be the first half of CRLF, so it is kept for the next
        # block.
        held = block.endswith(b"\r")
        data = rest + (block[:-1] if held else block)
        lines = data.splitlines(keep_ends)
        complete = data.endswith((b"\n", b"\r"))
        rest = b"" if complete or not lines else lines.pop()[: MAX_LINE_BYTES + 1]
        yield from lines
        if held:
            rest += b"\r"
    yield from rest.splitlines(keep_ends)
