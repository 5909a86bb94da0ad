"""Explains the cost of a CDR: rates its call again, with the rates and rules of its revision.

The history of rates and tenants has the old values, also of rates that were changed or deleted
later. The result is compared with the stored CDR, and every difference is reported.
"""

from __future__ import annotations

from collections.abc import Iterator

import ratingcore
from ratingcore.wire.rate_rows import RateRows
from tollwire.service.accounts.tenants import tenant_exists
from tollwire.service.cache.decks import built, tenant_not_found
from tollwire.service.domain import scopes
from tollwire.service.domain.errors import NotFound, Reason
from tollwire.service.domain.model import Cdr, RatingStatus, UnratedReason
from tollwire.service.domain.money import cost_e8, decimals_of, format_cost
from tollwire.service.domain.record_model import (
    CdrDifference,
    ExplainedCdr,
    LedgerEntry,
    LedgerEntryKind,
    UnratedStep,
)
from tollwire.service.domain.thread_context import Work
from tollwire.service.rating.calls import explain
from tollwire.service.record import verification
from tollwire.service.record.cdrs import check_one, unknown_cdr
from tollwire.service.storage import cdr_lists, decks, ledger, pricings
from tollwire.service.storage.engine import Connection, Database
from tollwire.service.storage.ledger import EntryKind


class Explanations:
    """Explains stored CDRs. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def explain_cdr(self, cdr_id: int, tenant_id: int, call_id: str) -> ExplainedCdr:
        """Explain the CDR with this id, or the tenant's CDR with this call_id. If several CDRs have
        the call_id, this is the CDR that is not reversed, or the newest one if all are reversed.
        NotFound TENANT_NOT_FOUND, CDR_NOT_FOUND."""
        check_one(cdr_id, tenant_id, call_id)
        with self._database.snapshot(Work.LONG) as connection:
            if tenant_id and not tenant_exists(connection, tenant_id):
                raise tenant_not_found(tenant_id)
            return _explained(connection, _find(connection, cdr_id, tenant_id, call_id))


def _explained(connection: Connection, cdr: Cdr) -> ExplainedCdr:
    deck = _deck(connection, cdr)
    differences = verification.differences_of(connection, cdr.id)
    named = {difference.field for difference in differences}
    differences += [one for one in _differences(deck, cdr) if one.field not in named]
    steps = tuple(_steps(connection, cdr))
    entries, missing = _entries(connection, cdr, steps)
    return ExplainedCdr(
        cdr=cdr,
        explanation=explain(deck, cdr.call),
        differences=(*differences, *missing),
        unrated_steps=steps,
        ledger_entries=entries,
        replaces_cdr_id=cdr.replaces_cdr_id,
        replaced_by_cdr_id=cdr.replaced_by_cdr_id,
    )


def _find(connection: Connection, cdr_id: int, tenant_id: int, call_id: str) -> Cdr:
    if not cdr_id:
        same_call = cdr_lists.same_call(connection, (tenant_id, call_id))
        if not same_call:
            raise NotFound(
                Reason.CDR_NOT_FOUND,
                f"call_id: tenant {tenant_id} has no CDR with call_id {call_id!r}",
                metadata={"tenant_id": str(tenant_id), "call_id": call_id},
            )
        standing = (one for one, is_reversed in same_call if not is_reversed)
        cdr_id = next(standing, same_call[-1][0])
    cdr = cdr_lists.by_id(connection, cdr_id, scopes.within())
    if cdr is None or (tenant_id and cdr.call.tenant_id != tenant_id):
        raise unknown_cdr(cdr_id)
    return cdr


def _deck(connection: Connection, cdr: Cdr) -> ratingcore.Deck:
    """The tenant's rules at the CDR's revision, with the rates of that revision that can match."""
    rules = built(ratingcore.DeckBuilder(), cdr.tenant, cdr.rate_revision).deck
    call = cdr.call
    number = rules.rate(call.destination_number, call.started_at_ns, 0, True).normalized_number
    builder = ratingcore.DeckBuilder()
    if number:
        prefixes = [number[:length] for length in range(len(number) + 1)]
        rows = RateRows(builder)
        decks.rates_of_prefixes(connection, call.tenant_id, prefixes, cdr.rate_revision, rows)
    return built(builder, cdr.tenant, cdr.rate_revision).deck


def _differences(deck: ratingcore.Deck, cdr: Cdr) -> Iterator[CdrDifference]:
    """The differences between the rating at the CDR's revision and the stored CDR."""
    call = cdr.call
    rating = deck.rate(
        call.destination_number, call.started_at_ns, call.duration_seconds, call.billable
    )
    is_priced = rating.status in (ratingcore.RATED, ratingcore.NOT_BILLABLE)
    status = "COST_OVERFLOW"
    if rating.status != ratingcore.REFUSED:
        status = RatingStatus(rating.status).name
    reason = ""
    if rating.status == ratingcore.UNRATED:
        reason = UnratedReason(rating.unrated_reason).name
    decimals = cdr.tenant.cost_decimals
    cost = None if rating.cost_scaled is None else cost_e8(rating.cost_scaled, decimals)
    computed = {
        "status": status,
        "unrated_reason": reason,
        "bill_seconds": str(rating.bill_seconds) if is_priced else "",
        "cost": _cost(cost if is_priced else None, decimals),
        "rate": _version(rating.version_id if rating.status == ratingcore.RATED else 0),
    }
    stored = {
        "status": cdr.status.name,
        "unrated_reason": cdr.unrated_reason.name if cdr.unrated_reason else "",
        "bill_seconds": "" if cdr.bill_seconds is None else str(cdr.bill_seconds),
        "cost": _cost(cdr.cost_e8, decimals),
        "rate": _version(cdr.rate.version_id if cdr.rate else 0),
    }
    for field, value in stored.items():
        if value != computed[field]:
            yield _difference(
                cdr,
                field,
                value,
                computed[field],
                "the rates and rules of its rate_revision give another value",
            )


