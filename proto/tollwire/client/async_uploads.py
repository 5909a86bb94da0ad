"""``AsyncUpload``: what uploads.py describes, for AsyncClient."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from contextlib import aclosing
from types import TracebackType
from typing import Protocol, Self, TypeVar

from tollwire.client.async_calls import AsyncPages, AsyncStream, each
from tollwire.client.errors import TollwireError
from tollwire.client.uploads import (
    MAX_FAILURES,
    Broken,
    Chunk,
    Chunker,
    Failures,
    UploadedChunk,
    UploadError,
    UploadOptions,
    UploadResult,
    Window,
    expected,
)
from tollwire.v1.cdr_service_pb2 import (
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


class AsyncUploadRpcs(Protocol):
    """The RPCs that an upload uses."""

    def upload_cdrs(
        self, requests: Iterable[UploadCdrsRequest] | AsyncIterable[UploadCdrsRequest], /
    ) -> AsyncStream[UploadCdrsResponse]: ...
    async def get_upload(self, request: GetUploadRequest, /) -> GetUploadResponse: ...
    def list_upload_failures(
        self, request: ListUploadFailuresRequest, /
    ) -> AsyncPages[FailedRecord, ListUploadFailuresResponse]: ...


class AsyncUpload:
    """One upload: an asynchronous iterator over its chunks, as they become durable. ``result`` runs
    it to its end. Nothing is sent before the first of them is called."""

    def __init__(
        self,
        rpcs: AsyncUploadRpcs,
        calls: Iterable[Call] | AsyncIterable[Call],
        upload_id: int,
        offset: int | None,
        options: UploadOptions,
    ) -> None:
        self._rpcs = rpcs
        self._calls = each(calls)
        self._offset = 0 if not upload_id and offset is None else offset
        self._window = Window(options, upload_id)
        self._chunks = self._run()

    @property
    def id(self) -> int:
        """The id that the server gave; 0 before ``begin`` and the first chunk."""
        return self._window.id

    async def begin(self) -> int:
        """Create an upload without calls on the server, unless it has an id. Returns the id, so
        that it can be stored before the first call is sent. Does not retry."""
        if not self._window.id:
            async for answer in self._rpcs.upload_cdrs([UploadCdrsRequest()]):
                self._window.id = answer.upload_id
            if not self._window.id:
                raise UploadError("the server sent no upload id")
        return self._window.id

    async def state(self) -> GetUploadResponse:
        """The state of this upload on the server. Retries as the upload does."""
        request = GetUploadRequest(upload_id=self._window.id)
        return await self._with_retries(lambda: self._rpcs.get_upload(request))

    async def failures(self) -> AsyncIterator[FailedRecord]:
        """The records of the upload that were not stored, from the server, by rising index, as long
        as the server keeps them. Retries as the upload does."""
        request = ListUploadFailuresRequest(upload_id=self._window.id)

        async def first_page() -> ListUploadFailuresResponse:
            return await anext(self._rpcs.list_upload_failures(request).pages())

        while True:
            page = await self._with_retries(first_page)
            for failure in page.failures:
                yield failure
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def result(self, max_failures: int = MAX_FAILURES) -> UploadResult:
        """Upload what is left, and return the counts of the whole upload and its first failures."""
        failures = Failures(max_failures)
        async for chunk in self:
            failures.add(chunk.response.failures)
        return UploadResult(await self.state(), failures.kept, failures.omitted)

    def __aiter__(self) -> AsyncIterator[UploadedChunk]:
        return self

    async def __anext__(self) -> UploadedChunk:
        return await anext(self._chunks)

    async def close(self) -> None:
        """End the stream. What was not confirmed may be stored or not; resume with ``id``."""
        await self._chunks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _with_retries(self, attempt: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                answer = await attempt()
            except TollwireError as error:
                await asyncio.sleep(self._window.delay_after(error))
            else:
                self._window.succeeded()
                return answer

    async def _run(self) -> AsyncGenerator[UploadedChunk, None]:
        await self._with_retries(self.begin)
        if self._offset is None:
            self._offset = (await self.state()).committed_offset
            for _ in range(self._offset):
                await anext(self._calls, None)
        chunker = Chunker(self._window.options.chunk_calls, self._offset)
        source = chunked(self._calls, chunker)
        while True:
            try:
                async with aclosing(self._stream(source)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except Broken as broken:
                await asyncio.sleep(self._window.delay_after(broken.error))

    async def _stream(self, source: AsyncIterator[Chunk]) -> AsyncGenerator[UploadedChunk, None]:
        """One stream: first the pending chunks, then the source, then the totals."""
        window = self._window
        requests: asyncio.Queue[UploadCdrsRequest | None] = asyncio.Queue()
        async with self._rpcs.upload_cdrs(until_none(requests)) as responses:
            for chunk in window.pending:
                requests.put_nowait(window.request(chunk))
            while True:
                while window.has_space and (following := await anext(source, None)):
                    window.pending.append(following)
                    requests.put_nowait(window.request(following))
                if not window.pending:
                    break
                yield window.confirm(expected(await _next(responses)))
            if (totals := window.totals_request()) is not None:
                requests.put_nowait(totals)
                expected(await _next(responses))
            requests.put_nowait(None)
            if await _next(responses) is not None:  # raises the error of a failed stream
                raise UploadError("the server sent more responses than requests")


async def chunked(calls: AsyncIterator[Call], chunker: Chunker) -> AsyncIterator[Chunk]:
    async for call in calls:
        if chunk := chunker.add(call):
            yield chunk
    if chunk := chunker.rest():
        yield chunk


async def until_none(requests: asyncio.Queue[T | None]) -> AsyncIterator[T]:
    """The requests in the queue, until None."""
    while (request := await requests.get()) is not None:
        yield request


async def _next(responses: AsyncStream[UploadCdrsResponse]) -> UploadCdrsResponse | None:
    """The next response; None at the end. Broken if the stream has failed."""
    try:
        return await anext(responses, None)
    except TollwireError as error:
        raise Broken(error) from error
