"""The bulk path of rating: from the request's bytes to the response's bytes inside the core.

BatchRateCalls and StreamRateCalls make no message object, but for the few calls that the core
leaves alone: those whose fields are not in order, or whose cost or tenant is not to be had. These
go the way of a single call, through conversion and tollwire.service.rating.calls, which word what
is wrong.
"""

from __future__ import annotations

import time

from ratingcore.wire.rate_calls import (
    MalformedRequest,
    OtherRevision,
    TooManyCalls,
    likely_min_rate_revision,
    rate_request,
)
from ratingcore.wire.tally import Tally
from tollwire.service.domain.errors import invalid_field
from tollwire.service.domain.model import MAX_BATCH_CALLS
from tollwire.service.rating.calls import Calls
from tollwire.service.rpc.conversion import calls
from tollwire.service.rpc.interceptors import malformed_request
from tollwire.v1 import types_pb2


class BulkRating:
    """Rates requests whose field 1 is repeated Call. Thread-safe."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def rate(self, request: bytes, tally: Tally) -> bytes:
        """The response's bytes. ``tally`` counts the calls. InvalidInput where the request is
        malformed or too large."""
        try:
            least = likely_min_rate_revision(request)
            try:
                return self._rate(request, least, tally)
            except OtherRevision as other:
                return self._rate(request, other.demanded, tally)
        except MalformedRequest as error:
            raise malformed_request() from error
        except TooManyCalls as error:
            raise invalid_field("calls", f"at most {MAX_BATCH_CALLS} in one message") from error

    def _rate(self, request: bytes, least: int, tally: Tally) -> bytes:
        """``least``: the min_rate_revision, as far as it is known."""
        least_revision(least)
        now_ns = time.time_ns()
        asked_at = time.monotonic()
        return rate_request(
            request,
            lambda tenant_id: self._calls.deck(tenant_id, least, asked_at),
            lambda call: self._rate_alone(call, now_ns, least, asked_at, tally),
            now_ns,
            MAX_BATCH_CALLS,
            least,
            tally,
        )

    def _rate_alone(
        self, data: bytes, now_ns: int, least: int, asked_at: float, tally: Tally
    ) -> bytes:
        """The RatedCall's bytes for a Call's bytes that the core has left alone."""
        message = types_pb2.Call.FromString(data)
        if least:
            self._calls.deck(message.tenant_id, least, asked_at)
        batch = calls.read_calls([message], now_ns=now_ns)
        result = self._calls.rate_batch(batch, asked_at)[0]
        if result.error is None:
            tally.add(result.status, result.unrated_reason or 0)
        rated = types_pb2.RatedCall()
        calls.write_rated(result, rated)
        return rated.SerializeToString()


def least_revision(given: int) -> int:
    """A min_rate_revision. InvalidInput where it is negative."""
    if given < 0:
        raise invalid_field("min_rate_revision", f"must not be negative, got {given}")
    return given
