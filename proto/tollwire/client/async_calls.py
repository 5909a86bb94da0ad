"""How AsyncClient makes RPCs: deadlines, metadata, errors, pages and streams. calls.py is the same
for Client."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
from google.protobuf.message import Message
from grpc import aio

from tollwire.client.aio_status import keep_status
from tollwire.client.calls import first_page
from tollwire.client.connection import Connected
from tollwire.client.errors import error_of
from tollwire.client.parameters import CallInfo, Default, Metadata

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
T = TypeVar("T")


class AsyncStream(Generic[T]):
    """The items of a stream of responses, as they arrive.

    Ends by itself after the last one. ``close``, also by ``async with``, cancels the rest. One task
    at a time may read it.
    """

    def __init__(
        self,
        call: Any,
        take: Callable[[Any], Iterable[T]],
        info: CallInfo | None = None,
        requests: AsyncSentFrom[Any] | None = None,
    ) -> None:
        self._call = call
        self._responses = aiter(call)
        self._take = take
        self._info = info
        self._requests = requests
        self._part: Iterator[T] = iter(())
        self._closed = False

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while True:
            for item in self._part:
                return item
            if self._closed:
                raise StopAsyncIteration
            try:
                response = await anext(self._responses)
            except StopAsyncIteration:
                self._closed = True
                if self._info is not None:
                    self._info.fill(
                        await self._call.initial_metadata(), await self._call.trailing_metadata()
                    )
                raise
            except (grpc.RpcError, asyncio.CancelledError) as error:
                # grpc.aio cancels an RPC whose requests fail.
                self._closed = True
                if self._requests is not None and self._requests.error is not None:
                    raise self._requests.error from None
                if isinstance(error, grpc.RpcError):
                    raise error_of(error) from error
                self._call.cancel()
                raise
            self._part = iter(self._take(response))

    async def close(self) -> None:
        """Cancel what has not arrived. Does nothing after the end."""
        self._closed = True
        self._part = iter(())
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class AsyncPages(Generic[T, Response]):
    """The items of all pages of a list. Iterating requests a page when the one before is used up;
    each iteration begins with the first page again. ``take`` returns the items of a page and its
    next_page_token."""

    def __init__(
        self,
        fetch: Callable[[Request], Awaitable[Response]],
        request: Request,
        take: Callable[[Response], tuple[Sequence[T], str]],
    ) -> None:
        self._fetch: Callable[[Any], Awaitable[Response]] = fetch
        self._request = request
        self.take = take

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in self.take(page)[0]:
                yield item

    async def pages(self) -> AsyncIterator[Response]:
        """The responses themselves, with their next_page_token."""
        request: Any = first_page(self._request)
        while True:
            page = await self._fetch(request)
            yield page
            request.page_token = self.take(page)[1]
            if not request.page_token:
                return


async def each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """The items of an iterable of either kind."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


class AsyncSentFrom(Generic[T]):
    """The requests of a stream, read by a task of grpc, which would lose their iterator's error:
    ``error`` keeps it."""

    def __init__(self, requests: Iterable[T] | AsyncIterable[T]) -> None:
        self._requests = each(requests)
        self.error: BaseException | None = None

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await anext(self._requests)
        except (StopAsyncIteration, asyncio.CancelledError):
            raise
        except BaseException as error:
            self.error = error
            raise


class AsyncCalls(Connected):
    """A channel of the running event loop, and the ways to call a method on it."""

    def _open(self) -> None:
        asyncio.get_running_loop()  # grpc.aio would use another loop without a word
        self._channel = self.connection.async_channel()
        self._bind()

    def _bind(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        """Close the channel. Running RPCs are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _options(
        self, timeout: float | Default | None, metadata: Metadata, *, is_long: bool
    ) -> dict[str, Any]:
        own = self.connection.metadata
        every: Sequence[tuple[str, str | bytes]] = (*own, *metadata) if metadata else own
        return {
            "timeout": self.connection.seconds(timeout, is_long=is_long),
            "metadata": aio.Metadata(*every),
        }

    async def _unary(
        self,
        method: aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | Default | None,
        metadata: Metadata,
        info: CallInfo | None = None,
        *,
        is_long: bool = False,
    ) -> Response:
        call = method(request, **self._options(timeout, metadata, is_long=is_long))
        try:
            response = await call
            if info is not None:
                info.fill(await call.initial_metadata(), await call.trailing_metadata())
        except grpc.RpcError as error:
            raise error_of(error) from error
        return response

    def _pages(
        self,
        method: aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | Default | None,
        metadata: Metadata,
        take: Callable[[Response], tuple[Sequence[T], str]],
    ) -> AsyncPages[T, Response]:
        async def fetch(page: Request) -> Response:
            return await self._unary(method, page, timeout, metadata)

        return AsyncPages(fetch, request, take)

    def _unary_stream(
        self,
        method: aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        timeout: float | Default | None,
        metadata: Metadata,
        info: CallInfo | None,
        take: Callable[[Response], Iterable[T]],
    ) -> AsyncStream[T]:
        call = method(request, **self._options(timeout, metadata, is_long=True))
        return AsyncStream(call, take, info)

    def _stream_stream(
        self,
        method: aio.StreamStreamMultiCallable[Request, Response],
        requests: Iterable[Request] | AsyncIterable[Request],
        timeout: float | Default | None,
        metadata: Metadata,
        info: CallInfo | None,
    ) -> AsyncStream[Response]:
        sent = AsyncSentFrom(requests)
        call = keep_status(method(aiter(sent), **self._options(timeout, metadata, is_long=True)))
        return AsyncStream(call, lambda answer: (answer,), info, sent)
