"""What stands around every handler of every service: reading, answering, refusing.

grpc would answer a message that it cannot read with INTERNAL, an exception with UNKNOWN. So
handlers are registered to take and give bytes, and this module reads requests, writes responses and
hands every exception to the error map. Handlers are wrapped once, when they are registered: a
grpc.ServerInterceptor would be asked again for each RPC.

A servicer's method takes the request message (or an iterator of them) and the context, and returns
the response message (or an iterator of them). It raises to refuse, and leaves the context alone.
A method that is marked with ``on_bytes`` takes and returns the bytes of messages instead.

All handlers are registered as such of streams of requests, which look the same on the wire: grpc
then asks them at once, where it would read the message of a unary RPC first. So who may not come
in, or finds no room, is told without that anything was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NoReturn, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from tollwire.service.domain.errors import InvalidInput, Reason, shutting_down, unwanted
from tollwire.service.observability import request_ids
from tollwire.service.rpc import error_map
from tollwire.service.rpc.capacity import Capacity
from tollwire.service.rpc.permissions import permission
from tollwire.service.rpc.pipeline import Entrance, Visit, expect
from tollwire.service.rpc.pools import kind_of
from tollwire.service.rpc.streams import Requests, Send, Stream, StreamOver, Streams

# Trailing metadata: the revision of a tenant's rates after a change. Clients send it back as
# min_rate_revision.
RATE_REVISION_KEY = "tollwire-rate-revision"

Context = grpc.ServicerContext
Decode = Callable[[bytes], Any]
Encode = Callable[[Any], bytes]


def add_service(
    server: grpc.Server,
    service: ServiceDescriptor,
    servicer: object,
    streams: Streams,
    entrance: Entrance,
    capacity: Capacity,
    *,
    name: str = "",
) -> None:
    """Registers ``servicer`` for all methods of ``service``. ``streams`` gives its streams their
    places, ``capacity`` all RPCs their threads, ``entrance`` lets them in. ``name``: under another
    name than the descriptor's. LookupError where it does not stand who may call a method."""
    for method in service.methods:
        permission(f"{service.name}/{method.name}")
    handlers = {
        method.name: _handler(method, servicer, streams, _Way(entrance, capacity, method))
        for method in service.methods
    }
    server.add_registered_method_handlers(name or service.full_name, handlers)


def on_bytes(behavior: Callable[..., Any]) -> Any:
    """Marks a servicer's method that takes and returns the bytes of messages."""
    behavior.on_bytes = True  # type: ignore[attr-defined]
    return behavior


def _as_it_is(data: bytes) -> bytes:
    return data


class _Way:
    """The way into one method."""

    def __init__(self, entrance: Entrance, capacity: Capacity, method: MethodDescriptor) -> None:
        self.entrance = entrance
        self.name = f"{method.containing_service.name}/{method.name}"
        self.kind = kind_of(method)
        self.pool = capacity.pools[self.kind]
        self.request_bytes = capacity.request_bytes
        self._arrivals = capacity.arrivals
        expect(self.name)

    def visit(self, context: Context) -> Visit:
        return Visit(self.name, context, self.kind)

    def message(self, requests: Iterator[bytes], context: Context) -> bytes:
        """The one message of the RPC. InvalidInput where there is none."""
        self.request_bytes.check()
        self._arrivals.expect(context, self.kind)
        try:
            return next(requests)
        except grpc.RpcError as error:
            raise unwanted() from error
        except StopIteration as error:
            raise (malformed_request() if context.is_active() else unwanted()) from error
        finally:
            self._arrivals.came(context)

    def tell(self, stream: Stream, context: Context, encode: Encode, response: Any) -> None:
        """Sends to a client that only listens; one that does not is sent away."""
        self._arrivals.expect(context, self.kind)
        try:
            stream.send(encode(response))
        finally:
            self._arrivals.came(context)


def _handler(
    method: MethodDescriptor, servicer: object, streams: Streams, way: _Way
) -> grpc.RpcMethodHandler[Any, Any]:
    behavior = getattr(servicer, method.name)
    decode: Decode = _as_it_is
    encode: Encode = _as_it_is
    if not getattr(behavior, "on_bytes", False):
        decode = _decoder(GetMessageClass(method.input_type).FromString)
        encode = GetMessageClass(method.output_type).SerializeToString
    if not method.client_streaming and not method.server_streaming:
        handle = _unary(decode, behavior, encode, way)
        handle.experimental_thread_pool = way.pool  # type: ignore[attr-defined]
        return grpc.stream_unary_rpc_method_handler(handle)
    if getattr(behavior, "experimental_non_blocking", False):
        stream = _watching(decode, behavior, encode, streams, way)
    elif not method.client_streaming:
        stream = _streaming(_one(decode, way), behavior, encode, streams, way)
    else:
        if not method.server_streaming:
            # On the wire one response is a stream of one; so this too can be ended while it waits.
            behavior = _in_a_list(behavior)
        read = _each(decode, way, end_counts=not method.server_streaming)
        stream = _streaming(read, behavior, encode, streams, way)
    stream.experimental_non_blocking = True  # type: ignore[attr-defined]
    stream.experimental_thread_pool = way.pool  # type: ignore[attr-defined]
    return grpc.stream_stream_rpc_method_handler(stream)


