"""A rate deck that arrives in many messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from service.errors import FailedPrecondition, Reason, invalid_field
from service.model import ImportMode, Rate, RateError
from service.rate_checks import check_terms
from service.rpc.conversion import fields
from service.rpc.conversion.fields import REQUIRED, Wrong
from service.rpc.conversion.rates import read_rate
from tollwire.v1 import rating_service_pb2 as pb

_MODES = fields.members(ImportMode)


@dataclass(frozen=True, slots=True)
class IncomingDeck:
    """``rates`` reads from the client as it is consumed. Errors with one index stand for a rate
    that could not be read."""

    tenant_id: int
    mode: ImportMode
    dry_run: bool
    rates: Iterator[Rate | RateError]


def read_deck(
    requests: Iterator[pb.ImportRatesRequest], has_all: Callable[[], None]
) -> IncomingDeck:
    """Takes the first request, which says what the deck is for. ``has_all`` is called once as many
    rates have come as the requests state: the end of the requests then needs no further proof."""
    first = next(requests, None)
    if first is None:
        raise invalid_field("tenant_id", f"{REQUIRED}: the deck has no first message")
    wrong = Wrong()
    if first.tenant_id <= 0:
        wrong.add("tenant_id", f"{REQUIRED} in the first message, and above 0")
    mode = fields.enum(first.mode, _MODES, "import mode", "mode", wrong, ImportMode.MERGE)
    wrong.refuse()
    return IncomingDeck(first.tenant_id, mode, first.dry_run, _rates(first, requests, has_all))


def _rates(
    first: pb.ImportRatesRequest,
    requests: Iterator[pb.ImportRatesRequest],
    has_all: Callable[[], None],
) -> Iterator[Rate | RateError]:
    index = 0
    stated: int | None = None
    request: pb.ImportRatesRequest | None = first
    while request is not None:
        stated = _check_head(request, first, stated)
        for message in request.rates:
            wrong = Wrong()
            rate = read_rate(message, wrong)
            if wrong:
                # The import judges what can be read; here is the rest, all of it at once as well.
                wrong.merge(check_terms(rate))
                for violation in wrong:
                    yield RateError(index, violation.field, violation.description)
            else:
                yield rate
            index += 1
        if stated == index:
            has_all()
        request = next(requests, None)
    if stated is not None and stated != index:
        raise _incomplete(stated, index)


def _check_head(
    request: pb.ImportRatesRequest, first: pb.ImportRatesRequest, stated: int | None
) -> int | None:
    """Later messages repeat what the first said, or leave it unset. Returns the rate_count that was
    stated so far."""
    wrong = Wrong()
    if request.HasField("rate_count"):
        if request.rate_count < 0:
            wrong.add("rate_count", f"must be 0 or above, got {request.rate_count}")
        elif stated not in (None, request.rate_count):
            wrong.add("rate_count", f"must stay {stated} for the whole deck")
        stated = request.rate_count
    if request.tenant_id not in (0, first.tenant_id):
        wrong.add("tenant_id", f"must stay {first.tenant_id} for the whole deck")
    if request.mode not in (0, first.mode):
        wrong.add("mode", "must stay the same for the whole deck")
    if request.dry_run and not first.dry_run:
        wrong.add("dry_run", "must be set in the first message to hold for the deck")
    wrong.refuse()
    return stated


def _incomplete(stated: int, received: int) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.IMPORT_INCOMPLETE,
        f"the deck should have {stated} rates, but {received} came; nothing was changed",
        metadata={"expected_count": str(stated), "received_count": str(received)},
    )
