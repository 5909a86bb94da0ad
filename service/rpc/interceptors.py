"""The handler around every servicer method: decodes requests, encodes responses, maps errors.

grpc would answer a message that cannot be decoded with INTERNAL, and an exception with UNKNOWN. So
handlers are registered on bytes; this module decodes requests, encodes responses and passes every
exception to the error map. It wraps each handler once, at registration: a grpc.ServerInterceptor
would run again for each RPC.

A servicer's method takes the request message (or an iterator of them) and the context, and returns
the response message (or an iterator of them). It raises to refuse, and does not use the context.
A method that is marked with ``on_bytes`` takes and returns the bytes of messages instead.

All handlers are registered with streams of requests, which look the same on the wire: grpc then
calls them at once, while it would read the message of a unary RPC first. So an RPC that is not
admitted is refused before anything is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from tollwire.service.domain.errors import InvalidInput, Reason, shutting_down, unwanted
from tollwire.service.observability import request_ids
from tollwire.service.rpc import error_map, grpc_internals
from tollwire.service.rpc.capacity import Capacity
from tollwire.service.rpc.permissions import permission
from tollwire.service.rpc.pipeline import RpcContext, RpcPipeline, expect
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
    pipeline: RpcPipeline,
    capacity: Capacity,
    *,
    name: str = "",
) -> None:
    """Register ``servicer`` for all methods of ``service``. ``streams`` limits its streams,
    ``capacity`` has the threads of all RPCs, ``pipeline`` admits them. ``name`` replaces the name
    in the descriptor. LookupError if a method has no entry in the table of permissions."""
    for method in service.methods:
        permission(f"{service.name}/{method.name}")
    handlers = {
        method.name: _handler(method, servicer, streams, _Endpoint(pipeline, capacity, method))
        for method in service.methods
    }
    grpc_internals.register(server, name or service.full_name, handlers)


def on_bytes(behavior: Callable[..., Any]) -> Any:
    """Mark a servicer's method that takes and returns the bytes of messages."""
    behavior.on_bytes = True  # type: ignore[attr-defined]
    return behavior


def _unchanged(data: bytes) -> bytes:
    return data


class _Endpoint:
    """One method, with the parts that its handler uses."""

    def __init__(self, pipeline: RpcPipeline, capacity: Capacity, method: MethodDescriptor) -> None:
        self.pipeline = pipeline
        self.name = f"{method.containing_service.name}/{method.name}"
        self.kind = kind_of(method)
        self.pool = capacity.pools[self.kind]
        self.request_bytes = capacity.request_bytes
        self._message_deadlines = capacity.message_deadlines
        expect(self.name)

    def begin(self, context: Context) -> RpcContext:
        return RpcContext(self.name, context, self.kind)

    def message(self, requests: Iterator[bytes], context: Context) -> bytes:
        """The one message of the RPC. InvalidInput if there is none."""
        self.request_bytes.check()
        self._message_deadlines.start(context, self.kind)
        try:
            return next(requests)
        except grpc.RpcError as error:
            raise unwanted() from error
        except StopIteration as error:
            raise (malformed_request() if context.is_active() else unwanted()) from error
        finally:
            self._message_deadlines.stop(context)

    def send(self, stream: Stream, context: Context, encode: Encode, response: Any) -> None:
        """Send to a client that only receives. Cancels its RPC if that takes too long."""
        self._message_deadlines.start(context, self.kind)
        try:
            stream.send(encode(response))
        finally:
            self._message_deadlines.stop(context)


def _handler(
    method: MethodDescriptor, servicer: object, streams: Streams, endpoint: _Endpoint
) -> grpc.RpcMethodHandler[Any, Any]:
    behavior = getattr(servicer, method.name)
    decode: Decode = _unchanged
    encode: Encode = _unchanged
    if not getattr(behavior, "on_bytes", False):
        decode = _decoder(GetMessageClass(method.input_type).FromString)
        encode = GetMessageClass(method.output_type).SerializeToString
    if not method.client_streaming and not method.server_streaming:
        handle = _unary(decode, behavior, encode, endpoint)
        grpc_internals.run_in_pool(handle, endpoint.pool)
        return grpc.stream_unary_rpc_method_handler(handle)
    if grpc_internals.is_sending_responses(behavior):
        stream = _watching(decode, behavior, encode, streams, endpoint)
    elif not method.client_streaming:
        stream = _streaming(_one(decode, endpoint), behavior, encode, streams, endpoint)
    else:
        if not method.server_streaming:
            # On the wire one response is a stream of one. Registered like this, the RPC can be
            # ended while it waits.
            behavior = _as_stream(behavior)
        read = _each(decode, endpoint, end_counts=not method.server_streaming)
        stream = _streaming(read, behavior, encode, streams, endpoint)
    grpc_internals.sends_responses(stream)
    grpc_internals.run_in_pool(stream, endpoint.pool)
    return grpc.stream_stream_rpc_method_handler(stream)


