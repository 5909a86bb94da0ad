"""CreateCdr: single calls, recorded in groups (``group_commit``).

One transaction records all calls of a group, as an upload's chunk is recorded. Each caller gets its
own answer, once the transaction is durable. If a group fails for a reason that may lie in one of
its calls, it is recorded again in parts, so that no call fails for another one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ratingcore.record.records import Records
from ratingcore.record.single_calls import joined
from tollwire.service.cache.decks import Decks
from tollwire.service.domain.errors import (
    AlreadyExists,
    FieldViolation,
    InvalidInput,
    NotFound,
    Reason,
    TollwireError,
    Unavailable,
)
from tollwire.service.domain.model import (
    Call,
    Cdr,
    Direction,
    Disposition,
    Extension,
    Rate,
    RatingStatus,
    Tenant,
    UnratedReason,
)
from tollwire.service.domain.request import EVERY_TENANT, Request, Scope
from tollwire.service.domain.thread_context import current_request
from tollwire.service.record.group_commit import GroupCommit, Submission, copies
from tollwire.service.record.recording import (
    Rated,
    Recorder,
    Recording,
    Refusal,
    count_recorded,
    count_refused,
    enter,
    expect_records,
    holding,
    unknown_tenant,
)
from tollwire.service.storage import cdr_lists
from tollwire.service.storage.engine import Connection, Database
from tollwire.service.storage.failures import is_lock

_METHOD = "CdrService/CreateCdr"
# Of one transaction. An upload's chunk may have ten times as many.
MAX_GROUP_CALLS = 1_000
_E8 = 10**8

_REFUSED: dict[Reason, type[TollwireError]] = {
    Reason.TENANT_NOT_FOUND: NotFound,
    Reason.EXTENSION_NOT_FOUND: NotFound,
    Reason.COST_OVERFLOW: InvalidInput,
    Reason.CDR_CONFLICT: AlreadyExists,
}


@dataclass(frozen=True, slots=True)
class _SingleCall:
    """A list of one call, and the tenants that its caller may see."""

    records: Records
    scope: Scope

    @property
    def tenant_id(self) -> int:
        return self.records.key(0)[0]


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A call that was recorded just now, as the first one of its call_id: the call at ``position``
    of ``records``, and what its CDR refers to."""

    cdr_id: int
    records: Records
    position: int
    created_at_ns: int
    tenant: Tenant
    extension: Extension | None
    rate: Rate | None

    def cdr(self) -> Cdr:
        """The same as a CDR."""
        content = self.records.content(self.position)
        outcome = self.records.outcome(self.position)
        units, reason = outcome.cost_units, outcome.unrated_reason
        return Cdr(
            id=self.cdr_id,
            call=Call(
                tenant_id=content.tenant_id,
                destination_number=content.destination_number,
                direction=Direction(content.direction),
                disposition=Disposition(content.disposition),
                duration_seconds=content.duration_seconds,
                started_at_ns=content.started_at_ns,
                ended_at_ns=content.ended_at_ns,
                extension_id=content.extension_id,
                caller_number=content.caller_number,
                call_id=content.call_id,
            ),
            tenant=self.tenant,
            extension=self.extension,
            status=RatingStatus(outcome.status),
            unrated_reason=None if reason is None else UnratedReason(reason),
            bill_seconds=outcome.bill_seconds,
            cost_e8=None if units is None else units * _E8 + (outcome.cost_fraction_e8 or 0),
            rate=self.rate,
            rate_revision=outcome.rate_revision,
            upload_id=0,
            created_at_ns=self.created_at_ns,
            reversal=None,
        )


Outcome: TypeAlias = RecordedCall | Cdr | Exception


