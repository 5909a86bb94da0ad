"""Finds the CDRs of a bulk reversal, by a filter or a list, in parts, and adds up their costs.

Each part is one transaction. The parts need not be from one snapshot: the values that a filter
compares do not change, except whether a call has a price, which is checked again under the lock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from tollwire.service.domain.checks import check_id, check_text
from tollwire.service.domain.errors import FieldViolation, NotFound, Reason
from tollwire.service.domain.model import MAX_BATCH_CALLS, MAX_CALL_ID_CHARS, CdrFilter
from tollwire.service.domain.money import decimals_of
from tollwire.service.domain.record_model import ReversalProgress, ReversedCost
from tollwire.service.record.cdrs import require
from tollwire.service.storage import cdr_lists, reversals
from tollwire.service.storage.engine import Connection
from tollwire.service.storage.reversals import Chosen, Conditions, IdRange, IdSet

# The number of CDRs in one transaction. For an upload: whole chunks, at least one.
PART_CDRS = MAX_BATCH_CALLS
PART_CHUNKS = 100
MAX_LISTED = MAX_BATCH_CALLS


class Parts:
    """The CDRs that a filter finds. Not thread-safe."""

    def __init__(self, wanted: CdrFilter) -> None:
        self._wanted = wanted
        self._after: tuple[int, int] | None = None
        self._last_chunk = -1
        self._is_done = False

    def next(self, connection: Connection) -> tuple[Chosen, Conditions] | None:
        """The next CDRs and the conditions to check again; None if there are no more."""
        if self._is_done:
            return None
        if not (self._wanted.ids or self._wanted.call_ids) and self._wanted.upload_id:
            return self._of_upload(connection)
        found = self._ids(connection)
        if not found:
            return None
        # The other conditions of the filter were true a moment ago, and cannot change.
        mutable = CdrFilter(status=self._wanted.status, unrated_reason=self._wanted.unrated_reason)
        return IdSet(found), cdr_lists.conditions(connection, mutable)

    def _ids(self, connection: Connection) -> Sequence[int]:
        wanted = self._wanted
        conditions = _conditions(connection, wanted)
        if wanted.ids or wanted.call_ids:
            self._is_done = True
            return reversals.ids_of(connection, conditions)
        found = reversals.matching(connection, wanted.tenant_id, conditions, self._after, PART_CDRS)
        self._is_done = len(found) < PART_CDRS
        if found:
            self._after = found[-1]
        return [cdr_id for _, cdr_id in found]

    def _of_upload(self, connection: Connection) -> tuple[Chosen, Conditions] | None:
        part = chunks_of_a_part(connection, self._wanted.upload_id, self._last_chunk)
        if not part:
            self._is_done = True
            return None
        self._last_chunk = part[-1][0]
        return [cdrs for _, cdrs in part], _conditions(connection, self._wanted)


def _conditions(connection: Connection, wanted: CdrFilter) -> Conditions:
    return cdr_lists.conditions_with_tenants(connection, wanted)


def chunks_of_a_part(
    connection: Connection, upload_id: int, last_chunk: int
) -> Sequence[tuple[int, IdRange]]:
    """The upload's next chunks that form one part: the first index and the CDRs of each."""
    chunks = reversals.made_by(connection, upload_id, last_chunk, PART_CHUNKS)
    totals = accumulate(cdrs.size for _, cdrs in chunks)
    return chunks[: max(1, sum(total <= PART_CDRS for total in totals))]


class _Sum(NamedTuple):
    cdrs: int = 0
    cost_e8: int = 0
    unrated: int = 0