def _cost(amount_e8: int | None, decimals: int) -> str:
    if amount_e8 is None:
        return ""
    return format_cost(amount_e8, max(decimals, decimals_of(amount_e8)))


def _version(version_id: int) -> str:
    return f"version {version_id}" if version_id else ""


def _difference(cdr: Cdr, field: str, stored: str, recomputed: str, message: str) -> CdrDifference:
    call = cdr.call
    return CdrDifference(cdr.id, call.tenant_id, call.call_id, field, stored, recomputed, message)


def _steps(connection: Connection, cdr: Cdr) -> Iterator[UnratedStep]:
    for row in pricings.of_cdr(connection, cdr.id):
        new_reason = getattr(row, "new_unrated_reason", None)
        yield UnratedStep(
            id=row.id,
            unrated_reason=UnratedReason(row.unrated_reason),
            rate_revision=row.rate_revision,
            new_unrated_reason=None if new_reason is None else UnratedReason(new_reason),
            created_at_ns=row.priced_at_ns,
        )


def _entries(
    connection: Connection, cdr: Cdr, steps: tuple[UnratedStep, ...]
) -> tuple[tuple[LedgerEntry, ...], list[CdrDifference]]:
    """The ledger's entries of a CDR, its late prices and reversals; and the rows without entry."""
    rows = [(EntryKind.RECORDED, cdr.id), *((EntryKind.PRICED, step.id) for step in steps)]
    if cdr.reversal is not None:
        rows.append((EntryKind.REVERSED, cdr.reversal.id))
    found, missing = [], []
    for kind, row_id in rows:
        entry = ledger.entry_of(connection, kind, row_id)
        if entry is None:
            words = f"the row {row_id} of kind {kind.name} is in no entry of the ledger"
            missing.append(_difference(cdr, "ledger_entries", "", "", words))
            continue
        found.append(
            LedgerEntry(
                kind=LedgerEntryKind(int(kind)),
                chain=entry.chain,
                seq=entry.seq,
                first_id=entry.first_id,
                row_count=entry.row_count,
                row_id=row_id,
                digest=entry.digest,
                hash=entry.hash,
                created_at_ns=entry.created_at_ns,
            )
        )
    return tuple(found), missing
