"""What the ledger covers beside the record of calls: the audit log, the versions of tenants and
rates, and the uploads.

The digest of an entry is the SHA-256 of a head, which names the format, and of its rows in
PostgreSQL's binary COPY format: on PostgreSQL an auditor gets these bytes from a COPY of the same
query. The formats are stored, and must not change. All functions that write must run in the
transaction of the change.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from tollwire.service.storage import ledger
from tollwire.service.storage.dialects.base import LedgerHead
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.ledger import EntryKind

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"

_PART_ROWS = 10_000
_NULL = b"\xff\xff\xff\xff"
_INTEGERS = {"int8": (8, ">iq"), "int4": (4, ">ii"), "int2": (2, ">ih"), "bool": (1, ">i?")}


class ImpossibleValue(ValueError):
    """A stored value is not of the type of its column: SQLite can contain any."""


@dataclass(frozen=True, slots=True)
class Covered:
    """The rows of a kind of entry: those of ``table`` under the condition ``where``, which has the
    ``first_id``, the ``end_id`` (not included) and the ``revision`` of the entry. ``columns``: the
    names and the types of their values. ``is_bulk``: an entry may have millions of rows."""

    kind: EntryKind
    table: str
    noun: str
    head: bytes
    columns: Mapping[str, str]
    where: str
    is_bulk: bool = False

    @property
    def is_by_ids(self) -> bool:
        """Whether an entry has the rows with ids from first_id on; else all rows of a revision."""
        return "end_id" in self.where

    @property
    def key(self) -> str:
        """The first column, by which the rows are sorted."""
        return next(iter(self.columns))

    def query(self, first_id: int, row_count: int, revision: int) -> str:
        where = self.where.format(
            first_id=int(first_id), end_id=int(first_id) + int(row_count), revision=int(revision)
        )
        return (
            f"SELECT {', '.join(self.columns)} FROM {self.table} WHERE {where} ORDER BY {self.key}"
        )


AUDITED = Covered(
    EntryKind.AUDITED,
    "audit_entries",
    "entries of the audit log",
    b"tollwire.audit.2",
    {
        "id": "int8",
        "created_at_ns": "int8",
        "token_id": "int8",
        "tenant_id": "int8",
        "caller": "text",
        "request_id": "text",
        "action": "text",
        "resource": "text",
        "before": "text",
        "after": "text",
    },
    "id >= {first_id} AND id < {end_id}",
)
TENANT_VERSIONS = Covered(
    EntryKind.TENANT_CHANGED,
    "tenant_versions",
    "versions of a tenant",
    b"tollwire.tenants.2",
    {
        "tenant_id": "int8",
        "revision": "int8",
        "name": "text",
        "currency": "text",
        "rounding": "int2",
        "country_code": "text",
        "national_prefix": "text",
        "international_prefix": "text",
        "created_at_ns": "int8",
        "cost_decimals": "int2",
    },
    "tenant_id = {first_id} AND revision = {revision}",
)
RATES_ADDED = Covered(
    EntryKind.RATES_ADDED,
    "rate_versions",
    "versions of rates",
    b"tollwire.rates.2",
    {
        "version_id": "int8",
        "rate_id": "int8",
        "prefix": "text",
        "destination": "text",
        "cost_per_minute_e8": "int8",
        "billing_increment": "int4",
        "connect_fee_e8": "int8",
        "minimum_seconds": "int4",
        "intervals": "text",
        "effective_from_s": "int8",
        "effective_from_nanos": "int4",
        "effective_to_s": "int8",
        "effective_to_nanos": "int4",
        "blocked": "bool",
        "tenant_id": "int8",
        "created_revision": "int8",
        "created_at_ns": "int8",
        "updated_at_ns": "int8",
    },
    "version_id >= {first_id} AND version_id < {end_id}",
    is_bulk=True,
)
RATES_RETIRED = Covered(
    EntryKind.RATES_RETIRED,
    "rate_versions",
    "retired versions of rates",
    b"tollwire.retired.2",
    {"version_id": "int8", "tenant_id": "int8", "retired_revision": "int8"},
    "tenant_id = {first_id} AND retired_revision = {revision}",
    is_bulk=True,
)
# The row as it is after a change; so only the newest entry of an upload can be compared.
UPLOADS = Covered(
    EntryKind.UPLOAD_CHANGED,
    "uploads",
    "uploads",
    b"tollwire.uploads.2",
    {
        "id": "int8",
        "committed_offset": "int8",
        "created": "int8",
        "duplicates": "int8",
        "conflicts": "int8",
        "rejected": "int8",
        "unrated": "int8",
        "duration_seconds": "int8",
        "stated_calls": "int8",
        "stated_duration_seconds": "int8",
        "created_at_ns": "int8",
        "updated_at_ns": "int8",
        "reversed_at_ns": "int8",
        "scope_tenant_ids": "text",
        "recorded_again": "int8",
        "derived_call_ids": "int8",
        "derived_duplicates": "int8",
        "revision": "int8",
        "chunks_hash": "bytea",
    },
    "id = {first_id} AND revision = {revision}",
)
KINDS = (AUDITED, TENANT_VERSIONS, RATES_ADDED, RATES_RETIRED, UPLOADS)

# The chunks of an upload: each is added to the chunks_hash of its upload.
CHUNK_COLUMNS = {
    "upload_id": "int8",
    "first_index": "int8",
    "calls": "int4",
    "digest": "bytea",
    "created": "int4",
    "duplicates": "int4",
    "conflicts": "int4",
    "rejected": "int4",
    "unrated": "int4",
    "first_cdr_id": "int8",
    "record_digests": "bytea",
    "recorded_again": "int4",
    "derived_call_ids": "int4",
    "derived_duplicates": "int4",
}
_CHUNKS = f"SELECT {', '.join(CHUNK_COLUMNS)} FROM upload_chunks WHERE upload_id = ?"


def packed(types: Iterable[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """The rows in the binary COPY format, without header and trailer. ImpossibleValue."""
    types = tuple(types)
    parts: list[bytes] = []
    for row in rows:
        parts.append(struct.pack(">h", len(types)))
        parts += (_field(kind, value) for kind, value in zip(types, row, strict=True))
    return b"".join(parts)


def _field(kind: str, value: Any) -> bytes:
    if value is None:
        return _NULL
    if kind == "text" and isinstance(value, str):
        try:
            value = value.encode()
        except UnicodeEncodeError as error:
            raise ImpossibleValue from error
    elif kind in _INTEGERS and isinstance(value, int):
        size, layout = _INTEGERS[kind]
        try:
            return struct.pack(layout, size, value)
        except struct.error as error:
            raise ImpossibleValue from error
    elif not (kind == "bytea" and isinstance(value, bytes)):
        raise ImpossibleValue
    content: bytes = value
    return struct.pack(">i", len(content)) + content


def digest_of_rows(covered: Covered, rows: Iterable[Sequence[Any]]) -> bytes:
    """The digest of these rows, which have the columns of ``covered``. ImpossibleValue."""
    content = packed(covered.columns.values(), rows)
    return hashlib.sha256(covered.head + COPY_HEADER + content + COPY_TRAILER).digest()


def digest_of_retired(version_ids: Sequence[int], tenant_id: int, revision: int) -> bytes:
    """The digest of RATES_RETIRED of these versions, which may be millions."""
    hashed = hashlib.sha256(RATES_RETIRED.head + COPY_HEADER)
    ordered = sorted(version_ids)
    pack = struct.Struct(">hiqiqiq").pack
    for start in range(0, len(ordered), _PART_ROWS):
        part = ordered[start : start + _PART_ROWS]
        hashed.update(b"".join([pack(3, 8, one, 8, tenant_id, 8, revision) for one in part]))
    hashed.update(COPY_TRAILER)
    return hashed.digest()


def digest_of_stored(
    connection: Connection, covered: Covered, first_id: int, row_count: int, revision: int
) -> bytes:
    """The digest of the stored rows of an entry. ImpossibleValue."""
    dialect = dialect_of(connection)
    query = covered.query(first_id, row_count, revision)
    with dialect.undecodable_texts(connection):
        if not covered.is_bulk:
            return digest_of_rows(covered, dialect.driver_rows(connection, query, ()))
        hashed = Hashing(covered)
        with dialect.parts(connection, query) as parts:
            for part in parts:
                if isinstance(part, bytes):
                    hashed.add_copy(part)
                else:
                    hashed.add_rows(part)
        return hashed.digest()


class Hashing:
    """Computes the digest of rows that come in parts, in either form of a part: pieces of a whole
    binary COPY, or tuples."""

    def __init__(self, covered: Covered) -> None:
        self._types = tuple(covered.columns.values())
        self._hashed = hashlib.sha256(covered.head)
        self._last = b""  # the trailer, if the rows are those of a COPY
        self._is_copy = False
        self._is_open = False

    def add_copy(self, part: bytes) -> None:
        self._is_copy = True
        if len(part) < len(COPY_TRAILER):
            part = self._last + part
        else:
            self._hashed.update(self._last)
        self._hashed.update(memoryview(part)[: -len(COPY_TRAILER)])
        self._last = part[-len(COPY_TRAILER) :]

    def add_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        """After a COPY: rows behind those of the COPY."""
        if not (self._is_copy or self._is_open):
            self._hashed.update(COPY_HEADER)
            self._is_open = True
        self._hashed.update(packed(self._types, rows))

    def digest(self) -> bytes:
        if not (self._is_copy or self._is_open):
            self._hashed.update(COPY_HEADER)
        self._hashed.update(COPY_TRAILER)
        return self._hashed.digest()


def enter(
    connection: Connection,
    covered: Covered,
    now_ns: int,
    first_id: int,
    row_count: int = 1,
    revision: int = 0,
    digest: bytes | None = None,
    head: LedgerHead | None = None,
    commits: bool = False,
) -> None:
    """Write the entry of rows that this transaction has written; of none if ``row_count`` is 0.
    ``digest``: of these rows; None: they are read back. It locks a chain until the commit, unless
    ``head`` is the end of a locked one. ``commits``: nothing follows in the transaction, which may
    be committed with the entry."""
    if not row_count:
        return
    if digest is None:
        digest = digest_of_stored(connection, covered, first_id, row_count, revision)
    ledger.append(
        connection,
        covered.kind,
        first_id,
        row_count,
        digest,
        now_ns,
        revision=revision,
        head=head,
        commits=commits,
    )


def enter_at_end(
    connection: Connection,
    covered: Covered,
    now_ns: int,
    first_id: int,
    row_count: int = 1,
    revision: int = 0,
    digest: bytes | None = None,
) -> None:
    """Like ``enter``, at the end of the unit of work, together with its other entries."""
    if not row_count:
        return
    if digest is None:
        digest = digest_of_stored(connection, covered, first_id, row_count, revision)
    ledger.append_at_end(
        connection, covered.kind, first_id, row_count, digest, now_ns, revision=revision
    )


def digest_of_values(covered: Covered, values: Mapping[str, Any]) -> bytes:
    """The digest of one row, whose ``values`` are at least those of the columns of ``covered``.
    ImpossibleValue."""
    return digest_of_rows(covered, [[values[name] for name in covered.columns]])


def chunks_hash(before: bytes | None, chunk: Mapping[str, Any]) -> bytes:
    """The hash over all chunks of an upload with this one, which has CHUNK_COLUMNS; ``before``: the
    hash over those before it. ImpossibleValue."""
    row = packed(CHUNK_COLUMNS.values(), [[chunk[name] for name in CHUNK_COLUMNS]])
    return hashlib.sha256((before or b"") + row).digest()


def stored_chunks_hash(connection: Connection, upload_id: int) -> bytes | None:
    """The same of the stored chunks; None: there is none. ImpossibleValue."""
    found: bytes | None = None
    after = -(2**63)
    query = f"{_CHUNKS} AND first_index > ? ORDER BY first_index LIMIT 100"
    while True:
        rows = dialect_of(connection).driver_rows(connection, query, (upload_id, after))
        for row in rows:
            found = chunks_hash(found, dict(zip(CHUNK_COLUMNS, row, strict=True)))
            after = row[1]
        if len(rows) < 100:
            return found
        if not isinstance(after, int):
            raise ImpossibleValue


def enter_all(connection: Connection, now_ns: int) -> int:
    """Write entries for all rows, of which none may have one. Returns how many entries. The
    database had no entries of these kinds before."""
    count = 0
    for covered, first_id, row_count, revision in _all(connection):
        if covered is UPLOADS:
            found = stored_chunks_hash(connection, first_id)
            changed = text("UPDATE uploads SET chunks_hash = :hash WHERE id = :id")
            connection.execute(changed, {"hash": found, "id": first_id})
        enter(connection, covered, now_ns, first_id, row_count, revision)
        count += 1
    return count


def _all(connection: Connection) -> Iterator[tuple[Covered, int, int, int]]:
    """The kind, first_id, row_count and revision of all entries."""
    sources = (
        (AUDITED, "SELECT id, 1, 0 FROM audit_entries"),
        (TENANT_VERSIONS, "SELECT tenant_id, 1, revision FROM tenant_versions"),
        (
            RATES_ADDED,
            "SELECT first_version_id, last_version_id - first_version_id + 1, 0 FROM rate_changes",
        ),
        (
            RATES_RETIRED,
            "SELECT tenant_id, count(*), retired_revision FROM rate_versions"
            " WHERE retired_revision IS NOT NULL GROUP BY tenant_id, retired_revision",
        ),
        (UPLOADS, "SELECT id, 1, revision FROM uploads"),
    )
    for covered, query in sources:
        rows = dialect_of(connection).driver_rows(connection, f"{query} ORDER BY 1, 3", ())
        for row in rows:
            yield covered, *row
