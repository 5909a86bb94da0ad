"""BatchRateCalls and StreamRateCalls: the core turns the request's bytes into the response's bytes.

This path creates message objects only for the few calls that the core does not rate: calls whose
fields are out of order, and calls that have no cost or no known tenant. They take the path of a
single call, through ``conversion`` and service/rating/calls.py, which write the error messages.
"""

from __future__ import annotations

import time

from google.protobuf.field_mask_pb2 import FieldMask

from ratingcore.wire.rate_calls import (
    MalformedRequest,
    OtherOptions,
    TooManyCalls,
    likely_options,
    rate_request,
)
from ratingcore.wire.tally import Tally
from tollwire.service.domain.errors import invalid_field
from tollwire.service.domain.model import MAX_BATCH_CALLS
from tollwire.service.domain.thread_context import stop_if_over
from tollwire.service.rating.calls import Calls
from tollwire.service.rpc.conversion import calls
from tollwire.service.rpc.endpoints import malformed_request
from tollwire.v1 import types_pb2

_VIEWS = frozenset(types_pb2.RatedCallView.values())
_VIEW_NAMES = " or ".join(name for name in types_pb2.RatedCallView.keys()[1:])
_BASIC_FIELDS = FieldMask(paths=["status", "bill_seconds", "cost", "rate_id", "error"])


class BulkRating:
    """Rates requests whose field 1 is repeated Call. Thread-safe."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def rate(self, request: bytes, tally: Tally) -> bytes:
        """The response's bytes. ``tally`` counts the calls. InvalidInput if the request is
        malformed or has too many calls."""
        try:
            min_revision, view = likely_options(request)
            try:
                return self._rate(request, min_revision, view, tally)
            except OtherOptions as other:
                return self._rate(request, other.min_rate_revision, other.view, tally)
        except MalformedRequest as error:
            raise malformed_request() from error
        except TooManyCalls as error:
            raise invalid_field("calls", f"at most {MAX_BATCH_CALLS} in one message") from error

    def _rate(self, request: bytes, min_revision: int, view: int, tally: Tally) -> bytes:
        """``min_revision``, ``view``: the options of the request, or a guess that the core checks
        (OtherOptions)."""
        checked_min_revision(min_revision)
        if view not in _VIEWS:
            raise invalid_field("view", f"must be {_VIEW_NAMES}, got {view}")
        now_ns = time.time_ns()
        asked_at = time.monotonic()
        return rate_request(
            request,
            lambda tenant_id: self._calls.deck(tenant_id, min_revision, asked_at),
            lambda call: _in_view(
                view, self._rate_alone(call, now_ns, min_revision, asked_at, tally)
            ).SerializeToString(),
            now_ns,
            MAX_BATCH_CALLS,
            min_revision,
            view,
            tally,
        )

    def _rate_alone(
        self, data: bytes, now_ns: int, min_revision: int, asked_at: float, tally: Tally
    ) -> types_pb2.RatedCall:
        """Rate one call that the core has not rated, from its bytes. Takes a hundred times as long
        as in the core, so the request ends here if its client has left."""
        stop_if_over()
        message = types_pb2.Call.FromString(data)
        if min_revision:
            self._calls.deck(message.tenant_id, min_revision, asked_at)
        batch = calls.read_calls([message], now_ns=now_ns)
        result = self._calls.rate_batch(batch, asked_at)[0]
        if result.error is None:
            tally.add(result.status, result.unrated_reason or 0)
        rated = types_pb2.RatedCall()
        calls.write_rated(result, rated)
        return rated


def _in_view(view: int, rated: types_pb2.RatedCall) -> types_pb2.RatedCall:
    """The fields of the view. An error is in every view."""
    if view == types_pb2.RATED_CALL_VIEW_BASIC:
        _BASIC_FIELDS.MergeMessage(rated, basic := types_pb2.RatedCall())
        return basic
    return rated


def checked_min_revision(given: int) -> int:
    """A min_rate_revision. InvalidInput if it is negative."""
    if given < 0:
        raise invalid_field("min_rate_revision", f"must not be negative, got {given}")
    return given
