"""One chunk of an upload as it was sent, and the digests of its records.

Must not depend on the database or on the upload of the chunk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from ratingcore.record.record_digest import DIGEST_SIZE, digest_of_bad, digests
from ratingcore.record.records import Records
from tollwire.service.domain.model import BadCall
from tollwire.service.domain.record_model import ControlTotals, UploadFailure
from tollwire.service.record.recording import Recording


@dataclass(frozen=True, slots=True)
class UploadChunk:
    """The calls of a chunk. ``bad``: the errors of invalid calls, by their positions in
    ``records``. ``control_totals``: the totals that the sender states for the whole upload,
    including this chunk."""

    records: Records
    bad: Mapping[int, BadCall]
    control_totals: ControlTotals | None = None
    _made: list[bytes] = field(init=False, repr=False, compare=False, default_factory=list)

    def __len__(self) -> int:
        return len(self.records)

    def part(self, begin: int, end: int) -> UploadChunk:
        """The calls from position ``begin`` up to, not including, ``end``; by default to the last
        call."""
        end = min(end, len(self))
        if begin == 0 and end == len(self):
            return self
        bad = {at - begin: call for at, call in self.bad.items() if begin <= at < end}
        return UploadChunk(self.records.part(begin, end), bad, self.control_totals)

    def duration_seconds(self) -> int:
        """The duration of all calls, including invalid ones that have a duration."""
        bad = sum(call.duration_seconds for call in self.bad.values())
        return self.records.duration_seconds() + bad

    def record_digests(self) -> bytes:
        """The digests of the records in order, DIGEST_SIZE bytes each, independent of the chunk.
        They are stored, so they must not change. They are computed once."""
        if not self._made:
            self._made.append(self._make_record_digests())
        return self._made[0]

    def _make_record_digests(self) -> bytes:
        made = digests(self.records)
        unsent = [at for at in self.bad if not self.records.source(at)]
        if not unsent:
            return made
        changed = bytearray(made)
        for at in unsent:
            call = self.bad[at]
            stands_for = json.dumps([call.reason, call.field, call.call_id]).encode()
            changed[at * DIGEST_SIZE : (at + 1) * DIGEST_SIZE] = digest_of_bad(stands_for)
        return bytes(changed)

    def digest(self) -> bytes:
        """The SHA-256 by which older releases recognised a whole chunk: of the packed form of the
        valid calls and the errors of the invalid ones, without the message, which may differ
        between releases. Stored chunks of these releases have it, so it must not change."""
        bad = [(at, call.reason, call.field, call.call_id) for at, call in self.bad.items()]
        hashed = hashlib.sha256(b"tollwire.chunk.1")
        hashed.update(json.dumps([len(self) - len(bad), bad]).encode())
        hashed.update(self.records.packed())
        return hashed.digest()

    def failures(self, first_index: int, recording: Recording) -> tuple[UploadFailure, ...]:
        """One for each call that was not recorded and is not a duplicate, by ascending index."""
        failures = [
            _failure(first_index + position, call.call_id, call.reason, _words(call))
            for position, call in self.bad.items()
        ]
        failures += [
            _failure(
                first_index + refusal.position,
                refusal.call_id,
                refusal.reason.value,
                refusal.message,
            )
            for refusal in recording.refusals
        ]
        return tuple(sorted(failures, key=attrgetter("index")))


def _failure(index: int, call_id: str, reason: str, message: str) -> UploadFailure:
    """The failure of one record, in texts that every database can store: an invalid record must not
    block the others."""
    return UploadFailure(index, call_id.replace("\0", ""), reason, message.replace("\0", ""))


def _words(call: BadCall) -> str:
    return f"{call.field}: {call.message}" if call.field else call.message
