"""Uploads that continue after a broken connection or a restart of the server.

The client sends chunks while a few earlier ones are still in progress on the server (the window),
and keeps each chunk until the server has confirmed it. When the stream breaks, the client sends the
window again, and the server repeats its responses. So no record is lost or stored twice, no
response is missed, and memory contains only the window.

``Window`` has the rules and does no input or output; ``Upload`` and ``AsyncUpload``
(async_uploads.py) use it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Protocol, Self, TypeVar

import grpc

from tollwire.client.calls import Pages, Stream
from tollwire.client.errors import TollwireError
from tollwire.client.request_queue import RequestQueue
from tollwire.v1.cdr_service_pb2 import (
    ControlTotals,
    FailedRecord,
    GetUploadRequest,
    GetUploadResponse,
    ListUploadFailuresRequest,
    ListUploadFailuresResponse,
    UploadCdrsRequest,
    UploadCdrsResponse,
    UploadFailure,
)
from tollwire.v1.types_pb2 import Call

T = TypeVar("T")

DEFAULT_CHUNK_CALLS = 5_000
DEFAULT_WINDOW = 4
DEFAULT_RETRIES = 10
MAX_FAILURES = 1_000
# Keeps a message well below the server's limit, even with long texts.
MAX_CHUNK_BYTES = 8 * 1024 * 1024

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 15.0
TRANSIENT = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,  # from a server that was stopping: an upload never cancels itself
    grpc.StatusCode.ABORTED,
)


class UploadError(Exception):
    """The server's responses do not fit the upload: a defect, or incompatible versions."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The calls of one message. ``offset``: the index of the first call within the upload."""

    offset: int
    calls: Sequence[Call]

    @property
    def end(self) -> int:
        return self.offset + len(self.calls)


@dataclass(frozen=True, slots=True)
class UploadedChunk(Chunk):
    """A chunk that is durable, and the server's response."""

    response: UploadCdrsResponse


@dataclass(frozen=True, slots=True)
class UploadResult:
    """What became of a whole upload.

    ``totals``: the server's counts, also of what was uploaded before a resumption. ``failures``:
    the first conflicts and rejected calls in the responses of this run, by rising index of the
    call; ``failures_omitted``: how many more there were.
    """

    totals: GetUploadResponse
    failures: list[UploadFailure] = field(default_factory=list)
    failures_omitted: int = 0


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """What Client.upload describes."""

    chunk_calls: int = DEFAULT_CHUNK_CALLS
    window: int = DEFAULT_WINDOW
    retries: int = DEFAULT_RETRIES
    control_totals: Callable[[], ControlTotals] | None = None
    on_interrupted: Callable[[TollwireError, float], None] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.chunk_calls <= 10_000:
            raise ValueError(f"chunk_calls is {self.chunk_calls}; it must be 1 to 10,000")
        if self.window < 1 or self.retries < 0:
            raise ValueError("window must be at least 1, retries at least 0")


class Chunker:
    """Puts calls together to chunks."""

    def __init__(self, size: int, offset: int) -> None:
        self._size = size
        self._offset = offset
        self._calls: list[Call] = []
        self._bytes = 0

    def add(self, call: Call) -> Chunk | None:
        """A chunk, if the call completes one."""
        self._calls.append(call)
        self._bytes += call.ByteSize()
        if len(self._calls) == self._size or self._bytes > MAX_CHUNK_BYTES:
            return self.rest()
        return None

    def rest(self) -> Chunk | None:
        """The last chunk, if calls are left."""
        if not self._calls:
            return None
        chunk = Chunk(self._offset, self._calls)
        self._offset, self._calls, self._bytes = chunk.end, [], 0
        return chunk


def chunked(calls: Iterable[Call], size: int, offset: int = 0) -> Iterator[Chunk]:
    """Split calls into chunks. ``offset``: the index of the first call within the upload."""
    chunker = Chunker(size, offset)
    for call in calls:
        if chunk := chunker.add(call):
            yield chunk
    if chunk := chunker.rest():
        yield chunk


class Window:
    """The chunks that are sent, or to be sent again, but not confirmed; and the failed attempts
    since the last confirmation."""

    def __init__(self, options: UploadOptions, upload_id: int) -> None:
        self.options = options
        self.id = upload_id
        self.pending: deque[Chunk] = deque()
        self._failed_attempts = 0

    @property
    def has_space(self) -> bool:
        return len(self.pending) < self.options.window

    def request(self, chunk: Chunk) -> UploadCdrsRequest:
        return UploadCdrsRequest(upload_id=self.id, offset=chunk.offset, calls=chunk.calls)

    def totals_request(self) -> UploadCdrsRequest | None:
        """The last request, if the sender has totals of the upload."""
        if self.options.control_totals is None:
            return None
        return UploadCdrsRequest(upload_id=self.id, control_totals=self.options.control_totals())

    def confirm(self, response: UploadCdrsResponse) -> UploadedChunk:
        """The response of the oldest pending chunk. UploadError if it is not of that chunk."""
        chunk = self.pending[0]
        if response.committed_offset < chunk.end:
            raise UploadError(
                f"upload {self.id}: the server has committed {response.committed_offset} calls"
                f" instead of {chunk.end}"
            )
        self.pending.popleft()
        self.succeeded()
        return UploadedChunk(chunk.offset, chunk.calls, response)

    def succeeded(self) -> None:
        self._failed_attempts = 0

    def delay_after(self, error: TollwireError) -> float:
        """The seconds to wait before the next attempt. Raises the error if a retry cannot help."""
        if error.code not in TRANSIENT or self._failed_attempts >= self.options.retries:
            raise error
        delay: float = min(FIRST_DELAY_SECONDS * 2**self._failed_attempts, LONGEST_DELAY_SECONDS)
        delay = max(delay, error.retry_delay_seconds or 0)
        self._failed_attempts += 1
        if self.options.on_interrupted is not None:
            self.options.on_interrupted(error, delay)
        return delay


