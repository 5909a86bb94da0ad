"""Checks that the audit log, the versions of tenants and rates, and the uploads are those of the
ledger's entries.

Each entry and its rows are read in one snapshot, so rows that are written meanwhile are not
differences. The check does not trust any value, like that of CDRs (ledger_rows.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tollwire.service.domain.model import MAX_ID
from tollwire.service.domain.record_model import LedgerDifference, LedgerDifferenceKind
from tollwire.service.domain.thread_context import Work
from tollwire.service.storage import covered_rows, ledger
from tollwire.service.storage.covered_rows import UPLOADS, Covered, ImpossibleValue
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.engine import Connection, Database
from tollwire.service.storage.ledger import Entry

PART_ENTRIES = 200
MAX_NOT_ENTERED = 100
_LEAST = -(2**63)

_KEYS = {
    "tenant_versions": "SELECT tenant_id AS id, revision AS revision FROM tenant_versions",
    "rate_versions": (
        "SELECT DISTINCT tenant_id AS id, retired_revision AS revision FROM rate_versions"
        " WHERE retired_revision IS NOT NULL"
    ),
}
# The columns of a tenant that its newest version has too.
_OF_TENANT = (
    *("name", "currency", "rounding", "country_code", "national_prefix", "international_prefix"),
    *("created_at_ns", "cost_decimals"),
)
_CHANGED_TENANTS = (
    "SELECT t.id FROM tenants t LEFT JOIN tenant_versions v ON v.tenant_id = t.id AND v.revision ="
    " (SELECT max(n.revision) FROM tenant_versions n WHERE n.tenant_id = t.id)"
    " WHERE v.tenant_id IS NULL OR "
    + " OR ".join(f"t.{name} <> v.{name}" for name in _OF_TENANT)
    + f" ORDER BY t.id LIMIT {MAX_NOT_ENTERED}"
)


class CoveredCheck:
    """The check of the rows of one kind. ``rows_checked`` counts rows that are in an entry."""

    def __init__(
        self, database: Database, covered: Covered, report: Callable[[LedgerDifference], None]
    ) -> None:
        self._database = database
        self._covered = covered
        self._report = report
        self._next_id = _LEAST  # the rows with lower ids are checked, if entries are by ids
        self.rows_checked = 0

    def parts(self) -> Iterator[None]:
        """Check the parts, one for each step of the iterator."""
        yield from self._uploads() if self._covered is UPLOADS else self._entries()
        with self._database.snapshot(Work.LONG) as connection:
            if self._covered is covered_rows.TENANT_VERSIONS:
                for (tenant_id,) in _rows(connection, _CHANGED_TENANTS):
                    self._differs(None, f"tenant {tenant_id} is not as its newest version has it")
            if self._covered is UPLOADS:
                self._report_missing_uploads(connection)
            elif not self._covered.is_by_ids:
                self._report_without_entry(connection)
        yield

    def _entries(self) -> Iterator[None]:
        after = (_LEAST, _LEAST)
        while True:
            with self._database.snapshot(Work.LONG) as connection:
                entries = ledger.entries_by_key(connection, self._covered.kind, after, PART_ENTRIES)
                for entry in entries:
                    self._check(connection, entry)
                is_last = len(entries) < PART_ENTRIES
                if is_last and self._covered.is_by_ids:
                    self._check_gap(connection, MAX_ID)
            yield
            if is_last:
                return
            after = (entries[-1].first_id, entries[-1].revision)

    def _check(self, connection: Connection, entry: Entry) -> None:
        if not _is_possible(entry):
            self._differs(entry, "the entry has impossible values")
            return
        if self._covered.is_by_ids:
            if entry.first_id < self._next_id:
                self._differs(entry, f"another entry contains {self._covered.noun} of this entry")
                return
            self._check_gap(connection, entry.first_id)
            self._next_id = entry.first_id + entry.row_count
        self._compare(connection, entry)

    def _compare(self, connection: Connection, entry: Entry) -> None:
        try:
            found = covered_rows.digest_of_stored(
                connection, self._covered, entry.first_id, entry.row_count, entry.revision
            )
        except ImpossibleValue:
            found = b""
        if found != entry.digest:
            self._differs(entry, f"{self._described(entry)} were changed, removed or added")
        self.rows_checked += entry.row_count

    def _described(self, entry: Entry) -> str:
        covered = self._covered
        if covered.is_by_ids:
            last_id = entry.first_id + entry.row_count - 1
            ids = (
                f"{entry.first_id}"
                if last_id == entry.first_id
                else f"{entry.first_id} to {last_id}"
            )
            return f"the {covered.noun} {ids}"
        owner = "upload" if covered is UPLOADS else "tenant"
        return f"the {covered.noun} ({owner} {entry.first_id}, revision {entry.revision})"

    def _check_gap(self, connection: Connection, end_id: int) -> None:
        """Report rows from the last entry to ``end_id``, not included, which are in no entry."""
        if end_id <= self._next_id:
            return
        key, table = self._covered.key, self._covered.table
        query = (
            f"SELECT min({key}), count(*) FROM {table} WHERE {key} >= {self._next_id}"
            f" AND {key} < {end_id}"
        )
        ((first_id, count),) = _rows(connection, query)
        if count:
            self._not_entered(f"these {self._covered.noun} are in no entry", first_id, count)

    def _report_without_entry(self, connection: Connection) -> None:
        query = (
            f"SELECT k.id, k.revision FROM ({_KEYS[self._covered.table]}) k WHERE NOT EXISTS"
            f" (SELECT 1 FROM ledger_entries e WHERE e.kind = {int(self._covered.kind)}"
            " AND e.first_id = k.id AND e.revision = k.revision)"
            f" ORDER BY 1, 2 LIMIT {MAX_NOT_ENTERED}"
        )
        for tenant_id, revision in _rows(connection, query):
            self._not_entered(
                f"the {self._covered.noun} (tenant {tenant_id}, revision {revision}) are in no"
                " entry",
                tenant_id,
            )

    def _uploads(self) -> Iterator[None]:
        """Compare each upload with its newest entry: the earlier ones describe earlier states."""
        after: Any = _LEAST
        while True:
            with self._database.snapshot(Work.LONG) as connection:
                query = (
                    f"SELECT id, revision, chunks_hash FROM uploads WHERE id > {int(after)}"
                    f" ORDER BY id LIMIT {PART_ENTRIES}"
                )
                rows = _rows(connection, query)
                for row in rows:
                    self._check_upload(connection, *row)
            yield
            if len(rows) < PART_ENTRIES or not isinstance(rows[-1][0], int):
                return
            after = rows[-1][0]

    def _check_upload(
        self, connection: Connection, upload_id: Any, revision: Any, chunks_hash: Any
    ) -> None:
        entry = (
            ledger.newest_revision(connection, UPLOADS.kind, upload_id)
            if isinstance(upload_id, int)
            else None
        )
        if entry is None:
            self._not_entered(f"upload {upload_id} is in no entry", upload_id)
            return
        if not _is_possible(entry):
            self._differs(entry, "the entry has impossible values")
            return
        if entry.revision != revision:
            self._differs(
                entry,
                f"upload {upload_id} has the revision {revision}, its newest entry"
                f" {entry.revision}",
            )
            return
        self._compare(connection, entry)
        try:
            found = covered_rows.stored_chunks_hash(connection, upload_id)
        except ImpossibleValue:
            found = b""
        if found != chunks_hash:
            self._differs(entry, f"the chunks of upload {upload_id} were changed, removed or added")

    def _report_missing_uploads(self, connection: Connection) -> None:
        query = (
            f"SELECT DISTINCT e.first_id FROM ledger_entries e WHERE e.kind = {int(UPLOADS.kind)}"
            " AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.id = e.first_id)"
            f" ORDER BY 1 LIMIT {MAX_NOT_ENTERED}"
        )
        for (upload_id,) in _rows(connection, query):
            self._differs(None, f"upload {upload_id} of an entry does not exist")

    def _not_entered(self, message: str, first_id: Any, count: int = 1) -> None:
        first_id = first_id if isinstance(first_id, int) else 0
        self._report(
            LedgerDifference(
                LedgerDifferenceKind.NOT_ENTERED, message, first_id=first_id, row_count=count
            )
        )

    def _differs(self, entry: Entry | None, message: str) -> None:
        numbers = () if entry is None else (entry.chain, entry.seq, entry.first_id, entry.row_count)
        shown = (number if isinstance(number, int) else 0 for number in numbers)
        self._report(LedgerDifference(LedgerDifferenceKind.ROWS, message, *shown))


def _is_possible(entry: Entry) -> bool:
    numbers = (entry.first_id, entry.row_count, entry.revision)
    return (
        all(isinstance(number, int) for number in numbers)
        and 0 < entry.first_id <= MAX_ID - entry.row_count
        and entry.row_count > 0
        and entry.format == ledger.FORMAT
    )


def _rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    dialect = dialect_of(connection)
    with dialect.undecodable_texts(connection):
        return dialect.driver_rows(connection, query, ())
