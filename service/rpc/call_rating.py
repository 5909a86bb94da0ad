"""RateCall: the core turns the request's bytes into the response's bytes, without message objects.

The core answers requests whose call has a price: nearly all. Other requests go through message
objects and service/rating/calls.py, which writes the error messages and the explanations. This
module has no rating rules.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from google.protobuf.message import DecodeError

from ratingcore import Deck
from ratingcore.wire.rate_calls import rate_lone_call, rate_lone_calls
from tollwire.service.domain.errors import TollwireError
from tollwire.service.domain.thread_context import set_current_request
from tollwire.service.observability import tallies
from tollwire.service.rating.calls import Calls
from tollwire.service.rpc.batches import AdmittedRpc
from tollwire.service.rpc.bulk_rating import checked_min_revision
from tollwire.service.rpc.conversion import calls
from tollwire.service.rpc.endpoints import malformed_request
from tollwire.v1 import rating_service_pb2 as pb


class CallRating:
    """Rates RateCallRequests. Thread-safe."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def rate(self, request: bytes) -> bytes:
        """The response's bytes. Raises what Calls.rate does; InvalidInput for a bad request."""
        now_ns = time.time_ns()
        response = rate_lone_call(request, self._calls.deck_in_memory, now_ns, tallies.RATE_CALL)
        if response is None:
            return self._by_message(request, now_ns).SerializeToString()
        return response

    def rate_batch(self, batch: Sequence[AdmittedRpc]) -> None:
        """Rates RateCalls that were received together in one call of the core."""
        answers = rate_lone_calls(
            [one.request for one in batch],
            partial(self._deck_for, batch),
            time.time_ns(),
            tallies.RATE_CALL,
        )
        set_current_request(None)
        for one, answer in zip(batch, answers, strict=True):
            if answer is None:
                one.run_alone()
            else:
                one.finish(answer)

    def _deck_for(self, batch: Sequence[AdmittedRpc], index: int, tenant_id: int) -> Deck | None:
        """The deck, if the caller of this RPC may see the tenant."""
        set_current_request(batch[index].rpc.request)
        return self._calls.deck_in_memory(tenant_id)

    def _by_message(self, data: bytes, now_ns: int) -> pb.RateCallResponse:
        try:
            request = pb.RateCallRequest.FromString(data)
        except DecodeError as error:
            raise malformed_request() from error
        call = calls.required_call(request.call, present=request.HasField("call"), now_ns=now_ns)
        min_revision = checked_min_revision(request.min_rate_revision)
        response = pb.RateCallResponse()
        try:
            if request.explain:
                rated, explained = self._calls.explain(call, min_revision)
                response.explanation.CopyFrom(calls.explanation(explained))
            else:
                rated = self._calls.rate(call, min_revision)
        except TollwireError as error:
            tallies.count_unrated(tallies.RATE_CALL, error.reason)
            raise
        tallies.RATE_CALL.add(rated.status)
        calls.write_rated(rated, response.rated)
        return response