def malformed_request() -> InvalidInput:
    """The error for bytes that are not a message of the request's type."""
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
    decode: Decode, behavior: Callable[[Any, Context], Any], encode: Encode, endpoint: _Endpoint
) -> Callable[[Iterator[bytes], Context], bytes]:
    pipeline, request_bytes = endpoint.pipeline, endpoint.request_bytes

    def handle(requests: Iterator[bytes], context: Context) -> bytes:
        rpc = endpoint.begin(context)
        held = 0
        try:
            with pipeline.admit(rpc):
                request = endpoint.message(requests, context)
                held = request_bytes.acquire(request)
                response = encode(behavior(decode(request), context))
                _add_rate_revision(rpc)
                return response
        except Exception as error:
            _refuse(rpc, error)
        finally:
            request_bytes.release(held)
            pipeline.ended(rpc)

    return handle


def _streaming(
    read: Callable[[Iterator[bytes], Stream, RpcContext], Any],
    behavior: Callable[[Any, Context], Iterable[Any]],
    encode: Encode,
    streams: Streams,
    endpoint: _Endpoint,
) -> Callable[[Iterator[bytes], Context, Send], None]:
    """``read`` turns grpc's iterator of bytes into the behavior's argument. The caller's permission
    is checked again before each message, in either direction. A behavior without a natural end
    yields None at intervals: at that point the stream ends if the client has disconnected, the
    token is revoked or the server stops."""
    pipeline = endpoint.pipeline

    def handle(requests: Iterator[bytes], context: Context, send: Send) -> None:
        rpc = endpoint.begin(context)
        try:
            with pipeline.admit(rpc), streams.opened(context, send) as stream:
                for response in behavior(read(requests, stream, rpc), context):
                    pipeline.check_again(rpc)
                    if response is not None:
                        send(encode(response))
                    if stream.over:
                        raise StreamOver
                    if response is None and streams.stopping:
                        raise shutting_down()
                _add_rate_revision(rpc)
        except StreamOver:
            rpc.code = grpc.StatusCode.CANCELLED
            return
        except Exception as error:
            _refuse(rpc, error)
        finally:
            pipeline.ended(rpc)
        # The stream's slot is free before the client receives the end, so its next stream is
        # admitted.
        send(None)

    return handle


def _one(
    decode: Decode, endpoint: _Endpoint
) -> Callable[[Iterator[bytes], Stream, RpcContext], Any]:
    return lambda requests, _stream, rpc: decode(endpoint.message(requests, rpc.context))


def _each(
    decode: Decode, endpoint: _Endpoint, *, end_counts: bool
) -> Callable[[Iterator[bytes], Stream, RpcContext], Any]:
    check_again = endpoint.pipeline.check_again

    def read(requests: Iterator[bytes], stream: Stream, rpc: RpcContext) -> Requests[Any]:
        def decode_if_permitted(data: bytes) -> Any:
            check_again(rpc)
            return decode(data)

        return Requests(stream, requests, decode_if_permitted, end_counts=end_counts)

    return read


def _as_stream(behavior: Callable[[Any, Context], Any]) -> Callable[[Any, Context], list[Any]]:
    return lambda request, context: [behavior(request, context)]


def _watching(
    decode: Decode,
    behavior: Callable[[Any, Context, Callable[[Any], None]], None],
    encode: Encode,
    streams: Streams,
    endpoint: _Endpoint,
) -> Callable[[Iterator[bytes], Context, Send], None]:
    """The handler of Health.Watch, which sends from other threads and occupies none."""
    pipeline = endpoint.pipeline

    def handle(requests: Iterator[bytes], context: Context, send: Send) -> None:
        rpc = endpoint.begin(context)
        try:
            with pipeline.admit(rpc):
                request = decode(endpoint.message(requests, context))
                stream = streams.open(context, send)
                stream.watch()
                if not context.add_callback(lambda: streams.close(stream)):
                    streams.close(stream)

                behavior(request, context, partial(endpoint.send, stream, context, encode))
        except Exception as error:
            _refuse(rpc, error)
        finally:
            pipeline.ended(rpc)

    return handle


def _add_rate_revision(rpc: RpcContext) -> None:
    """Send the new rate revision to the client if its request has changed rates."""
    if rpc.request.rate_revision:
        rpc.context.set_trailing_metadata(((RATE_REVISION_KEY, str(rpc.request.rate_revision)),))


def _refuse(rpc: RpcContext, error: Exception) -> NoReturn:
    rpc.reason = error_map.reason_of(error)
    status = error_map.refusal(error, rpc.method, rpc.fields())
    rpc.code = status.code
    rpc.is_logged = error_map.is_logged(error)
    rpc.context.abort_with_status(
        grpc_internals.with_trailer(status, request_ids.METADATA_KEY, rpc.request.id)
    )
