"""What stands around every handler of every service: reading, answering, refusing.

grpc would answer a message that it cannot read with INTERNAL, an exception with UNKNOWN. So
handlers are registered to take and give bytes, and this module reads requests, writes responses and
hands every exception to the error map. Handlers are wrapped once, when they are registered: a
grpc.ServerInterceptor would be asked again for each RPC.

A servicer's method takes the request message (or an iterator of them) and the context, and returns
the response message (or an iterator of them). It raises to refuse, and leaves the context alone.
A method that is marked with ``on_bytes`` takes and returns the bytes of messages instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from service.errors import InvalidInput, Reason
from service.rpc import error_map
from service.rpc.entrance import Entrance, Visit
from service.rpc.permissions import permission
from service.rpc.streams import Requests, Send, Stream, StreamOver, Streams

Context = grpc.ServicerContext
Decode = Callable[[bytes], Any]
Encode = Callable[[Any], bytes]


def add_service(
    server: grpc.Server,
    service: ServiceDescriptor,
    servicer: object,
    streams: Streams,
    entrance: Entrance,
    *,
    name: str = "",
) -> None:
    """Registers ``servicer`` for all methods of ``service``. ``streams`` gives its streams their
    places, ``entrance`` lets RPCs in. ``name``: under another name than the descriptor's.
    LookupError where it does not stand who may call a method."""
    for method in service.methods:
        permission(f"{service.name}/{method.name}")
    handlers = {
        method.name: _handler(f"{service.name}/{method.name}", method, servicer, streams, entrance)
        for method in service.methods
    }
    server.add_registered_method_handlers(name or service.full_name, handlers)


def on_bytes(behavior: Callable[..., Any]) -> Any:
    """Marks a servicer's method that takes and returns the bytes of messages."""
    behavior.on_bytes = True  # type: ignore[attr-defined]
    return behavior


def _as_it_is(data: bytes) -> bytes:
    return data


def _handler(
    name: str, method: MethodDescriptor, servicer: object, streams: Streams, entrance: Entrance
) -> grpc.RpcMethodHandler[Any, Any]:
    behavior = getattr(servicer, method.name)
    decode: Decode = _as_it_is
    encode: Encode = _as_it_is
    if not getattr(behavior, "on_bytes", False):
        decode = _decoder(GetMessageClass(method.input_type).FromString)
        encode = GetMessageClass(method.output_type).SerializeToString
    if getattr(behavior, "experimental_non_blocking", False):
        handle = _watching(name, decode, behavior, encode, streams, entrance)
        return grpc.unary_stream_rpc_method_handler(handle)
    if not method.client_streaming and not method.server_streaming:
        return grpc.unary_unary_rpc_method_handler(_unary(name, decode, behavior, encode, entrance))
    if not method.client_streaming:
        stream = _streaming(name, _one(decode), behavior, encode, streams, entrance)
        return grpc.unary_stream_rpc_method_handler(stream)
    if not method.server_streaming:
        # On the wire one response is a stream of one; so this too can be ended while it waits.
        behavior = _in_a_list(behavior)
    read = _each(decode, end_counts=not method.server_streaming)
    return grpc.stream_stream_rpc_method_handler(
        _streaming(name, read, behavior, encode, streams, entrance)
    )


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
    name: str,
    decode: Decode,
    behavior: Callable[[Any, Context], Any],
    encode: Encode,
    entrance: Entrance,
) -> Callable[[bytes, Context], bytes]:
    def handle(data: bytes, context: Context) -> bytes:
        visit = Visit(name, context)
        try:
            with entrance.visit(visit):
                return encode(behavior(decode(data), context))
        except Exception as error:
            _refuse(visit, error)
        finally:
            entrance.ended(visit)

    return handle


def _streaming(
    name: str,
    read: Callable[[Any, Stream], Any],
    behavior: Callable[[Any, Context], Iterable[Any]],
    encode: Encode,
    streams: Streams,
    entrance: Entrance,
) -> Callable[[Any, Context, Send], None]:
    """``read`` makes what the behavior takes of what grpc gives: bytes, or an iterator of bytes."""

    def handle(argument: Any, context: Context, send: Send) -> None:
        visit = Visit(name, context)
        try:
            with entrance.visit(visit), streams.place(context, send) as stream:
                for response in behavior(read(argument, stream), context):
                    send(encode(response))
                    if stream.over:
                        raise StreamOver
        except StreamOver:
            visit.code = grpc.StatusCode.CANCELLED
            return
        except Exception as error:
            _refuse(visit, error)
        finally:
            entrance.ended(visit)
        # The place is free before the client hears of the end: its next stream finds it.
        send(None)

    handle.experimental_non_blocking = True  # type: ignore[attr-defined]
    return handle


def _one(decode: Decode) -> Callable[[bytes, Stream], Any]:
    return lambda data, _stream: decode(data)


def _each(decode: Decode, *, end_counts: bool) -> Callable[[Iterator[bytes], Stream], Any]:
    def read(requests: Iterator[bytes], stream: Stream) -> Requests[Any]:
        return Requests(stream, requests, decode, end_counts=end_counts)

    return read


def _in_a_list(behavior: Callable[[Any, Context], Any]) -> Callable[[Any, Context], list[Any]]:
    return lambda request, context: [behavior(request, context)]


def _watching(
    name: str,
    decode: Decode,
    behavior: Callable[[Any, Context, Callable[[Any], None]], None],
    encode: Encode,
    streams: Streams,
    entrance: Entrance,
) -> Callable[[bytes, Context, Send], None]:
    """For Health.Watch, which sends from the threads of others and holds none."""

    def handle(data: bytes, context: Context, send: Send) -> None:
        visit = Visit(name, context)
        try:
            with entrance.visit(visit):
                request = decode(data)
                stream = streams.open(context, send)
                stream.watch()
                if not context.add_callback(lambda: streams.close(stream)):
                    streams.close(stream)

                behavior(request, context, lambda response: stream.send(encode(response)))
        except Exception as error:
            _refuse(visit, error)
        finally:
            entrance.ended(visit)

    handle.experimental_non_blocking = True  # type: ignore[attr-defined]
    return handle


def _refuse(visit: Visit, error: Exception) -> NoReturn:
    status = error_map.refusal(error, visit.method)
    visit.code = status.code
    visit.context.abort_with_status(status)
