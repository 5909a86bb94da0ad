"""The messages of ImportRates: reads a rate deck from their bytes into an Intake.

The core reads the rates that are plainly valid. The others, invalid or only unusual, take the path
of a single rate and get the same checks and error messages as with CreateRate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

import ratingcore
from tollwire.service.domain.errors import FailedPrecondition, Reason, invalid_field
from tollwire.service.domain.model import ImportMode, ImportPlan, RateError
from tollwire.service.rating.deck_import import Intake
from tollwire.service.rating.rate_checks import check_terms
from tollwire.service.rpc.conversion import fields
from tollwire.service.rpc.conversion.fields import REQUIRED, Violations
from tollwire.service.rpc.conversion.rates import read_rate
from tollwire.v1 import types_pb2

_MODES = fields.members(ImportMode)


@dataclass(frozen=True, slots=True)
class Head:
    """The fields of one message besides its rates, and how many rates it has. ``mode`` is the
    number on the wire; ``effective_from`` is (seconds, nanoseconds)."""

    tenant_id: int
    mode: int
    dry_run: bool
    rate_count: int | None
    effective_from: tuple[int, int] | None
    allow_gap: bool
    rates: int


class IncomingRequests:
    """The messages of one import. The constructor reads the first: it has the import's options."""

    def __init__(
        self,
        requests: Iterator[bytes],
        malformed: Callable[[], Exception],
        has_all: Callable[[], None],
    ) -> None:
        """``malformed`` creates the error for bytes that are not a message. ``has_all`` is called
        when the stated number of rates has arrived: then it need not be certain that the client
        has sent the end of the stream."""
        self._requests = requests
        self._malformed = malformed
        self._has_all = has_all
        first = next(requests, None)
        if first is None:
            raise invalid_field("tenant_id", f"{REQUIRED}: the deck has no first message")
        self._first = first
        self._head = self._read_head(first)
        violations = Violations()
        if self._head.tenant_id <= 0:
            violations.add("tenant_id", f"{REQUIRED} in the first message, and above 0")
        mode = fields.enum(
            self._head.mode, _MODES, "import mode", "mode", violations, ImportMode.MERGE
        )
        start_ns = None
        if self._head.effective_from is not None:
            seconds, nanos = self._head.effective_from
            start_ns = fields.time_ns(
                Timestamp(seconds=seconds, nanos=nanos), "effective_from", violations
            )
        violations.raise_if_any()
        self.plan = ImportPlan(
            self._head.tenant_id, mode, self._head.dry_run, start_ns, self._head.allow_gap
        )

    def fill(self, intake: Intake) -> None:
        """Put all rates into the intake as they arrive. Once it has all errors that a response
        shows, the other rates are not looked at: nothing will be changed."""
        stated: int | None = None
        request: bytes | None = self._first
        head = self._head
        while request is not None:
            stated = _check_head(head, self._head, stated)
            intake.expect(head.rates)
            for index, data in intake.read(request):
                _put_or_reject(intake, index, data)
                if intake.is_hopeless:
                    for _ in self._requests:
                        pass
                    return
            if stated == intake.deck.seen:
                self._has_all()
            request = next(self._requests, None)
            if request is not None:
                head = self._read_head(request)
        if stated is not None and stated != intake.deck.seen:
            raise _incomplete(stated, intake.deck.seen)

    def _read_head(self, request: bytes) -> Head:
        try:
            return Head(*ratingcore.read_head(request))
        except ValueError as error:
            raise self._malformed() from error


def _put_or_reject(intake: Intake, index: int, data: bytes) -> None:
    violations = Violations()
    rate = read_rate(types_pb2.Rate.FromString(data), violations)
    if violations:
        # The intake checks rates that can be read. For the others all violations are reported here.
        violations.merge(check_terms(intake.dated(rate)))
        for violation in violations:
            intake.reject(RateError(index, violation.field, violation.description))
    else:
        intake.put(index, rate)


def _check_head(head: Head, first: Head, stated: int | None) -> int | None:
    """Check that a later message repeats the options of the first, or leaves them unset. Returns
    the rate_count stated so far."""
    violations = Violations()
    if head.rate_count is not None:
        if head.rate_count < 0:
            violations.add("rate_count", f"must be 0 or above, got {head.rate_count}")
        elif stated not in (None, head.rate_count):
            violations.add("rate_count", f"must stay {stated} for the whole deck")
        stated = head.rate_count
    if head.tenant_id not in (0, first.tenant_id):
        violations.add("tenant_id", f"must stay {first.tenant_id} for the whole deck")
    if head.mode not in (0, first.mode):
        violations.add("mode", "must stay the same for the whole deck")
    if head.dry_run and not first.dry_run:
        violations.add("dry_run", "must be set in the first message to apply to the deck")
    if head.effective_from not in (None, first.effective_from):
        violations.add("effective_from", "must be set in the first message and stay the same")
    if head.allow_gap and not first.allow_gap:
        violations.add("allow_gap", "must be set in the first message to apply to the deck")
    violations.raise_if_any()
    return stated


def _incomplete(stated: int, received: int) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.IMPORT_INCOMPLETE,
        f"the deck should have {stated} rates, but {received} arrived; nothing was changed",
        metadata={"expected_count": str(stated), "received_count": str(received)},
    )
