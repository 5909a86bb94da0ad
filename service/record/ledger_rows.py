"""Checks that the recorded rows are those of the ledger's entries.

The entries and the rows of a kind are read together by ascending ids, in parts of bounded size. A
part is one snapshot, which contains the entry of each row, so rows that are written meanwhile are
not differences. ledger.py checks the chains of entries.

The check does not trust any value: somebody with access to the database may have written anything.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from ratingcore.record.row_digest import digest_of_stored, set_unrated
from ratingcore.record.stored_rows import StoredRows, read_copy, read_tuples
from tollwire.service.domain.model import MAX_ID, RatingStatus, UnratedReason
from tollwire.service.domain.record_model import LedgerDifference, LedgerDifferenceKind
from tollwire.service.domain.thread_context import Work
from tollwire.service.record.digests import (
    PricedRow,
    ReversedRow,
    digest_of_pricings,
    digest_of_reversals,
)
from tollwire.service.storage import ledger, ledger_rows, stored_rows
from tollwire.service.storage.engine import Connection, Database
from tollwire.service.storage.ledger import Entry, EntryKind
from tollwire.service.storage.pricings import Pricing

PART_ENTRIES = 1_000
PART_ROWS = 20_000
# More than any transaction writes.
MAX_ENTRY_ROWS = 100_000

_BEFORE_ALL = -(2**63)
_AFTER_ALL = 2**63


class LedgerRows(Protocol):
    """Stored rows of one kind, by ascending ids."""

    @property
    def ids(self) -> Sequence[int]: ...

    def faults(self, begin: int, end: int) -> Iterator[str]:
        """The faults of the rows from position ``begin`` up to, not including, ``end`` that can be
        found without the digest."""

    def times_ns(self, begin: int, end: int) -> Collection[Any]:
        """When these rows were written, each time at least once."""

    def digest(self, begin: int, end: int, format_: int) -> bytes:
        """The digest of these rows, which must have no faults, in a format of the ledger. b"": a
        row has a value that the format cannot represent."""


class CdrRows:
    """CDRs with the values at their recording: changes by late prices are reverted."""

    def __init__(self, rows: StoredRows, pricings: Sequence[Pricing]) -> None:
        self.ids: Sequence[int] = rows.ids
        self._rows = rows
        self._faults = {
            position: f"CDR {rows.ids[position]} cannot have {field} {stored!r}"
            for position, field, stored in rows.misfits
        }
        for cdr_id, of_one in groupby(pricings, key=attrgetter("cdr_id")):
            position = bisect_left(self.ids, cdr_id)
            if position < len(self.ids) and self.ids[position] == cdr_id:
                self._restore_recorded(position, list(of_one))

    def _restore_recorded(self, position: int, pricings: Sequence[Pricing]) -> None:
        """Restore the values that a CDR had before the first of its ``pricings``, which are all
        pricings of the CDR."""
        if position in self._faults:
            return
        cdr_id, reason, revision, *_ = pricings[0]
        is_priced = pricings[-1].new_unrated_reason is None
        is_unrated = self._rows.records.outcome(position).status == RatingStatus.UNRATED
        if is_priced and is_unrated:
            self._faults[position] = f"CDR {cdr_id} was priced, but has no price now"
        elif not is_priced and not is_unrated:
            self._faults[position] = f"CDR {cdr_id} has a price, but no pricing has set it"
        elif reason not in set(UnratedReason) or not isinstance(revision, int):
            self._faults[position] = f"the pricing of CDR {cdr_id} has impossible values"
        else:
            set_unrated(self._rows.records, position, reason, revision)

    def faults(self, begin: int, end: int) -> Iterator[str]:
        return (text for at, text in self._faults.items() if begin <= at < end)

    def times_ns(self, begin: int, end: int) -> Collection[Any]:
        return set(self._rows.created_at_ns[begin:end])

    def digest(self, begin: int, end: int, format_: int) -> bytes:
        return digest_of_stored(self._rows, begin, end, format_)


class _Outcome(NamedTuple):
    """The result that a pricing states, and the values in the next pricing and in the CDR."""

    cdr_reason: Any
    new_reason: Any  # NULL: it priced the CDR
    new_revision: Any
    next_id: Any  # NULL: this is the last pricing
    next_reason: Any
    next_revision: Any


class PricingRows:
    """Pricings, each with the resulting values of its CDR."""

    def __init__(self, rows: Sequence[Sequence[Any]]) -> None:
        count = len(PricedRow._fields)
        self._rows = [PricedRow(*row[:count]) for row in rows]
        self._faults: dict[int, str] = {}
        self.ids: Sequence[int] = [row.id for row in self._rows]
        for position, row in enumerate(rows):
            self._check(position, _Outcome(*row[count:]))

    def _check(self, position: int, outcome: _Outcome) -> None:
        row = self._rows[position]
        if outcome.new_reason is not None:
            self._check_correction(position, outcome)
        elif outcome.next_id is not None:
            self._faults[position] = (
                f"CDR {row.cdr_id} was priced by pricing {row.id} and by a later one"
            )
        elif not (all(map(_is_int, row[:-2])) and _is_int(row[-1]) and _is_id(row[-2])):
            self._faults[position] = (
                f"pricing {row.id} is for CDR {row.cdr_id}, which does not exist or has no price"
            )

    def _check_correction(self, position: int, outcome: _Outcome) -> None:
        """Check the pricing of a CDR that stayed UNRATED: its new reason and revision must be those
        before the next pricing, or the current ones of the CDR."""
        row = self._rows[position]
        stated = (outcome.new_reason, outcome.new_revision)
        after = (outcome.next_reason, outcome.next_revision)
        if outcome.next_id is None:
            after = (outcome.cdr_reason, row.new_rate_revision)
        if stated != after or not all(map(_is_int, (*row[:5], *stated))):
            self._faults[position] = (
                f"pricing {row.id} gave CDR {row.cdr_id} a reason that the CDR does not have"
            )
            return
        self._rows[position] = PricedRow(
            *row[:5], RatingStatus.UNRATED, outcome.new_reason, 0, 0, 0, outcome.new_revision
        )

    def faults(self, begin: int, end: int) -> Iterator[str]:
        return (text for at, text in self._faults.items() if begin <= at < end)

    def times_ns(self, begin: int, end: int) -> Collection[Any]:
        return {row.priced_at_ns for row in self._rows[begin:end]}

    def digest(self, begin: int, end: int, format_: int) -> bytes:
        rows = (
            row._replace(rate_version_id=row.rate_version_id or 0) for row in self._rows[begin:end]
        )
        return digest_of_pricings(rows, format_)


class ReversalRows:
    """Reversals."""

    def __init__(self, rows: Sequence[Sequence[Any]]) -> None:
        self._rows = [ReversedRow(*row) for row in rows]
        self.ids: Sequence[int] = [row.id for row in self._rows]

    def faults(self, begin: int, end: int) -> Iterator[str]:
        for row in self._rows[begin:end]:
            numbers = (row.cdr_id, row.tenant_id, row.started_at_ns, row.created_at_ns)
            cost = (row.cost_units, row.cost_fraction_e8)
            texts = (row.reason, row.requested_by)
            if not (
                all(map(_is_int, numbers))
                and (all(map(_is_int, cost)) or cost == (None, None))
                and _is_id(row.upload_id)
                and all(map(_is_text, texts))
            ):
                yield f"reversal {row.id} has impossible values"

    def times_ns(self, begin: int, end: int) -> Collection[Any]:
        return {row.created_at_ns for row in self._rows[begin:end]}

    def digest(self, begin: int, end: int, format_: int) -> bytes:
        return digest_of_reversals(self._rows[begin:end], format_)


def _is_int(value: object) -> bool:
    return isinstance(value, int)


def _is_text(value: object) -> bool:
    """Whether the value is a text that can be hashed: without NUL, and without surrogates, which
    stand for invalid UTF-8."""
    return (
        isinstance(value, str)
        and "\0" not in value
        and not any("\ud800" <= character <= "\udfff" for character in value)
    )


def _is_id(value: object) -> bool:
    """Whether the value is an id or None."""
    return value is None or (isinstance(value, int) and value != 0)


class _CdrReader:
    """The functions that read CDRs into the core."""

    copy = staticmethod(read_copy)
    tuples = staticmethod(read_tuples)


def _read_cdrs(connection: Connection, begin_id: int, end_id: int, limit: int) -> LedgerRows:
    stored = stored_rows.read_first(connection, _CdrReader, begin_id, end_id - 1, limit)
    return CdrRows(stored, ledger_rows.pricings_of_cdrs(connection, begin_id, end_id))


def _read_pricings(connection: Connection, begin_id: int, end_id: int, limit: int) -> LedgerRows:
    return PricingRows(ledger_rows.pricings(connection, begin_id, end_id, limit))


def _read_reversals(connection: Connection, begin_id: int, end_id: int, limit: int) -> LedgerRows:
    return ReversalRows(ledger_rows.reversals(connection, begin_id, end_id, limit))


@dataclass(frozen=True, slots=True)
class RowKind:
    """The table of the rows of a kind of entry, the noun for messages, and the reader."""

    table: str
    noun: str
    read: Callable[[Connection, int, int, int], LedgerRows]


KINDS = {
    EntryKind.RECORDED: RowKind("cdrs", "CDRs", _read_cdrs),
    EntryKind.PRICED: RowKind("cdr_pricings", "pricings", _read_pricings),
    EntryKind.REVERSED: RowKind("cdr_reversals", "reversals", _read_reversals),
}


@dataclass
class _Progress:
    """The progress of the check of one kind of rows."""

    id: int = _BEFORE_ALL  # all rows with lower ids are checked
    first_id: int = _BEFORE_ALL  # all entries up to the one with this first_id are checked


class RowCheck:
    """The check of the rows of one kind. ``rows_checked`` counts rows that are in an entry."""

    def __init__(
        self,
        database: Database,
        kind: EntryKind,
        report: Callable[[LedgerDifference], None],
    ) -> None:
        self._database = database
        self._kind = kind
        self._of = KINDS[kind]
        self._report = report
        self._progress = _Progress()
        self.rows_checked = 0

    def parts(self) -> Iterator[None]:
        """Check the parts, one for each step of the iterator. Ends at the highest id that existed
        at the beginning."""
        last_id = self._last_id()
        while self._progress.id <= last_id:
            self._check_part()
            yield

    def _last_id(self) -> int:
        with self._database.snapshot(Work.LONG) as connection:
            newest = ledger_rows.newest_id(connection, self._of.table)
            last = ledger.last_entry_by_rows(connection, self._kind)
        return newest if last is None else max(newest, last.first_id)

    def _check_part(self) -> None:
        with self._database.snapshot(Work.LONG) as connection:
            entries, end_id = self._next_entries(connection)
            limit = PART_ROWS + sum(entry.row_count for entry, reason in entries if not reason)
            rows = self._of.read(connection, self._progress.id, end_id, limit)
        is_cut_off = len(rows.ids) == limit
        if is_cut_off:
            end_id = rows.ids[-1] + 1
        at = 0
        for entry, reason in entries:
            if reason:
                self._differs(entry, reason)
                self._progress.first_id = entry.first_id
            elif entry.first_id + entry.row_count <= end_id:
                at = self._check_entry(entry, rows, at)
            else:
                self._postpone(entry, rows, at, end_id)
                return
        self._not_entered(rows.ids[at:])
        self._progress.id = end_id
        if is_cut_off:
            # Entries that are written from now on among the rows of this part are not checked.
            self._progress.first_id = max(self._progress.first_id, end_id - 1)

    def _postpone(self, entry: Entry, rows: LedgerRows, at: int, end_id: int) -> None:
        """Handle an entry whose rows were not all read, because there were too many rows before
        it."""
        before = (self._progress.id, self._progress.first_id)
        self._not_entered(rows.ids[at : bisect_left(rows.ids, entry.first_id)])
        self._progress.id = max(self._progress.id, min(entry.first_id, end_id))
        if before == (self._progress.id, self._progress.first_id):
            self._differs(entry, f"there are more {self._of.noun} than ids before this entry")
            self._set_checked(entry)

    def _next_entries(self, connection: Connection) -> tuple[list[tuple[Entry, str]], int]:
        """The entries of the next part, each with the reason why no transaction can have written it
        (empty: valid); and the id at which the part ends, not included."""
        taken: list[tuple[Entry, str]] = []
        row_count = 0
        end_id = self._progress.id
        found = ledger.entries_by_rows(
            connection, self._kind, self._progress.first_id, PART_ENTRIES
        )
        for entry in found:
            reason = self._invalid_reason(entry, end_id)
            if not reason:
                row_count += entry.row_count
                if taken and row_count > PART_ROWS:
                    return taken, end_id
                end_id = entry.first_id + entry.row_count
            taken.append((entry, reason))
        return taken, end_id if len(found) == PART_ENTRIES else _AFTER_ALL

    def _invalid_reason(self, entry: Entry, end_id: int) -> str:
        if not (_is_int(entry.first_id) and _is_int(entry.row_count)):
            return "the entry has impossible values"
        if entry.format not in ledger.FORMATS:
            return f"this release does not support the format {entry.format!r} of the entry"
        if not 0 < entry.first_id <= MAX_ID - MAX_ENTRY_ROWS:
            return f"no {self._of.noun} can have ids from {entry.first_id}"
        if not 0 < entry.row_count <= MAX_ENTRY_ROWS:
            return f"no transaction can write {entry.row_count} {self._of.noun}"
        if entry.first_id < end_id:
            return f"another entry contains {self._of.noun} of this entry"
        return ""

    def _check_entry(self, entry: Entry, rows: LedgerRows, at: int) -> int:
        """Check the rows of an entry; they begin at position ``at`` or later. Returns the position
        after them."""
        begin = bisect_left(rows.ids, entry.first_id, at)
        end = bisect_left(rows.ids, entry.first_id + entry.row_count, begin)
        self._not_entered(rows.ids[at:begin])
        faults = list(rows.faults(begin, end))
        for fault in faults:
            self._differs(entry, fault)
        if end - begin != entry.row_count:
            self._differs(entry, f"{end - begin} of its {entry.row_count} {self._of.noun} exist")
        elif not faults and rows.digest(begin, end, entry.format) != entry.digest:
            self._differs(entry, f"its {self._of.noun} were changed")
        elif not faults and rows.times_ns(begin, end) != {entry.created_at_ns}:
            self._differs(entry, f"its {self._of.noun} have another time than the entry")
        self.rows_checked += end - begin
        self._set_checked(entry)
        return end

    def _set_checked(self, entry: Entry) -> None:
        self._progress.first_id = entry.first_id
        self._progress.id = entry.first_id + entry.row_count

    def _not_entered(self, ids: Sequence[int]) -> None:
        """Report rows that are in no entry, in runs of consecutive ids."""
        begin = 0
        for end in range(1, len(ids) + 1):
            if end == len(ids) or ids[end] != ids[end - 1] + 1:
                self._report(
                    LedgerDifference(
                        LedgerDifferenceKind.NOT_ENTERED,
                        f"these {self._of.noun} are in no entry",
                        first_id=ids[begin],
                        row_count=end - begin,
                    )
                )
                begin = end

    def _differs(self, entry: Entry, message: str) -> None:
        self._report(
            LedgerDifference(
                LedgerDifferenceKind.ROWS,
                message,
                entry.chain,
                entry.seq,
                entry.first_id,
                entry.row_count,
            )
        )
