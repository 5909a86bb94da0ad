"""Sends an upload, and resumes it after a broken connection or a restart of the server.

The client sends chunks while a few earlier ones are still in progress on the server (the window),
and keeps each chunk until the server has confirmed it. When the stream breaks, the client sends the
window again, and the server repeats its responses. So no record is lost or stored twice, no
response is missed, and memory contains only the window.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import grpc

from tollwire.service.cli.connection import Client
from tollwire.service.cli.failures import DEFECT, Failure, failure_of
from tollwire.service.cli.streaming import RequestQueue
from tollwire.v1.cdr_service_pb2 import (
    ControlTotals,
    FailedRecord,
    GetUploadRequest,
    GetUploadResponse,
    ListUploadFailuresRequest,
    ListUploadFailuresResponse,
    UploadCdrsRequest,
    UploadCdrsResponse,
)
from tollwire.v1.types_pb2 import Call

T = TypeVar("T")

DEFAULT_CHUNK_CALLS = 5_000
DEFAULT_WINDOW = 4
DEFAULT_RETRIES = 10
# Keeps a message well below the server's limit, even with long texts.
MAX_CHUNK_BYTES = 8 * 1024 * 1024

_FAILURES_AT_ONCE = 1000

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 15.0
_TRANSIENT = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,  # from a server that was stopping: this client never cancels
    grpc.StatusCode.ABORTED,
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The calls of one message. ``offset``: the index of the first call within the upload;
    ``lines``: the lines of the calls in the file."""

    offset: int
    calls: list[Call]
    lines: list[int]

    @property
    def end(self) -> int:
        return self.offset + len(self.calls)


def chunked(calls: Iterable[tuple[int, Call]], size: int, offset: int = 0) -> Iterator[Chunk]:
    """Split calls into chunks. ``offset``: the index of the first call within the upload."""
    part, lines, part_bytes = [], [], 0
    for line, call in calls:
        part.append(call)
        lines.append(line)
        part_bytes += call.ByteSize()
        if len(part) == size or part_bytes > MAX_CHUNK_BYTES:
            chunk = Chunk(offset, part, lines)
            yield chunk
            offset, part, lines, part_bytes = chunk.end, [], [], 0
    if part:
        yield Chunk(offset, part, lines)


class Upload:
    """One upload, from its beginning or its committed offset.

    ``settled`` is called with each chunk and its response when it is durable; ``interrupted`` is
    called when the stream breaks, with the reason and the seconds until the next attempt.
    """

    def __init__(
        self,
        client: Client,
        upload_id: int,
        settled: Callable[[Chunk, UploadCdrsResponse], None],
        interrupted: Callable[[str, float], None],
        window: int = DEFAULT_WINDOW,
        retries: int = DEFAULT_RETRIES,
    ) -> None:
        self.id = upload_id
        self._client = client
        self._settled = settled
        self._interrupted = interrupted
        self._window = window
        self._retries = retries
        self._failures = 0  # since the last chunk that was settled
        self._pending: deque[Chunk] = deque()  # sent, or to send again, but not settled
        self._read_all = False

    def begin(self) -> int:
        """Create an upload without calls on the server. Returns its id, so that it can be stored
        before the first call is sent."""
        answers = self._client.cdrs.UploadCdrs(
            iter([UploadCdrsRequest()]), timeout=self._client.timeout
        )
        for answer in answers:
            self.id = answer.upload_id
        if not self.id:
            raise Failure("the server sent no upload id", DEFECT)
        return self.id

    def state(self) -> GetUploadResponse:
        """The state of this upload on the server."""
        request = GetUploadRequest(upload_id=self.id)
        return self._client.cdrs.GetUpload(request, timeout=self._client.timeout)

    def final_state(self) -> GetUploadResponse:
        """As ``state``, with retries."""
        return self._with_retries(self.state)

    def failures(self) -> Iterator[FailedRecord]:
        """The failed records of the upload on the server, by ascending index."""
        token = None
        while token != "":
            page = self._with_retries(partial(self._page_of_failures, token or ""))
            yield from page.failures
            token = page.next_page_token

    def _page_of_failures(self, token: str) -> ListUploadFailuresResponse:
        request = ListUploadFailuresRequest(
            upload_id=self.id, page_size=_FAILURES_AT_ONCE, page_token=token
        )
        return self._client.cdrs.ListUploadFailures(request, timeout=self._client.timeout)

    def send(
        self, chunks: Iterable[Chunk], totals: Callable[[], ControlTotals] | None = None
    ) -> None:
        """Send the chunks until the last is durable, then ``totals`` if given. Retries after
        temporary failures."""
        source = iter(chunks)
        self._with_retries(lambda: self._stream(source, totals))

    def _with_retries(self, attempt: Callable[[], T]) -> T:
        while True:
            try:
                answer = attempt()
            except grpc.RpcError as error:
                self._wait(error)
            else:
                self._failures = 0
                return answer

    def _stream(self, source: Iterator[Chunk], totals: Callable[[], ControlTotals] | None) -> None:
        """One stream: first the pending chunks, then the source, then the totals."""
        requests: RequestQueue[UploadCdrsRequest] = RequestQueue(0)
        call = self._client.cdrs.UploadCdrs(iter(requests))
        try:
            for chunk in self._pending:
                requests.send(self._request(chunk), call)
            while True:
                while not self._read_all and len(self._pending) < self._window:
                    chunk_ = next(source, None)
                    if chunk_ is None:
                        self._read_all = True
                    else:
                        self._pending.append(chunk_)
                        requests.send(self._request(chunk_), call)
                if not self._pending:
                    break
                self._take(next(call))
            if totals is not None:
                stated = UploadCdrsRequest(upload_id=self.id, control_totals=totals())
                requests.send(stated, call)
                next(call)
            requests.close(call)
            for _ in call:  # no more responses: raises the error of a failed stream
                pass
        except StopIteration:
            raise Failure("the server ended the upload early", DEFECT) from None
        except BaseException:
            call.cancel()
            raise
        finally:
            requests.close(call)

    def _request(self, chunk: Chunk) -> UploadCdrsRequest:
        return UploadCdrsRequest(upload_id=self.id, offset=chunk.offset, calls=chunk.calls)

    def _take(self, response: UploadCdrsResponse) -> None:
        chunk = self._pending[0]
        if response.committed_offset < chunk.end:
            raise Failure(
                f"upload {self.id}: the server has committed {response.committed_offset} calls"
                f" instead of {chunk.end}",
                DEFECT,
            )
        self._pending.popleft()
        self._failures = 0
        self._settled(chunk, response)

    def _wait(self, error: grpc.RpcError) -> None:
        """Sleep before the next attempt, or raise the error if a retry cannot help."""
        if error.code() not in _TRANSIENT or self._failures >= self._retries:
            raise error
        delay = min(FIRST_DELAY_SECONDS * 2**self._failures, LONGEST_DELAY_SECONDS)
        self._failures += 1
        self._interrupted(failure_of(error, self._client.server).message, delay)
        time.sleep(delay)
