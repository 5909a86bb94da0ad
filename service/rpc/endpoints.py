"""The handler around every servicer method: decodes requests, encodes responses, maps errors.

A transport calls an ``Endpoint`` with bytes and gets bytes or a Failure. Exceptions do not leave
this module: the error map converts each to a Failure. Must not depend on a transport.

A servicer's method takes the request message (or an iterator of them) and the RpcCall, which only
health.py uses, and returns the response message (or an iterator of them). It raises to refuse. A
method that is marked with ``on_bytes`` takes and returns the bytes of messages instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from tollwire.service.domain.errors import InvalidInput, Reason, shutting_down, unwanted
from tollwire.service.domain.thread_context import Slot
from tollwire.service.rpc.batches import Batch, too_large
from tollwire.service.rpc.call import ClientGone, RpcCall, StreamCall, Trailers
from tollwire.service.rpc.capacity import SMALL_BYTES, Capacity
from tollwire.service.rpc.failures import failure_of
from tollwire.service.rpc.permissions import permission
from tollwire.service.rpc.pipeline import RpcContext, RpcPipeline, expect
from tollwire.service.rpc.pools import kind_of
from tollwire.service.rpc.status import Failure, Refused, StatusCode
from tollwire.service.rpc.streams import Requests, Stream, StreamOver, Streams

# Trailing metadata: the revision of a tenant's rates after a change. Clients send it back as
# min_rate_revision.
RATE_REVISION_KEY = "tollwire-rate-revision"

# One message of a stream of requests.
MAX_REQUEST_BYTES = 32 * 1024 * 1024
# The name of a service, without a token; 10,000 calls of 800 bytes; 10,000 ids of calls with 4
# bytes for each of 255 characters. All other requests have a few fields of a few hundred
# characters. Their limit, SMALL_BYTES, is far above, so that the error of a text that is too long
# names its field.
_MAX_BYTES = {
    "Health/Check": 4096,
    "Health/List": 4096,
    "Health/Watch": 4096,
    "RatingService/BatchRateCalls": 8 * 1024 * 1024,
    "CdrService/ReverseCdrs": 16 * 1024 * 1024,
}

Decode = Callable[[bytes], Any]
Encode = Callable[[Any], bytes]
# Runs a streaming RPC to its end, or until it needs no thread.
StreamHandler = Callable[[StreamCall], None]


def endpoints(
    service: ServiceDescriptor,
    servicer: object,
    streams: Streams,
    pipeline: RpcPipeline,
    capacity: Capacity,
    *,
    name: str = "",
) -> Sequence[Endpoint]:
    """The endpoints of all methods of ``service``. ``streams`` limits its streams, ``capacity`` has
    the threads of all RPCs, ``pipeline`` admits them. ``name`` replaces the name in the descriptor.
    LookupError if a method has no entry in the table of permissions."""
    return [
        Endpoint(method, servicer, streams, pipeline, capacity, service_name=name)
        for method in service.methods
    ]


def on_bytes(behavior: Callable[..., Any]) -> Any:
    """Mark a servicer's method that takes and returns the bytes of messages."""
    behavior.on_bytes = True  # type: ignore[attr-defined]
    return behavior


