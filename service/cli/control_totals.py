"""The control totals of a file of calls, which the server compares with its own.

They are counted from the calls of the file, by the rule in docs/api.md. Totals from the server's
responses would always match and would not detect lost calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.v1.cdr_service_pb2 import ControlTotals
from tollwire.v1.types_pb2 import Call

_MAX_DURATION_SECONDS = 2_147_483_647
_NANOS = 10**9
# The years 1 to 9999.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799


class TotalsCounter:
    """Counts the calls of an iterator that passes through it."""

    def __init__(self) -> None:
        self._calls = 0
        self._duration_seconds = 0

    def count(self, calls: Iterable[tuple[int, Call]]) -> Iterator[tuple[int, Call]]:
        """Yield the same calls, and count each."""
        for line, call in calls:
            self._calls += 1
            self._duration_seconds += duration_seconds(call)
            yield line, call

    def totals(self) -> ControlTotals:
        return ControlTotals(calls=self._calls, duration_seconds=self._duration_seconds)


def duration_seconds(call: Call) -> int:
    """The seconds that a call adds to the sum, also if it is invalid."""
    seconds = 0
    if call.HasField("duration_seconds"):
        seconds = call.duration_seconds
    elif call.HasField("started_at") and call.HasField("ended_at"):
        start, end = call.started_at, call.ended_at
        # An end equal to the epoch means that the call has no end.
        if is_time(start) and is_time(end) and (end.seconds or end.nanos):
            seconds = end.seconds - start.seconds - (end.nanos < start.nanos)
    return seconds if 0 <= seconds <= _MAX_DURATION_SECONDS else 0


def is_time(stamp: Timestamp) -> bool:
    """Whether the value is a valid Timestamp. Clients can also send invalid values."""
    return 0 <= stamp.nanos < _NANOS and _FIRST_SECOND <= stamp.seconds <= _LAST_SECOND