class ReversalTotals:
    """The totals of a reversal so far. ``cdrs``: the number of CDRs that matched."""

    def __init__(self) -> None:
        self.cdrs = 0
        self._by_tenant: dict[int, _Sum] = {}
        self._currencies: dict[int, tuple[str, int]] = {}

    def add(self, tenant_id: int, cdrs: int, cost_e8: int, unrated: int) -> None:
        """Count CDRs that are reversed by this request."""
        if cdrs:
            before = self._by_tenant.get(tenant_id, _Sum())
            self._by_tenant[tenant_id] = _Sum(
                before.cdrs + cdrs, before.cost_e8 + cost_e8, before.unrated + unrated
            )

    def look_up_currencies(
        self, connection: Connection, tenant_ids: Collection[int] | None = None
    ) -> None:
        """Look up the currencies of these tenants, or of all that were counted. Call it before
        ``progress``."""
        unknown = set(self._by_tenant if tenant_ids is None else tenant_ids) - set(self._currencies)
        if unknown:
            self._currencies |= reversals.currencies(connection, unknown)

    def progress(self, *, done: bool) -> ReversalProgress:
        by_currency: dict[str, _Sum] = {}
        decimals: dict[str, int] = {}
        for tenant_id, one in self._by_tenant.items():
            currency, own_decimals = self._currencies[tenant_id]
            decimals[currency] = max(own_decimals, decimals.get(currency, 0))
            before = by_currency.get(currency, _Sum())
            by_currency[currency] = _Sum(*map(sum, zip(before, one, strict=True)))
        reversed_now = sum(one.cdrs for one in self._by_tenant.values())
        costs = tuple(
            ReversedCost(currency, *sums, max(decimals[currency], decimals_of(sums.cost_e8)))
            for currency, sums in sorted(by_currency.items())
        )
        return ReversalProgress(self.cdrs, reversed_now, self.cdrs - reversed_now, costs, done)


def cost_taken_back(row: Any) -> tuple[int, int]:
    """The cost of the CDR of a reversal's row, and 1 if it has no cost, else 0."""
    if row.cost_units is None:
        return 0, 1
    return -(row.cost_units * 10**8 + row.cost_fraction_e8), 0


def check_chosen(wanted: CdrFilter) -> Iterator[FieldViolation]:
    """The violations in the lists of a bulk reversal; also a request that selects nothing."""
    if not (wanted.tenant_id or wanted.upload_id or wanted.ids):
        yield FieldViolation("tenant_id", "is required if neither ids nor upload_id is given")
    elif wanted.call_ids and not wanted.tenant_id:
        yield FieldViolation("tenant_id", "is required if call_ids are given")
    for field, listed in (("ids", wanted.ids), ("call_ids", wanted.call_ids)):
        if len(listed) > MAX_LISTED:
            yield FieldViolation(
                field, f"at most {MAX_LISTED} in one request, got {len(listed)}; send several"
            )
    yield from next(filter(None, (list(check_id("ids", one)) for one in wanted.ids)), [])
    call_ids = (
        list(check_text("call_ids", one, MAX_CALL_ID_CHARS, required=True))
        for one in wanted.call_ids
    )
    yield from next(filter(None, call_ids), [])


def check_present(connection: Connection, wanted: CdrFilter) -> None:
    """NotFound if something that the filter names does not exist or is outside the caller's
    scope."""
    require(connection, wanted)
    if wanted.ids:
        present = reversals.present_ids(connection, wanted.ids, wanted.tenant_id, wanted.within)
        missing = [one for one in wanted.ids if one not in present]
        if missing:
            of_it = f" of tenant {wanted.tenant_id}" if wanted.tenant_id else ""
            raise _missing(f"ids: there is no CDR {missing[0]}{of_it}", missing)
    if wanted.call_ids:
        named = reversals.present_call_ids(connection, wanted.call_ids, wanted.tenant_id)
        absent = [one for one in wanted.call_ids if one not in named]
        if absent:
            raise _missing(
                f"call_ids: tenant {wanted.tenant_id} has no CDR with call_id {absent[0]!r}", absent
            )


def _missing(message: str, missing: Sequence[int | str]) -> NotFound:
    others = f", and {len(missing) - 1} others of the list do not exist" if missing[1:] else ""
    return NotFound(
        Reason.CDR_NOT_FOUND,
        f"{message}{others}; nothing was reversed",
        metadata={"id": str(missing[0]), "missing": str(len(missing))},
    )
