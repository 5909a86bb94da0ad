"""The bulk path of rating: from the request's bytes to the response's bytes inside the core.

BatchRateCalls and StreamRateCalls make no message object, but for the few calls that the core
leaves alone: those whose fields are not in order, or whose cost or tenant is not to be had. These
go the way of a single call, through conversion and service.calls, which word what is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ratingcore import Deck
from ratingcore.wire import MalformedRequest, TooManyCalls, rate_request
from service.calls import Calls
from service.errors import invalid_field
from service.model import MAX_BATCH_CALLS
from service.rpc.conversion import calls
from service.rpc.interceptors import malformed_request
from tollwire.v1 import types_pb2


class BulkRating:
    """Rates requests whose field 1 is repeated Call. Thread-safe."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def rate(self, request: bytes) -> bytes:
        """The response's bytes. InvalidInput where the request is malformed or too large."""
        now_ns = time.time_ns()
        try:
            return rate_request(
                request, self._find_deck, self._refer(now_ns), now_ns, MAX_BATCH_CALLS
            )
        except MalformedRequest as error:
            raise malformed_request() from error
        except TooManyCalls as error:
            raise invalid_field("calls", f"at most {MAX_BATCH_CALLS} in one message") from error

    def _find_deck(self, tenant_id: int) -> Deck | None:
        return self._calls.deck_in_memory(tenant_id)

    def _refer(self, now_ns: int) -> Callable[[bytes], bytes]:
        def refer(data: bytes) -> bytes:
            batch = calls.read_calls([types_pb2.Call.FromString(data)], now_ns=now_ns)
            rated = types_pb2.RatedCall()
            calls.write_rated(self._calls.rate_batch(batch)[0], rated)
            return rated.SerializeToString()

        return refer