def in_batches(name: str, *, ends_later: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Mark a unary method whose RPCs the servicer's method ``name``, a Batch, runs together if they
    are received together. ``ends_later``: the Batch returns before its RPCs end."""

    def mark(behavior: Callable[..., Any]) -> Any:
        behavior.batch = name  # type: ignore[attr-defined]
        behavior.ends_later = ends_later  # type: ignore[attr-defined]
        return behavior

    return mark


def sends_responses(behavior: Callable[..., Any]) -> Any:
    """Mark a servicer's method that gets a function to send responses as its third argument. It
    returns at once, and other threads send until the client leaves."""
    behavior.sends_responses = True  # type: ignore[attr-defined]
    return behavior


def malformed_request() -> InvalidInput:
    """The error for bytes that are not a message of the request's type."""
    return InvalidInput(
        Reason.MALFORMED_REQUEST,
        "the request is not a valid message: its bytes are damaged, or a string is not UTF-8",
    )


class Endpoint:
    """One method: its name, the kind and the pool of its RPCs, and its handler. Thread-safe."""

    def __init__(
        self,
        method: MethodDescriptor,
        servicer: object,
        streams: Streams,
        pipeline: RpcPipeline,
        capacity: Capacity,
        *,
        service_name: str = "",
    ) -> None:
        self.name = f"{method.containing_service.name}/{method.name}"
        permission(self.name)
        self.service_name = service_name or method.containing_service.full_name
        self.method_name = method.name
        self.kind = kind_of(method)
        self.pool = capacity.pools[self.kind]
        self.is_unary = not method.client_streaming and not method.server_streaming
        self.has_one_request = not method.client_streaming
        self.max_request_bytes = _MAX_BYTES.get(self.name, SMALL_BYTES)
        if method.client_streaming:
            self.max_request_bytes = MAX_REQUEST_BYTES
        self.pipeline = pipeline
        self.request_bytes = capacity.request_bytes
        self.message_deadlines = capacity.message_deadlines
        behavior = getattr(servicer, method.name)
        self._decode: Decode = _unchanged
        self._encode: Encode = _unchanged
        if not getattr(behavior, "on_bytes", False):
            self._decode = _decoder(GetMessageClass(method.input_type).FromString)
            self._encode = GetMessageClass(method.output_type).SerializeToString
        self._behavior = behavior
        # Runs RPCs that were received together; None: each runs alone.
        self.batch: Batch | None = None
        if batch := getattr(behavior, "batch", ""):
            self.batch = getattr(servicer, batch)
        self.ends_later: bool = getattr(behavior, "ends_later", False)
        if not self.is_unary:
            self.run_stream = self._stream_handler(method, streams)
        expect(self.name)

    def begin(self, call: RpcCall) -> RpcContext:
        return RpcContext(self.name, call, self.kind)

    def refusal(self, rpc: RpcContext, slot: Slot) -> Failure:
        """The end of an RPC that has got no slot, for this reason."""
        try:
            self.pipeline.enter(rpc, slot)
        except Exception as error:
            return failure_of(rpc, error)
        finally:
            self.pipeline.leave(rpc)
            self.pipeline.ended(rpc)
        raise AssertionError("an RPC without a slot was admitted")

    def respond(self, rpc: RpcContext, request: bytes) -> bytes:
        """The response to the request of a unary RPC that is admitted, in its thread."""
        return self._encode(self._behavior(self._decode(request), rpc.call))

    def message(self, call: StreamCall) -> bytes:
        """The one message of an RPC that has not sent it yet. Cancels the RPC if that takes too
        long. InvalidInput if there is none."""
        self.message_deadlines.start(call, self.kind)
        try:
            request = call.receive()
        except ClientGone as error:
            raise unwanted() from error
        finally:
            self.message_deadlines.stop(call)
        if request is None:
            raise malformed_request() if call.is_wanted() else unwanted()
        if len(request) > self.max_request_bytes:
            self.request_bytes.refuse(request)
            raise Refused(too_large(len(request), self.max_request_bytes))
        return request

    def _send(self, stream: Stream, call: StreamCall, response: Any) -> None:
        """Send to a client that only receives. Cancels its RPC if that takes too long."""
        self.message_deadlines.start(call, self.kind)
        try:
            stream.send(self._encode(response))
        finally:
            self.message_deadlines.stop(call)

    def _stream_handler(self, method: MethodDescriptor, streams: Streams) -> StreamHandler:
        if getattr(self._behavior, "sends_responses", False):
            return partial(self._watch, streams)
        if not method.client_streaming:
            return partial(self._stream, streams, self._one)
        read = partial(self._each, end_counts=not method.server_streaming)
        if not method.server_streaming:
            # On the wire one response is a stream of one. Run like this, the RPC can be ended while
            # it waits.
            self._behavior = _as_stream(self._behavior)
        return partial(self._stream, streams, read)

    def _stream(
        self,
        streams: Streams,
        read: Callable[[Stream, RpcContext, StreamCall], Any],
        call: StreamCall,
    ) -> None:
        """A behaviour that waits yields None at intervals: at that point the stream ends if the
        client has left, the token is revoked or the server stops."""
        pipeline = self.pipeline
        rpc = self.begin(call)
        failure: Failure | None = None
        stream: Stream | None = None
        try:
            with pipeline.admit(rpc), streams.opened(call, self.kind) as stream:
                for response in self._behavior(read(stream, rpc, call), call):
                    pipeline.check_again(rpc)
                    if response is not None:
                        stream.respond(self._encode(response))
                    if stream.over:
                        raise StreamOver
                    if response is None and streams.stopping:
                        raise shutting_down()
        except StreamOver:
            rpc.code = StatusCode.CANCELLED
            if stream is not None and stream.fault is not None:
                failure_of(rpc, stream.fault)  # the client has it already
            return
        except Exception as error:
            failure = failure_of(rpc, error)
        finally:
            pipeline.ended(rpc)
        # The stream's slot is free before the client receives the end, so its next stream is
        # admitted.
        call.end(failure, success_trailers(rpc))

    def _one(self, stream: Stream, rpc: RpcContext, call: StreamCall) -> Any:
        self.request_bytes.check()
        return self._decode(self.message(call))

    def _each(
        self, stream: Stream, rpc: RpcContext, call: StreamCall, *, end_counts: bool
    ) -> Requests[Any]:
        check_again, decode = self.pipeline.check_again, self._decode

        def decode_if_permitted(data: bytes) -> Any:
            check_again(rpc)
            return decode(data)

        return Requests(stream, decode_if_permitted, end_counts=end_counts)

    def _watch(self, streams: Streams, call: StreamCall) -> None:
        """The handler of Health.Watch, which sends from other threads and occupies none."""
        rpc = self.begin(call)
        failure: Failure | None = None
        try:
            with self.pipeline.admit(rpc):
                self.request_bytes.check()
                request = self._decode(self.message(call))
                stream = streams.open(call, self.kind)
                stream.watch()
                if not call.on_end(lambda: streams.close(stream)):
                    streams.close(stream)
                self._behavior(request, call, partial(self._send, stream, call))
        except Exception as error:
            failure = failure_of(rpc, error)
        finally:
            self.pipeline.ended(rpc)
        if failure is not None:
            call.end(failure)


def success_trailers(rpc: RpcContext) -> Trailers:
    """The new rate revision, if the request has changed rates."""
    if not rpc.request.rate_revision:
        return ()
    return ((RATE_REVISION_KEY, str(rpc.request.rate_revision)),)


def _unchanged(data: bytes) -> bytes:
    return data


def _decoder(parse: Decode) -> Decode:
    def decode(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError as error:
            raise malformed_request() from error

    return decode


def _as_stream(behavior: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Iterable[Any]]:
    return lambda request, call: [behavior(request, call)]
