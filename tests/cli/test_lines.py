"""Lines of files: all line ends, any content, and text files only."""

from __future__ import annotations

import gzip
import io
import random
import tracemalloc
from typing import BinaryIO, cast

import pytest

from tollwire.service.cli.lines import _BLOCK_BYTES, MAX_LINE_BYTES, BadFile, Line, Lines


class Dripping(io.BytesIO):
    """Returns a few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._size = size

    def read1(self, size: int | None = -1) -> bytes:
        return super().read1(self._size)


def lines(data: bytes, *, size: int = 0, keep_ends: bool = False) -> list[Line]:
    stream = Dripping(data, size) if size else io.BytesIO(data)
    return list(Lines(cast(BinaryIO, stream), keep_ends=keep_ends))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 5])
def test_every_line_end_and_their_mixtures(size: int) -> None:
    data = b"a\nb\r\nc\rd\r\r\ne\n\nf\x0bg\x85"
    given = [b"a", b"b", b"c", b"d", b"", b"e", b"", b"f\x0bg\x85"]
    assert lines(data, size=size) == [(n, line, "") for n, line in enumerate(given, 1)]
    assert b"".join(line for _, line, _ in lines(data, size=size, keep_ends=True)) == data


def test_lines_do_not_depend_on_how_they_arrive() -> None:
    drawn = random.Random(7)
    for _ in range(300):
        data = b"".join(
            drawn.choice([b"\r", b"\n", b"\r\n", b"ab", b"x" * 9])
            for _ in range(drawn.randrange(40))
        )
        expected = list(enumerate(data.splitlines(), 1))
        for size in (0, 1, 2, 7):
            assert [(n, line) for n, line, _ in lines(data, size=size)] == expected


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_carriage_return_at_the_end_of_a_block(end: bytes) -> None:
    for length in range(_BLOCK_BYTES - 3, _BLOCK_BYTES + 2):
        data = b"x" * length + end + b"y"
        assert [line for _, line, _ in lines(data)] == [b"x" * length, b"y"]


def test_the_longest_line() -> None:
    longest = b"x" * MAX_LINE_BYTES
    for end in (b"\n", b"\r\n", b""):
        assert lines(longest + end, keep_ends=True) == [(1, longest + end, "")]
    too_long, after = lines(longest + b"x\nafter\n")
    assert too_long == (1, longest, "is longer than 1,048,576 bytes")
    assert after == (2, b"after", "")


def test_a_file_without_line_ends_takes_no_memory() -> None:
    class Endless(io.RawIOBase):
        left = 64

        def read1(self, size: int) -> bytes:
            self.left -= 1
            return b"x" * MAX_LINE_BYTES if self.left else b""

    tracemalloc.start()
    try:
        assert [wrong for *_, wrong in Lines(cast(BinaryIO, Endless()))] != [""]
        assert tracemalloc.get_traced_memory()[1] < 12 * MAX_LINE_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [0, 1, 7])
def test_all_members_of_a_gzip_file_are_read(size: int) -> None:
    packed = gzip.compress(b"\xef\xbb\xbfa\nb") + gzip.compress(b"c\n") + b"\0" * 512
    assert lines(packed, size=size) == [(1, b"a", ""), (2, b"bc", "")]
    much = gzip.compress(b"x" * 999 + b"\n" + b"\n" * 500_000)
    assert len(much) < 2_000
    assert sum(1 for _ in Lines(io.BytesIO(much))) == 500_001


def test_a_damaged_gzip_file_is_named() -> None:
    packed = gzip.compress(random.Random(1).randbytes(9).hex().encode() * 20_000)
    with pytest.raises(BadFile, match="ends early"):
        lines(packed[:-9])
    with pytest.raises(BadFile, match="is damaged"):
        lines(packed[:-8] + bytes(8))
    with pytest.raises(BadFile, match="is damaged"):
        lines(packed + b"more")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04" + bytes(20), "Excel workbook"),
        (b"\xd0\xcf\x11\xe0" + bytes(20), "Excel workbook"),
        ("prefix,destination".encode("utf-16"), "UTF-16"),
        ("prefix,destination".encode("utf-16-be"), "UTF-16"),
        ("prefix,destination".encode("utf-16-le"), "UTF-16"),
        ("prefix".encode("utf-32"), "UTF-32"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\x00abc", "compressed with xz"),
        (b"\x28\xb5\x2f\xfdabcdefgh", "zstd"),
        (b"\x7fELF" + bytes(60), "binary"),
        (gzip.compress(b"PK\x03\x04" + bytes(20), mtime=0), "Excel workbook"),
    ],
)
def test_files_that_are_not_text_are_named(data: bytes, message: str) -> None:
    with pytest.raises(BadFile, match=message):
        lines(data)


def test_an_empty_file_has_no_lines() -> None:
    assert lines(b"") == lines(b"\xef\xbb\xbf") == lines(gzip.compress(b"")) == []
