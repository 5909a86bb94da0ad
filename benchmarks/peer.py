"""The servers that Tollwire is compared with, with the settings of its own server and interpreter.

``python -m benchmarks.peer KIND [EVERY]`` prints one line with its address and serves until it is
stopped. EVERY n: it has every n-th rate of the real deck.

floor: StreamRateCalls returns the request's bytes untouched; RateCall reads its message and returns
a constant one. The rest is the cost of the transport.

objects: StreamRateCalls without a codec of its own: a message object for each call, read and
written by the protobuf library, each call rated on its own.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from benchmarks.real_deck import real_deck
from benchmarks.workload import core_deck
from ratingcore import RATED, Deck
from tollwire.service.domain.money import cost_e8, format_cost, format_price
from tollwire.service.process import tuning
from tollwire.service.rpc import server as tollwire_server
from tollwire.service.rpc.pools import RATING_THREADS
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1.types_pb2 import RATING_STATUS_RATED, RatedCall

CONSTANT = pb.RateCallResponse(
    rated=RatedCall(
        call_id="0123456789abcdef",
        status=RATING_STATUS_RATED,
        bill_seconds=66,
        cost="0.1650",
        rate_id=123_456,
        matched_prefix="447911",
        destination="United Kingdom, Vodafone",
        cost_per_minute="0.1500",
        billing_increment=6,
        rate_revision=1,
    )
)


def floor_handlers() -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    def echo(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from requests

    def constant(request: pb.RateCallRequest, context: grpc.ServicerContext) -> pb.RateCallResponse:
        return CONSTANT

    return {
        "StreamRateCalls": grpc.stream_stream_rpc_method_handler(echo),
        "RateCall": grpc.unary_unary_rpc_method_handler(
            constant, pb.RateCallRequest.FromString, pb.RateCallResponse.SerializeToString
        ),
    }


def objects_handlers(deck: Deck) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    def rate(
        requests: Iterator[pb.StreamRateCallsRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.StreamRateCallsResponse]:
        for request in requests:
            response = pb.StreamRateCallsResponse()
            for call in request.calls:
                started_at_ns = call.started_at.seconds * 10**9 + call.started_at.nanos
                rating = deck.rate(
                    call.destination_number, started_at_ns, call.duration_seconds, True
                )
                if rating.status != RATED:
                    raise ValueError(f"not rated: {call.destination_number}")
                response.rated.add(
                    call_id=call.call_id,
                    status=RATING_STATUS_RATED,
                    bill_seconds=rating.bill_seconds,
                    cost=format_cost(cost_e8(rating.cost_scaled or 0, 4), 4),
                    rate_id=rating.rate_id,
                    matched_prefix=rating.matched_prefix,
                    destination=rating.destination,
                    cost_per_minute=format_price(rating.cost_per_minute_e8 or 0),
                    billing_increment=rating.billing_increment,
                    rate_revision=deck.revision,
                )
            yield response

    return {
        "StreamRateCalls": grpc.stream_stream_rpc_method_handler(
            rate,
            pb.StreamRateCallsRequest.FromString,
            pb.StreamRateCallsResponse.SerializeToString,
        )
    }


def main(kind: str, every: int = 1) -> None:
    tuning.reduce_pauses()
    if kind == "floor":
        handlers = floor_handlers()
    else:
        handlers = objects_handlers(core_deck(real_deck(every)))
    server = grpc.server(
        ThreadPoolExecutor(RATING_THREADS),
        options=(*tollwire_server.OPTIONS, ("grpc.so_reuseport", 0)),
    )
    server.add_registered_method_handlers("tollwire.v1.RatingService", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    tuning.freeze_loaded_objects()
    server.start()
    print(f"{kind}: serving on 127.0.0.1:{port}", flush=True)
    stop.wait()
    server.stop(1).wait()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
