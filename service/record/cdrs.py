"""CDRs: recorded one by one, found again, and priced later where that was not possible at once.

Nothing here changes or removes a CDR but ``rate_unrated``, and that only gives a cost to one that
has none, or another reason why it has none (rating rule 9). How calls are recorded stands in
``recording``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import ratingcore
from ratingcore.record.key_order import in_key_order
from ratingcore.record.record_rating import rate_records
from ratingcore.record.records import Records, records_of
from ratingcore.wire.tally import Tally
from tollwire.service.accounts import audit
from tollwire.service.accounts.tenants import require_extension, require_tenant
from tollwire.service.cache.decks import Decks
from tollwire.service.domain import paging, scopes
from tollwire.service.domain.checks import check_id, check_period, check_text, refuse
from tollwire.service.domain.errors import (
    FieldViolation,
    NotFound,
    Reason,
)
from tollwire.service.domain.model import (
    MAX_CALL_ID_CHARS,
    MAX_EXTENSION_NUMBER_CHARS,
    MAX_PREFIX_DIGITS,
    Call,
    Cdr,
    CdrFilter,
    Page,
)
from tollwire.service.domain.record_model import UnratedOutcome
from tollwire.service.domain.thread_context import Work
from tollwire.service.observability import tallies
from tollwire.service.rating.calls import check_call
from tollwire.service.record.digests import PricedRow, digest_of_pricings
from tollwire.service.record.group_commit import Submission
from tollwire.service.record.recording import (
    content_of,
    known_decks,
)
from tollwire.service.record.single_calls import RecordedCall, SingleCalls
from tollwire.service.record.uploads import visible_upload
from tollwire.service.storage import cdr_lists, ledger, pricings, tenants, unrated
from tollwire.service.storage.engine import Connection, Database
from tollwire.service.storage.ledger import EntryKind
from tollwire.service.storage.pricings import Pricing
from tollwire.service.storage.unrated import UnratedCall

if TYPE_CHECKING:
    from ratingcore.record.values import RecordOutcome

MAX_SEARCH_CHARS = 256
# How many CDRs one transaction of RateUnrated looks at.
RATE_UNRATED_ROWS = 1000
# What a CDR has besides the texts that may be long, and an interval of its rate.
_NUMBERS_BYTES = 800
_INTERVAL_BYTES = 40


class Cdrs:
    """What clients do with CDRs. Thread-safe."""

    def __init__(
        self, database: Database, decks: Decks, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._database = database
        self._decks = decks
        self._single_calls = SingleCalls(database, decks, clock_ns)
        self._clock_ns = clock_ns

    def create(self, call: Call) -> Cdr:
        """Rate and record one call; of a duplicate, the CDR that is recorded."""
        refuse(check_call(call), "call.")
        recorded = self.record(records_of([content_of(call)], call.occurrence))
        return recorded.cdr() if isinstance(recorded, RecordedCall) else recorded

    def record(self, records: Records) -> RecordedCall | Cdr:
        """The same for a list of one call, which breaks no rule."""
        return self._single_calls.record(records)

    def submit(
        self,
        submissions: Sequence[Submission[Records, RecordedCall | Cdr]],
        start: Callable[[Callable[[], None]], object],
    ) -> None:
        """The same for calls that arrive together, as SingleCalls.submit."""
        self._single_calls.submit(submissions, start)

    def get(self, cdr_id: int) -> Cdr:
        refuse(check_id("id", cdr_id))
        with self._database.read() as connection:
            cdr = cdr_lists.by_id(connection, cdr_id, scopes.within())
        if cdr is None:
            raise unknown_cdr(cdr_id)
        return cdr

    def list(self, wanted: CdrFilter, page_size: int, page_token: str) -> Page[Cdr]:
        """One page, the newest started_at first. NotFound as ``require``."""
        check_filter(wanted)
        wanted = replace(wanted, within=scopes.within())
        size = paging.page_size(page_size)
        after = paging.decode_token(page_token, wanted, (int, int))
        with self._database.read(work=Work.LONG) as connection:
            require(connection, wanted)
            found = cdr_lists.page(connection, wanted, after, size + 1)
        return paging.cut(found, size, wanted, _position, most_bytes)

    def export(self, wanted: CdrFilter) -> Iterator[Sequence[Cdr]]:
        """All that match, in the order of ``list``. Each part is read when the caller takes it, so
        a slow reader holds no transaction open. CDRs that are recorded meanwhile may be included.
        NotFound as ``require``."""
        check_filter(wanted)
        wanted = replace(wanted, within=scopes.within())
        with self._database.read() as connection:
            require(connection, wanted)
        return self._parts(wanted)

    def _parts(self, wanted: CdrFilter) -> Iterator[Sequence[Cdr]]:
        after: tuple[int, int] | None = None
        while True:
            with self._database.read(work=Work.LONG) as connection:
                part = cdr_lists.page(connection, wanted, after, paging.MAX_PAGE_SIZE)
            begin = 0
            while begin < len(part):
                fitting = paging.fitting(part[begin:], len(part), most_bytes)
                yield fitting
                begin += len(fitting)
            if len(part) < paging.MAX_PAGE_SIZE:
                return
            after = _position(part[-1])

    def rate_unrated(
        self, tenant_id: int, started_after_ns: int | None, started_before_ns: int | None
    ) -> UnratedOutcome:
        """Price the UNRATED calls with the rates of now, as in effect when each call started.

        A call that has no price for another reason than it states gets the present reason. One
        whose cost would overflow keeps the reason that it has.

        In transactions of at most RATE_UNRATED_ROWS calls: it may be broken off and started again,
        or run twice at once, and no call is priced twice. ``tenant_id`` 0: calls of all tenants
        that the caller may see.
        """
        wanted = CdrFilter(
            tenant_id=tenant_id,
            started_after_ns=started_after_ns,
            started_before_ns=started_before_ns,
        )
        check_filter(wanted)
        if tenant_id:
            self._decks.deck(tenant_id)
        examined = rated = corrected = 0
        for tenant in [tenant_id] if tenant_id else self._tenants_with_unrated():
            after: tuple[int, int] | None = None
            while True:
                with self._decks.writing() as connection:
                    calls = unrated.hold(
                        connection, replace(wanted, tenant_id=tenant), after, RATE_UNRATED_ROWS
                    )
                    priced, reasons = self._price(connection, tenant, calls)
                tallies.RATE_UNRATED.add_all(priced)
                rated += priced.calls()
                corrected += reasons
                examined += len(calls)
                if len(calls) < RATE_UNRATED_ROWS:
                    break
                after = (calls[-1].content.started_at_ns, calls[-1].cdr_id)
        return UnratedOutcome(examined, rated, examined - rated, corrected)

    def _tenants_with_unrated(self) -> Iterator[int]:
        """Those that the caller may see."""
        scope = scopes.scope().tenant_ids
        after_id = 0
        while True:
            with self._database.read() as connection:
                tenant_id = unrated.next_tenant(connection, after_id)
            if tenant_id is None:
                return
            if scope is None or tenant_id in scope:
                yield tenant_id
                after_id = tenant_id
                continue
            later = [one for one in scope if one > tenant_id]
            if not later:
                return
            after_id = min(later) - 1

    def _price(
        self, connection: Connection, tenant_id: int, calls: Sequence[UnratedCall]
    ) -> tuple[Tally, int]:
        """Price those UNRATED calls of one tenant that have a price now, correct the reason of
        those that have none for another one, and enter both in the ledger and in the audit log.
        Returns what the priced ones came to, and how many reasons changed."""
        self._decks.catch_up(connection)
        decks = {one: known.deck for one, known in known_decks(self._decks, {tenant_id}).items()}
        outcomes = Tally()
        if not decks or not calls:
            return outcomes, 0
        records = records_of(call.content for call in calls)
        rate_records(records, in_key_order(records), decks)
        changed: list[tuple[UnratedCall, RecordOutcome]] = []
        for position, call in enumerate(calls):
            outcome = records.outcome(position)
            if outcome.status not in (ratingcore.UNRATED, ratingcore.REFUSED):
                outcomes.add(outcome.status)
            elif (
                outcome.status != ratingcore.UNRATED
                or outcome.unrated_reason == call.unrated_reason
                # The same rates, judged by another release: the database refuses that change.
                or outcome.rate_revision <= call.rate_revision
            ):
                continue
            changed.append((call, outcome))
        corrected = len(changed) - outcomes.calls()
        if changed:
            written = unrated.price(
                connection, [(call.cdr_id, outcome) for call, outcome in changed]
            )
            assert written == len(changed), "a call that is held was priced by somebody else"
            now_ns = self._clock_ns()
            audit.enter(
                connection,
                action="RateUnrated",
                resource=f"tenant/{tenant_id}",
                now_ns=now_ns,
                tenant_id=tenant_id,
                after={
                    "examined": len(calls),
                    "rated": outcomes.calls(),
                    "reason_corrected": corrected,
                },
            )
            self._enter(connection, changed, now_ns)
        return outcomes, corrected

    def _enter(
        self,
        connection: Connection,
        changed: Sequence[tuple[UnratedCall, RecordOutcome]],
        now_ns: int,
    ) -> None:
        first_id = pricings.add(
            connection, [_pricing(call, outcome) for call, outcome in changed], now_ns
        )
        digest = digest_of_pricings(
            _priced_row(row_id, call, outcome, now_ns)
            for row_id, (call, outcome) in enumerate(changed, first_id)
        )
        ledger.append(connection, EntryKind.PRICED, first_id, len(changed), digest, now_ns)


def _pricing(call: UnratedCall, outcome: RecordOutcome) -> Pricing:
    before = (call.cdr_id, call.unrated_reason, call.rate_revision)
    if outcome.status == ratingcore.UNRATED:
        return Pricing(*before, outcome.unrated_reason, outcome.rate_revision)
    return Pricing(*before)


def _priced_row(row_id: int, call: UnratedCall, outcome: RecordOutcome, now_ns: int) -> PricedRow:
    status, reason, bill_seconds, cost_units, cost_fraction_e8, version_id, revision = outcome
    before = (row_id, call.cdr_id, call.unrated_reason, call.rate_revision, now_ns)
    if status == ratingcore.UNRATED:
        assert reason is not None
        return PricedRow(*before, status, reason, 0, 0, 0, revision)
    assert bill_seconds is not None and cost_units is not None and cost_fraction_e8 is not None
    return PricedRow(
        *before, status, bill_seconds, cost_units, cost_fraction_e8, version_id or 0, revision
    )


def check_filter(wanted: CdrFilter) -> None:
    """InvalidInput naming every field of the filter that no list can have."""
    refuse(
        [
            *check_id("tenant_id", wanted.tenant_id, required=False),
            *check_id("extension_id", wanted.extension_id, required=False),
            *check_text("search", wanted.search, MAX_SEARCH_CHARS),
            *check_period(wanted.started_after_ns, wanted.started_before_ns),
            *check_text("call_id", wanted.call_id, MAX_CALL_ID_CHARS),
            *check_text("extension_number", wanted.extension_number, MAX_EXTENSION_NUMBER_CHARS),
            *check_id("rate_id", wanted.rate_id, required=False),
            *_check_prefix(wanted.matched_prefix),
            *check_id("upload_id", wanted.upload_id, required=False),
        ]
    )


def _check_prefix(prefix: str) -> Iterator[FieldViolation]:
    if prefix and not (
        prefix.isascii() and prefix.isdecimal() and len(prefix) <= MAX_PREFIX_DIGITS
    ):
        yield FieldViolation(
            "matched_prefix",
            f"must be 1 to {MAX_PREFIX_DIGITS} digits, got {prefix[:MAX_PREFIX_DIGITS]!r}",
        )


def check_one(cdr_id: int, tenant_id: int, call_id: str) -> None:
    """InvalidInput where these do not name one CDR: an id, or a tenant_id and a call_id."""
    violations = [
        *check_id("id", cdr_id, required=not call_id),
        *check_id("tenant_id", tenant_id, required=bool(call_id)),
        *check_text("call_id", call_id, MAX_CALL_ID_CHARS),
    ]
    if cdr_id and call_id:
        violations.append(FieldViolation("call_id", "must be empty where id is given"))
    refuse(violations)


def check_extension_number(connection: Connection, wanted: CdrFilter) -> None:
    """NotFound where no extension that the filter can mean has the number that it names."""
    number = wanted.extension_number
    if number and not tenants.is_extension_number(
        connection, number, wanted.tenant_id, wanted.within
    ):
        of_tenant = f"tenant {wanted.tenant_id} has" if wanted.tenant_id else "there is"
        raise NotFound(
            Reason.EXTENSION_NOT_FOUND,
            f"extension_number: {of_tenant} no extension with the number {number!r}",
            metadata={"extension_number": number},
        )


def require(connection: Connection, wanted: CdrFilter) -> None:
    """NotFound TENANT_NOT_FOUND, UPLOAD_NOT_FOUND or EXTENSION_NOT_FOUND where the filter names one
    that the caller does not have: nothing found must mean that there are no such CDRs."""
    require_tenant(connection, wanted.tenant_id)
    if wanted.upload_id:
        visible_upload(connection, wanted.upload_id)
    require_extension(connection, wanted.extension_id, wanted.tenant_id)
    check_extension_number(connection, wanted)


def unknown_cdr(cdr_id: int) -> NotFound:
    return NotFound(Reason.CDR_NOT_FOUND, f"there is no CDR {cdr_id}", metadata={"id": str(cdr_id)})


def most_bytes(cdr: Cdr) -> int:
    """How long a CDR is at most where it is shown: nearly all of what may be long is text."""
    call, tenant, extension, rate = cdr.call, cdr.tenant, cdr.extension, cdr.rate
    texts = [call.caller_number, call.destination_number, call.call_id, tenant.name]
    size = _NUMBERS_BYTES
    if extension is not None:
        texts += [extension.number, extension.name]
    if rate is not None:
        texts.append(rate.destination)
        size += len(rate.intervals) * _INTERVAL_BYTES
    if cdr.reversal is not None:
        texts += [cdr.reversal.request.reason, cdr.reversal.request.requested_by]
    return size + sum(len(text) if text.isascii() else 4 * len(text) for text in texts)


def _position(cdr: Cdr) -> tuple[int, int]:
    return cdr.call.started_at_ns, cdr.id
