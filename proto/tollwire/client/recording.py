"""The upload that ``record`` sends its groups of calls in.

All groups of a client are chunks of one upload, so each is stored once even if its response is
lost. ``Position`` says where the next one goes.
"""

from __future__ import annotations

from dataclasses import dataclass

from tollwire.client.errors import (
    FailedPreconditionError,
    NotFoundError,
    OutOfRangeError,
    TollwireError,
)
from tollwire.client.uploads import UploadedChunk, UploadOptions

# A caller waits for each retry: about half a minute in all.
RETRIES = 6
OPTIONS = UploadOptions(chunk_calls=10_000, window=1, retries=RETRIES)


@dataclass(slots=True)
class Position:
    """The upload, and the index of the next call in it. An ``upload_id`` of 0: begin a new one."""

    upload_id: int = 0
    offset: int = 0

    def continues_after(self, error: TollwireError) -> bool:
        """Whether the calls can be sent again, in a new upload: this one was reversed or is gone.
        After any error the next group begins a new upload, because it is not known what this one
        contains; calls that are in both are recorded once."""
        had_upload = self.upload_id != 0
        self.upload_id = self.offset = 0
        gone = FailedPreconditionError | NotFoundError | OutOfRangeError
        return had_upload and isinstance(error, gone)

    def advance(self, upload_id: int, chunk: UploadedChunk) -> None:
        """After a chunk is durable."""
        self.upload_id, self.offset = upload_id, chunk.end
