"""The ledger: entries of what each transaction has written.

A transaction that writes CDRs, prices or reverses them has one entry for these rows. The other
kinds of entries are described in ``covered_rows``.

An entry has the digest of the written rows, and its hash covers the hash of the entry before it. So
a row that is changed, removed or added later breaks its chain, and a chain that is rewritten from
some entry on differs from a root that was noted before. The writers compute the digests; this
module must not depend on their format.

PostgreSQL has several chains: an entry is added under a lock on the head of its chain, which is
held until the commit, and with one chain all commits would wait for each other. SQLite has one
writer, and one chain for each of two groups: the record of calls, and everything else. So a change
of rates does not wait for calls that are being recorded, nor they for it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

# The subjects import LedgerHead from here.
from tollwire.service.storage.dialects.base import LedgerHead as LedgerHead
from tollwire.service.storage.dialects.lookup import dialect_of

HASH_SIZE = 32
# The format of new entries. Version 1 cannot hold costs with more than 4 decimals.
FORMAT = 2
FORMATS = (1, 2)
# The execution option of an engine with the function that signs the hash of each entry.
SIGN_OPTION = "sign_ledger_entry"
# Stands for the hash before the first entry of a chain.
NO_HASH = bytes(HASH_SIZE)


class EntryKind(IntEnum):
    """The table of the rows of an entry."""

    RECORDED = 1  # cdrs
    PRICED = 2  # cdr_pricings
    REVERSED = 3  # cdr_reversals
    AUDITED = 4  # audit_entries
    TENANT_CHANGED = 5  # tenant_versions: the tenant first_id, at a revision
    RATES_ADDED = 6  # rate_versions, but for retired_revision
    RATES_RETIRED = 7  # rate_versions: those of the tenant first_id that ended with a revision
    UPLOAD_CHANGED = 8  # uploads, upload_chunks: the upload first_id, at a revision


# The kinds of the record of calls, which have chains of their own.
OF_CALLS = (EntryKind.RECORDED, EntryKind.PRICED, EntryKind.REVERSED)


class Entry(NamedTuple):
    """An entry as it is stored; if somebody has changed it, it may have any values."""

    chain: int
    seq: int
    kind: int
    first_id: int
    row_count: int
    digest: bytes
    hash: bytes
    created_at_ns: int
    format: int  # of the digest and of the hash: FORMAT, or the one of an older release
    revision: int = 0  # of the tenant or the upload first_id
    signature: bytes | None = None  # of the hash; None: without a key


class ChainHead(NamedTuple):
    """The end of a chain, as it is stored."""

    chain: int
    length: int
    hash: bytes


class _NewEntry(NamedTuple):
    """The arguments of ``append_at_end``."""

    kind: EntryKind
    first_id: int
    row_count: int
    digest: bytes
    now_ns: int
    revision: int


class _Collected:
    """The entries to write at the end of a unit of work. Not ``is_open``: it has ended."""

    def __init__(self) -> None:
        self.entries: list[_NewEntry] = []
        self.is_open = True


# In ``Connection.info``: the _Collected of the present unit of work.
_COLLECTED = "collected_ledger_entries"
_MAX_ID = 2**63 - 1  # on SQLite every text is above it
_HEADS = f"SELECT {', '.join(ChainHead._fields)} FROM ledger_heads"
_ENTRY = f"SELECT {', '.join(Entry._fields)} FROM ledger_entries"


def append(
    connection: Connection,
    kind: EntryKind,
    first_id: int,
    row_count: int,
    digest: bytes,
    now_ns: int,
    *,
    revision: int = 0,
    head: LedgerHead | None = None,
    commits: bool = False,
) -> None:
    """Write the entry of the rows of this transaction, which have ids from ``first_id`` on.
    ``digest`` is the SHA-256 of their canonical bytes. ``head``: the end of a chain that this
    transaction has locked; None: locks one. ``commits``: nothing follows in the
    transaction, which may be committed with the entry.

    Call it last before the commit: until then no other transaction adds to this chain.
    """
    dialect = dialect_of(connection)
    if head is None:
        head = dialect.hold_ledger_chain(connection, of_calls=kind in OF_CALLS)
    entry = entry_after(
        connection, head, kind, first_id, row_count, digest, now_ns, revision=revision
    )
    dialect.add_ledger_entries(connection, [entry._asdict()], commits=commits)


def append_at_end(
    connection: Connection,
    kind: EntryKind,
    first_id: int,
    row_count: int,
    digest: bytes,
    now_ns: int,
    *,
    revision: int = 0,
) -> None:
    """Like ``append``, but at the end of the unit of work, together with all entries of this
    function: one lock and one round trip for all of them. Not for the record of calls."""
    assert kind not in OF_CALLS, "the record of calls has chains of its own"
    collected: _Collected | None = connection.info.get(_COLLECTED)
    assert collected is not None and collected.is_open, "only in Database.write"
    collected.entries.append(_NewEntry(kind, first_id, row_count, digest, now_ns, revision))


def append_collected(connection: Connection) -> None:
    """Write the entries of ``append_at_end`` so far. ``Database.write`` calls it before the commit.
    A transaction that locks a row for which many others wait calls it before that."""
    entries = connection.info[_COLLECTED].entries
    if not entries:
        return
    dialect = dialect_of(connection)
    head = dialect.hold_ledger_chain(connection, of_calls=False)
    added: list[dict[str, Any]] = []
    for *values, revision in entries:
        entry = entry_after(connection, head, *values, revision=revision)
        head = entry.chain, entry.seq, entry.hash
        added.append(entry._asdict())
    dialect.add_ledger_entries(connection, added)
    entries.clear()


@contextmanager
def collecting(connection: Connection) -> Iterator[None]:
    """The block may call ``append_at_end``, and must call ``append_collected`` at its end unless it
    rolls back."""
    collected = connection.info[_COLLECTED] = _Collected()
    try:
        yield
    finally:
        collected.is_open = False


def entry_after(
    connection: Connection,
    head: LedgerHead,
    kind: EntryKind,
    first_id: int,
    row_count: int,
    digest: bytes,
    now_ns: int,
    *,
    revision: int = 0,
) -> Entry:
    """The entry of these rows that follows ``head``, the end of a locked chain; signed if the
    database has a key for it."""
    chain, length, last_hash = head
    seq = length + 1
    new_hash = entry_hash(last_hash, chain, seq, kind, first_id, row_count, now_ns, digest)
    sign = connection.get_execution_options().get(SIGN_OPTION)
    signature = sign(new_hash) if sign is not None else None
    return Entry(
        chain,
        seq,
        int(kind),
        first_id,
        row_count,
        digest,
        new_hash,
        now_ns,
        FORMAT,
        revision,
        signature,
    )


def entry_hash(
    last_hash: bytes,
    chain: int,
    seq: int,
    kind: int,
    first_id: int,
    row_count: int,
    created_at_ns: int,
    digest: bytes,
    format_: int = FORMAT,
) -> bytes:
    """The hash of an entry that follows the one with ``last_hash``. It is stored, and auditors
    compute it themselves: a format that was ever written must never change."""
    numbers = struct.pack("<6q", chain, seq, kind, first_id, row_count, created_at_ns)
    head = b"tollwire.ledger.%d" % format_
    return hashlib.sha256(head + last_hash + numbers + digest).digest()


# The functions below read without the types of the columns: on SQLite a value may have any type,
# and the verification reports a wrong one.


def heads(connection: Connection) -> list[ChainHead]:
    """The ends of all chains, by their numbers."""
    return [ChainHead(*row) for row in connection.exec_driver_sql(f"{_HEADS} ORDER BY chain")]


def chains_with_entries(connection: Connection) -> list[int]:
    """The numbers of the chains that have entries."""
    query = text("SELECT min(chain) FROM ledger_entries WHERE chain > :last")
    found: list[int] = []
    last = -(2**15) - 1
    while isinstance(chain := connection.execute(query, {"last": last}).scalar(), int):
        found.append(chain)
        last = chain
    return found if chain is None else [*found, chain]


def entries(
    connection: Connection, chain: int, first_seq: int, last_seq: int, limit: int
) -> list[Entry]:
    """The next entries of a chain from ``first_seq`` to ``last_seq``."""
    query = text(
        f"{_ENTRY} WHERE chain = :chain AND seq >= :first AND seq <= :last"
        " ORDER BY seq LIMIT :limit"
    )
    values = {"chain": chain, "first": first_seq, "last": last_seq, "limit": limit}
    return _entries(connection, query, values)


def entries_behind(connection: Connection, chain: int, last_seq: int, limit: int) -> list[Entry]:
    """The first entries of a chain after ``last_seq``."""
    query = text(f"{_ENTRY} WHERE chain = :chain AND seq > :last ORDER BY seq LIMIT :limit")
    return _entries(connection, query, {"chain": chain, "last": last_seq, "limit": limit})


def entries_by_rows(
    connection: Connection, kind: EntryKind, after_first_id: int, limit: int
) -> list[Entry]:
    """The next entries of a kind by their first_id, after ``after_first_id``."""
    query = text(
        f"{_ENTRY} WHERE kind = :kind AND first_id > :after AND first_id <= {_MAX_ID}"
        " ORDER BY first_id LIMIT :limit"
    )
    return _entries(connection, query, {"kind": int(kind), "after": after_first_id, "limit": limit})


def entries_by_key(
    connection: Connection, kind: EntryKind, after: tuple[int, int], limit: int
) -> list[Entry]:
    """The next entries of a kind by first_id and revision, after these."""
    query = text(
        f"{_ENTRY} WHERE kind = :kind AND first_id >= :first AND first_id <= {_MAX_ID}"
        " AND (first_id > :first OR revision > :revision)"
        " ORDER BY first_id, revision LIMIT :limit"
    )
    values = {"kind": int(kind), "first": after[0], "revision": after[1], "limit": limit}
    return _entries(connection, query, values)


def newest_revision(connection: Connection, kind: EntryKind, first_id: int) -> Entry | None:
    """The entry of a kind with this first_id and the highest revision."""
    query = text(
        f"{_ENTRY} WHERE kind = :kind AND first_id = :first ORDER BY revision DESC LIMIT 1"
    )
    found = _entries(connection, query, {"kind": int(kind), "first": first_id})
    return found[0] if found else None


def entry_of(connection: Connection, kind: EntryKind, row_id: int) -> Entry | None:
    """The entry of a kind that has the row."""
    query = text(f"{_ENTRY} WHERE kind = :kind AND first_id <= :row ORDER BY first_id DESC LIMIT 1")
    for entry in _entries(connection, query, {"kind": int(kind), "row": row_id}):
        if entry.first_id + entry.row_count > row_id:
            return entry
    return None


def last_entry_by_rows(connection: Connection, kind: EntryKind) -> Entry | None:
    """The entry of a kind with the highest first_id."""
    query = text(
        f"{_ENTRY} WHERE kind = :kind AND first_id <= {_MAX_ID} ORDER BY first_id DESC LIMIT 1"
    )
    found = _entries(connection, query, {"kind": int(kind)})
    return found[0] if found else None


def _entries(connection: Connection, query: Any, values: dict[str, int]) -> list[Entry]:
    return [Entry(*row) for row in connection.execute(query, values)]
