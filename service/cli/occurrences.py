"""Which call of several with equal content a record is (Call.occurrence), for calls without a
call_id.

The number depends on the order of the records in the file and on nothing else, so it is the same
when the file is sent again. It takes about 70 bytes of memory for each such call.
"""

from __future__ import annotations

import hashlib

from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.service.cli.control_totals import duration_seconds
from tollwire.v1.types_pb2 import Call


class Occurrences:
    """Counts the calls of equal content that pass through it."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._counts: dict[int, int] = {}  # of content seen at least twice

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
    """What the server derives a call_id from, in 64 bits: the fields, however they are written."""
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
    """An unset time and the epoch are the same: both mean that there is none."""
    return stamp.seconds, stamp.nanos
