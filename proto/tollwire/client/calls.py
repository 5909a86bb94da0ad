"""How Client makes RPCs: deadlines, metadata, errors, pages and streams. async_calls.py is the same
for AsyncClient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
from google.protobuf.message import Message

from tollwire.client.connection import Connected
from tollwire.client.errors import error_of
from tollwire.client.parameters import CallInfo, Default, Metadata

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
T = TypeVar("T")

# The page size of an iteration over all items, unless the caller sets one; the largest there is.
PAGE_SIZE = 1000


class Stream(Generic[T]):
    """The items of a stream of responses, as they arrive.

    Ends by itself after the last one. ``close``, also by ``with``, cancels the rest. One thread at
    a time may read it.
    """

    def __init__(
        self,
        call: Any,
        take: Callable[[Any], Iterable[T]],
        info: CallInfo | None = None,
        requests: SentFrom[Any] | None = None,
    ) -> None:
        self._call = call
        self._take = take
        self._info = info
        self._requests = requests
        self._part: Iterator[T] = iter(())
        self._closed = False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        while True:
            for item in self._part:
                return item
            if self._closed:
                raise StopIteration
            try:
                response = next(self._call)
            except StopIteration:
                self._closed = True
                if self._info is not None:
                    self._info.fill(self._call.initial_metadata(), self._call.trailing_metadata())
                raise
            except grpc.RpcError as error:
                self._closed = True
                if self._requests is not None and self._requests.error is not None:
                    raise self._requests.error from None
                raise error_of(error) from error
            self._part = iter(self._take(response))

    def close(self) -> None:
        """Cancel what has not arrived. Does nothing after the end."""
        self._closed = True
        self._part = iter(())
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Pages(Generic[T, Response]):
    """The items of all pages of a list. Iterating requests a page when the one before is used up;
    each iteration begins with the first page again. ``take`` returns the items of a page and its
    next_page_token."""

    def __init__(
        self,
        fetch: Callable[[Request], Response],
        request: Request,
        take: Callable[[Response], tuple[Sequence[T], str]],
    ) -> None:
        self._fetch: Callable[[Any], Response] = fetch
        self._request = request
        self.take = take

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from self.take(page)[0]

    def pages(self) -> Iterator[Response]:
        """The responses themselves, with their next_page_token."""
        request: Any = first_page(self._request)
        while True:
            page = self._fetch(request)
            yield page
            request.page_token = self.take(page)[1]
            if not request.page_token:
                return


def first_page(request: Message) -> Message:
    """A copy of a list's request, with a page size."""
    copied: Any = type(request)()
    copied.CopyFrom(request)
    copied.page_size = copied.page_size or PAGE_SIZE
    return copied  # type: ignore[no-any-return]


class SentFrom(Generic[T]):
    """The requests of a stream, read by a thread of grpc, which would lose their iterator's error:
    ``error`` keeps it."""

    def __init__(self, requests: Iterable[T]) -> None:
        self._requests = iter(requests)
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        try:
            return next(self._requests)
        except StopIteration:
            raise
        except BaseException as error:
            self.error = error
            raise


class Calls(Connected):
    """A channel, and the ways to call a method on it."""

    def _open(self) -> None:
        self._channel = self.connection.channel()
        self._bind()

    def _bind(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Close the channel. Running RPCs are cancelled; later ones raise ValueError."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _options(
        self, timeout: float | Default | None, metadata: Metadata, *, is_long: bool
    ) -> dict[str, Any]:
        own = self.connection.metadata
        every: Sequence[tuple[str, str | bytes]] = (*own, *metadata) if metadata else own
        return {"timeout": self.connection.seconds(timeout, is_long=is_long), "metadata": every}

    def _unary(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | Default | None,
        metadata: Metadata,
        info: CallInfo | None = None,
        *,
        is_long: bool = False,
    ) -> Response:
        options = self._options(timeout, metadata, is_long=is_long)
        try:
            if info is None:
                return method(request, **options)
            response, call = method.with_call(request, **options)
        except grpc.RpcError as error:
            raise error_of(error) from error
        info.fill(call.initial_metadata(), call.trailing_metadata())
        return response

    def _pages(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | Default | None,
        metadata: Metadata,
        take: Callable[[Response], tuple[Sequence[T], str]],
    ) -> Pages[T, Response]:
        def fetch(page: Request) -> Response:
            return self._unary(method, page, timeout, metadata)

        return Pages(fetch, request, take)

    def _unary_stream(
        self,
        method: grpc.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        timeout: float | Default | None,
        metadata: Metadata,
        info: CallInfo | None,
        take: Callable[[Response], Iterable[T]],
    ) -> Stream[T]:
        call = method(request, **self._options(timeout, metadata, is_long=True))
        return Stream(call, take, info)

    def _stream_stream(
        self,
        method: grpc.StreamStreamMultiCallable[Request, Response],
        requests: Iterable[Request],
        timeout: float | Default | None,
        metadata: Metadata,
        info: CallInfo | None,
    ) -> Stream[Response]:
        sent = SentFrom(requests)
        call = method(iter(sent), **self._options(timeout, metadata, is_long=True))
        return Stream(call, lambda answer: (answer,), info, sent)
