"""Numbers calls with equal content and no call_id (Call.occurrence).

The number depends only on the order of the records in the file, so it is the same when the file is
sent again. Each such call takes about 70 bytes of memory.
"""

from __future__ import annotations

import hashlib

from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.service.cli.control_totals import duration_seconds
from tollwire.v1.types_pb2 import Call


class Occurrences:
    """Counts calls with equal content."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._counts: dict[int, int] = {}  # for content seen at least twice

    def number(self, call: Call) -> None:
        """Set the occurrence of a call that has neither a call_id nor an occurrence."""
        if call.call_id or call.occurrence or call.HasField("unreadable"):
            return
        key = _key(call)
        if key not in self._seen:
            self._seen.add(key)
            return
        self._counts[key] = call.occurrence = self._counts.get(key, 1) + 1


def _key(call: Call) -> int:
    """A 64-bit hash of the fields from which the server derives a call_id, independent of their
    spelling in the file."""
    content = (
        call.tenant_id,
        call.extension_id,
        call.caller_number,
        call.destination_number,
        call.direction,
        call.disposition,
        duration_seconds(call),
        _instant(call.started_at),
        _instant(call.ended_at),
    )
    digest = hashlib.blake2b(repr(content).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _instant(stamp: Timestamp) -> tuple[int, int]:
    """The time as a tuple. An unset time equals the epoch: both mean that there is no time."""
    return stamp.seconds, stamp.nanos