class SingleCalls:
    """Records calls one by one for their callers. Thread-safe."""

    def __init__(
        self, database: Database, decks: Decks, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._decks = decks
        self._recorder = Recorder(decks, clock_ns)
        self._rates = cdr_lists.RateCache()
        self._groups: GroupCommit[_SingleCall, RecordedCall | Cdr] = GroupCommit(
            self._commit, max_items=MAX_GROUP_CALLS, wait_seconds=database.wait_seconds
        )
        expect_records(_METHOD)

    def record(self, records: Records) -> RecordedCall | Cdr:
        """Rate and record the one call of ``records``; of a duplicate, the CDR that is recorded.
        NotFound, InvalidInput or AlreadyExists if the call is refused."""
        return self._groups.run(self._call(records, current_request()))

    def submit(
        self,
        submissions: Sequence[Submission[Records, RecordedCall | Cdr]],
        start: Callable[[Callable[[], None]], object],
    ) -> None:
        """The same for calls that arrive together, each with its request and its callback.
        ``start`` as for GroupCommit.submit."""
        calls: list[Submission[_SingleCall, RecordedCall | Cdr]] = []
        for one in submissions:
            try:
                call = self._call(one.item, one.request)
            except TollwireError as error:
                one.done(error)
            else:
                calls.append(Submission(call, one.request, one.done))
        self._groups.submit(calls, start)

    def _call(self, records: Records, request: Request) -> _SingleCall:
        """NotFound if the caller may not see the call's tenant."""
        call = _SingleCall(records, request.caller.scope)
        request.concerns(call.tenant_id)
        if not call.scope.covers(call.tenant_id):
            count_refused(_METHOD, 0, 1)
            raise _error(Refusal(0, "", *unknown_tenant(call.tenant_id)))
        return call

    def _commit(self, calls: Sequence[_SingleCall]) -> Sequence[Outcome]:
        """One outcome for each call, in order."""
        try:
            return self._record(calls)
        except Exception as error:
            parts = _parts(calls, error)
            if len(parts) == 1:
                raise
        outcomes: dict[int, Outcome] = {}
        for part in parts:
            of_part: Sequence[Outcome]
            try:
                of_part = self._commit(part)
            except Exception as failure:
                of_part = copies(failure, len(part))
            outcomes |= {id(call): outcome for call, outcome in zip(part, of_part, strict=True)}
        return [outcomes[id(call)] for call in calls]

    def _record(self, calls: Sequence[_SingleCall]) -> Sequence[Outcome]:
        records = joined(call.records for call in calls)
        with self._decks.recording(holding(records, _scope_of(calls))) as (connection, parties):
            rated = self._recorder.rate(connection, records, parties)
            # Before the calls are written: that may commit.
            rates = self._rates_of(connection, rated)
            recording = self._recorder.write(connection, rated, 0, commits=True)
            outcomes = self._outcomes(connection, records, recording, rates)
            enter(connection, recording)
        count_recorded(_METHOD, recording)
        conflicts = recording.conflicts
        count_refused(_METHOD, conflicts, len(recording.refusals) - conflicts)
        return outcomes

    def _rates_of(self, connection: Connection, rated: Rated) -> dict[int, Rate | None]:
        """The rates of the calls that may be new, by their positions."""
        version_ids = {one: rated.records.outcome(one).rate_version_id for one in rated.new}
        wanted = {one for one in version_ids.values() if one is not None}
        rates = self._rates.find(connection, wanted)
        return {
            position: None if version_id is None else rates[version_id]
            for position, version_id in version_ids.items()
        }

    def _outcomes(
        self,
        connection: Connection,
        records: Records,
        recording: Recording,
        rates: Mapping[int, Rate | None],
    ) -> Sequence[Outcome]:
        outcomes: dict[int, Outcome] = {
            refusal.position: _error(refusal) for refusal in recording.refusals
        }
        for cdr_id, position in enumerate(recording.order, recording.first_id):
            if not records.generation(position):
                content = records.content(position)
                outcomes[position] = RecordedCall(
                    cdr_id=cdr_id,
                    records=records,
                    position=position,
                    created_at_ns=recording.created_at_ns,
                    tenant=recording.tenants[content.tenant_id],
                    extension=recording.extensions.get(content.extension_id),
                    rate=rates[position],
                )
        for position in range(len(records)):
            if position not in outcomes:
                found = cdr_lists.by_key(connection, records.key(position))
                assert found is not None, "a duplicate is recorded"
                outcomes[position] = found
        return [outcomes[position] for position in range(len(records))]


def _parts(calls: Sequence[_SingleCall], error: Exception) -> list[Sequence[_SingleCall]]:
    """The parts in which calls that failed together are tried again; one part: not at all."""
    if isinstance(error, TollwireError):
        if not isinstance(error, Unavailable) or not is_lock(error):
            return [calls]
        by_tenant: dict[int, list[_SingleCall]] = {}
        for call in calls:
            by_tenant.setdefault(call.tenant_id, []).append(call)
        return list(by_tenant.values())
    return [[call] for call in calls]


def _scope_of(calls: Iterable[_SingleCall]) -> Scope:
    """A scope that has the tenants of all calls, each of which its own caller may see; every tenant
    if all callers may see every tenant."""
    if all(call.scope == EVERY_TENANT for call in calls):
        return EVERY_TENANT
    return Scope(frozenset(call.tenant_id for call in calls))


def _error(refusal: Refusal) -> TollwireError:
    """The failure of a call that was refused."""
    violations: list[FieldViolation] = []
    if refusal.reason == Reason.COST_OVERFLOW:
        field, _, description = refusal.message.partition(": ")
        violations.append(FieldViolation(f"call.{field}", description))
    return _REFUSED[refusal.reason](
        refusal.reason, refusal.message, metadata=refusal.metadata, violations=violations
    )