def malformed_request() -> InvalidInput:
    """For bytes that are no message of the request's type."""
    return InvalidInput(
        Reason.MALFORMED_REQUEST,
        "the request is not a valid message: its bytes are damaged, or a string is not UTF-8",
    )


def _decoder(parse: Decode) -> Decode:
    def decode(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError as error:
            raise malformed_request() from error

    return decode


def _unary(
    decode: Decode, behavior: Callable[[Any, Context], Any], encode: Encode, way: _Way
) -> Callable[[Iterator[bytes], Context], bytes]:
    entrance, request_bytes = way.entrance, way.request_bytes

    def handle(requests: Iterator[bytes], context: Context) -> bytes:
        visit = way.visit(context)
        held = 0
        try:
            with entrance.visit(visit):
                request = way.message(requests, context)
                held = request_bytes.hold(request)
                response = encode(behavior(decode(request), context))
                _add_rate_revision(visit)
                return response
        except Exception as error:
            _refuse(visit, error)
        finally:
            request_bytes.let_go(held)
            entrance.ended(visit)

    return handle


def _streaming(
    read: Callable[[Iterator[bytes], Stream, Visit], Any],
    behavior: Callable[[Any, Context], Iterable[Any]],
    encode: Encode,
    streams: Streams,
    way: _Way,
) -> Callable[[Iterator[bytes], Context, Send], None]:
    """``read`` makes what the behavior takes of what grpc gives, an iterator of bytes. Whether the
    caller may still do this is asked before each message, in either direction. A behavior that may
    go on without end yields None now and then: there it ends when its client is gone, its token is
    revoked or the server stops."""
    entrance = way.entrance

    def handle(requests: Iterator[bytes], context: Context, send: Send) -> None:
        visit = way.visit(context)
        try:
            with entrance.visit(visit), streams.place(context, send) as stream:
                for response in behavior(read(requests, stream, visit), context):
                    entrance.stays(visit)
                    if response is not None:
                        send(encode(response))
                    if stream.over:
                        raise StreamOver
                    if response is None and streams.stopping:
                        raise shutting_down()
                _add_rate_revision(visit)
        except StreamOver:
            visit.code = grpc.StatusCode.CANCELLED
            return
        except Exception as error:
            _refuse(visit, error)
        finally:
            entrance.ended(visit)
        # The place is free before the client hears of the end: its next stream finds it.
        send(None)

    return handle


def _one(decode: Decode, way: _Way) -> Callable[[Iterator[bytes], Stream, Visit], Any]:
    return lambda requests, _stream, visit: decode(way.message(requests, visit.context))


def _each(
    decode: Decode, way: _Way, *, end_counts: bool
) -> Callable[[Iterator[bytes], Stream, Visit], Any]:
    stays = way.entrance.stays

    def read(requests: Iterator[bytes], stream: Stream, visit: Visit) -> Requests[Any]:
        def decode_if_welcome(data: bytes) -> Any:
            stays(visit)
            return decode(data)

        return Requests(stream, requests, decode_if_welcome, end_counts=end_counts)

    return read


def _in_a_list(behavior: Callable[[Any, Context], Any]) -> Callable[[Any, Context], list[Any]]:
    return lambda request, context: [behavior(request, context)]


def _watching(
    decode: Decode,
    behavior: Callable[[Any, Context, Callable[[Any], None]], None],
    encode: Encode,
    streams: Streams,
    way: _Way,
) -> Callable[[Iterator[bytes], Context, Send], None]:
    """For Health.Watch, which sends from the threads of others and holds none."""
    entrance = way.entrance

    def handle(requests: Iterator[bytes], context: Context, send: Send) -> None:
        visit = way.visit(context)
        try:
            with entrance.visit(visit):
                request = decode(way.message(requests, context))
                stream = streams.open(context, send)
                stream.watch()
                if not context.add_callback(lambda: streams.close(stream)):
                    streams.close(stream)

                behavior(request, context, partial(way.tell, stream, context, encode))
        except Exception as error:
            _refuse(visit, error)
        finally:
            entrance.ended(visit)

    return handle


def _add_rate_revision(visit: Visit) -> None:
    """Tell the client the revision of the rates that its request has changed."""
    if visit.request.rate_revision:
        visit.context.set_trailing_metadata(
            ((RATE_REVISION_KEY, str(visit.request.rate_revision)),)
        )


def _refuse(visit: Visit, error: Exception) -> NoReturn:
    visit.reason = error_map.reason_of(error)
    status = error_map.refusal(error, visit.method, visit.fields())
    visit.code = status.code
    visit.is_logged = error_map.is_logged(error)
    name = (request_ids.METADATA_KEY, visit.request.id)
    visit.context.abort_with_status(
        # A named tuple, which its type hints leave out.
        cast(Any, status)._replace(trailing_metadata=(*status.trailing_metadata, name))
    )
