"""A file that a fuzzing process shares with its parent: the current input, which is written before
it is checked, so that it survives a crash; and the counts so far."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.agreement import Target

_HEADER = struct.Struct("<QQQQ")
_ROOM = 1 << 20


@dataclass(frozen=True, slots=True)
class Counts:
    """``compared``: items, such as calls, of the accepted inputs."""

    tried: int
    accepted: int
    compared: int

    def __str__(self) -> str:
        refused = self.tried - self.accepted
        return (
            f"{self.tried:,} inputs: {self.accepted:,} accepted by both, {refused:,} refused by"
            f" both; {self.compared:,} items compared"
        )


class Record:
    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(_HEADER.size + _ROOM)
            self._map = mmap.mmap(file.fileno(), _HEADER.size + _ROOM)
        self._tried, self._accepted, self._compared, self._size = _HEADER.unpack_from(self._map)

    def check(self, target: Target, data: bytes) -> None:
        """Check an input with the target. Raises what the target raises."""
        self._size = min(len(data), _ROOM)
        self._tried += 1
        self._map[_HEADER.size : _HEADER.size + self._size] = data[:_ROOM]
        self._note()
        compared = target.check(data)
        if compared is not None:
            self._accepted += 1
            self._compared += compared
            self._note()

    def _note(self) -> None:
        _HEADER.pack_into(self._map, 0, self._tried, self._accepted, self._compared, self._size)

    def counts(self) -> Counts:
        return Counts(*_HEADER.unpack_from(self._map)[:3])

    def last_input(self) -> bytes:
        size = _HEADER.unpack_from(self._map)[3]
        return self._map[_HEADER.size : _HEADER.size + size]