class Failures:
    """The first failures of an upload, and the number of the others."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.kept: list[UploadFailure] = []
        self.omitted = 0

    def add(self, failures: Sequence[UploadFailure]) -> None:
        space = self._limit - len(self.kept)
        self.kept.extend(failures[:space])
        self.omitted += max(0, len(failures) - space)


class Broken(Exception):
    """The stream of an upload has ended with an error. A class of its own, because the iterator of
    the calls may raise a TollwireError too."""

    def __init__(self, error: TollwireError) -> None:
        super().__init__(error)
        self.error = error


class UploadRpcs(Protocol):
    """The RPCs that an upload uses."""

    def upload_cdrs(
        self, requests: Iterable[UploadCdrsRequest], /
    ) -> Stream[UploadCdrsResponse]: ...
    def get_upload(self, request: GetUploadRequest, /) -> GetUploadResponse: ...
    def list_upload_failures(
        self, request: ListUploadFailuresRequest, /
    ) -> Pages[FailedRecord, ListUploadFailuresResponse]: ...


class Upload:
    """One upload: an iterator over its chunks, as they become durable. ``result`` runs it to its
    end. Nothing is sent before the first of them is called. The calls are read in the same thread.
    """

    def __init__(
        self,
        rpcs: UploadRpcs,
        calls: Iterable[Call],
        upload_id: int,
        offset: int | None,
        options: UploadOptions,
    ) -> None:
        self._rpcs = rpcs
        self._calls = iter(calls)
        self._offset = 0 if not upload_id and offset is None else offset
        self._window = Window(options, upload_id)
        self._chunks = self._run()

    @property
    def id(self) -> int:
        """The id that the server gave; 0 before ``begin`` and the first chunk."""
        return self._window.id

    def begin(self) -> int:
        """Create an upload without calls on the server, unless it has an id. Returns the id, so
        that it can be stored before the first call is sent. Does not retry."""
        if not self._window.id:
            for answer in self._rpcs.upload_cdrs([UploadCdrsRequest()]):
                self._window.id = answer.upload_id
            if not self._window.id:
                raise UploadError("the server sent no upload id")
        return self._window.id

    def state(self) -> GetUploadResponse:
        """The state of this upload on the server. Retries as the upload does."""
        return self._with_retries(
            lambda: self._rpcs.get_upload(GetUploadRequest(upload_id=self._window.id))
        )

    def failures(self) -> Iterator[FailedRecord]:
        """The records of the upload that were not stored, from the server, by rising index, as long
        as the server keeps them. Retries as the upload does."""
        request = ListUploadFailuresRequest(upload_id=self._window.id)
        while True:
            page = self._with_retries(
                lambda: next(self._rpcs.list_upload_failures(request).pages())
            )
            yield from page.failures
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def result(self, max_failures: int = MAX_FAILURES) -> UploadResult:
        """Upload what is left, and return the counts of the whole upload and its first failures."""
        failures = Failures(max_failures)
        for chunk in self:
            failures.add(chunk.response.failures)
        return UploadResult(self.state(), failures.kept, failures.omitted)

    def __iter__(self) -> Iterator[UploadedChunk]:
        return self

    def __next__(self) -> UploadedChunk:
        return next(self._chunks)

    def close(self) -> None:
        """End the stream. What was not confirmed may be stored or not; resume with ``id``."""
        self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _with_retries(self, attempt: Callable[[], T]) -> T:
        while True:
            try:
                answer = attempt()
            except TollwireError as error:
                time.sleep(self._window.delay_after(error))
            else:
                self._window.succeeded()
                return answer

    def _run(self) -> Generator[UploadedChunk, None, None]:
        self._with_retries(self.begin)
        if self._offset is None:
            self._offset = self.state().committed_offset
            for _ in islice(self._calls, self._offset):
                pass
        source = chunked(self._calls, self._window.options.chunk_calls, self._offset)
        while True:
            try:
                yield from self._stream(source)
                return
            except Broken as broken:
                time.sleep(self._window.delay_after(broken.error))

    def _stream(self, source: Iterator[Chunk]) -> Iterator[UploadedChunk]:
        """One stream: first the pending chunks, then the source, then the totals."""
        window = self._window
        requests: RequestQueue[UploadCdrsRequest] = RequestQueue()
        with self._rpcs.upload_cdrs(requests) as responses:
            try:
                for chunk in window.pending:
                    requests.put(window.request(chunk))
                while True:
                    while window.has_space and (following := next(source, None)):
                        window.pending.append(following)
                        requests.put(window.request(following))
                    if not window.pending:
                        break
                    yield window.confirm(expected(_next(responses)))
                if (totals := window.totals_request()) is not None:
                    requests.put(totals)
                    expected(_next(responses))
                requests.end()
                if _next(responses) is not None:  # raises the error of a failed stream
                    raise UploadError("the server sent more responses than requests")
            finally:
                requests.end()


def _next(responses: Stream[UploadCdrsResponse]) -> UploadCdrsResponse | None:
    """The next response; None at the end. Broken if the stream has failed."""
    try:
        return next(responses, None)
    except TollwireError as error:
        raise Broken(error) from error


def expected(response: UploadCdrsResponse | None) -> UploadCdrsResponse:
    if response is None:
        raise UploadError("the server ended the upload early")
    return response
