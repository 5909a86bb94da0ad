"""The ledger: one entry for each transaction that writes CDRs, prices or reverses them.

An entry holds the digest of the rows that were written, and its hash covers the hash of the entry
before it. So nothing that was recorded can be changed, removed or added later without a chain that
no longer fits, and a chain that is written anew from some entry on no longer fits a root that was
noted down before. What the digests are of is decided by the writers; this module knows only the
entries.

PostgreSQL has several chains: an entry is added under the lock on its chain's head, which is held
until the commit, and with one chain all commits would wait for each other. SQLite has one writer,
and one chain.
"""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, insert, select, text, update

from service.storage.tables import LedgerEntryRow, LedgerHeadRow

HASH_SIZE = 32
# What the first entry of a chain has for the hash of the entry before it.
NO_HASH = bytes(HASH_SIZE)


class EntryKind(IntEnum):
    """Which table the rows of an entry are in."""

    RECORDED = 1  # cdrs
    PRICED = 2  # cdr_pricings
    REVERSED = 3  # cdr_reversals


class Entry(NamedTuple):
    """An entry as it is stored: whoever changed it may have put anything there."""

    chain: int
    seq: int
    kind: int
    first_id: int
    row_count: int
    digest: bytes
    hash: bytes
    created_at_ns: int


class Head(NamedTuple):
    """Where a chain ends, as it is stored."""

    chain: int
    length: int
    hash: bytes


_MAX_ID = 2**63 - 1  # on SQLite every text is above it
_ENTRY = f"SELECT {', '.join(Entry._fields)} FROM ledger_entries"


def append(
    connection: Connection,
    kind: EntryKind,
    first_id: int,
    row_count: int,
    digest: bytes,
    now_ns: int,
) -> None:
    """Enter the rows of this transaction with the ids from ``first_id`` on. ``digest`` is the
    SHA-256 of their canonical bytes.

    The last statement before the commit: until then no other transaction adds to this chain.
    """
    chain, length, last_hash = _hold_chain(connection)
    seq = length + 1
    new_hash = entry_hash(last_hash, chain, seq, kind, first_id, row_count, now_ns, digest)
    connection.execute(
        insert(LedgerEntryRow).values(
            chain=chain,
            seq=seq,
            kind=kind,
            first_id=first_id,
            row_count=row_count,
            digest=digest,
            hash=new_hash,
            created_at_ns=now_ns,
        )
    )
    connection.execute(
        update(LedgerHeadRow).where(LedgerHeadRow.chain == chain).values(length=seq, hash=new_hash)
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
) -> bytes:
    """The hash of an entry that follows the one with ``last_hash``. It is stored, and auditors
    compute it by themselves: it must never change."""
    numbers = struct.pack("<6q", chain, seq, kind, first_id, row_count, created_at_ns)
    return hashlib.sha256(b"tollwire.ledger.1" + last_hash + numbers + digest).digest()


def _hold_chain(connection: Connection) -> tuple[int, int, bytes]:
    """chain, length and hash of the first chain that no other transaction holds; where all are
    held, of one that was waited for."""
    heads = select(LedgerHeadRow.chain, LedgerHeadRow.length, LedgerHeadRow.hash)
    free = heads.order_by(LedgerHeadRow.chain).limit(1).with_for_update(skip_locked=True)
    found = connection.execute(free).one_or_none()
    if found is None:
        any_of_them = heads.order_by(func.random()).limit(1).with_for_update()
        found = connection.execute(any_of_them).one()
    return found.chain, found.length, found.hash


# Reading, past the types of the columns: on SQLite a value may be of any type, and one that cannot
# be there is to be reported by whoever checks it.


def heads(connection: Connection) -> list[Head]:
    """The ends of all chains, by their numbers."""
    query = f"SELECT {', '.join(Head._fields)} FROM ledger_heads ORDER BY chain"
    return [Head(*row) for row in connection.exec_driver_sql(query)]


def chains_with_entries(connection: Connection) -> list[int]:
    """What the entries have as the numbers of their chains."""
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
    """The first entries of a chain behind ``last_seq``."""
    query = text(f"{_ENTRY} WHERE chain = :chain AND seq > :last ORDER BY seq LIMIT :limit")
    return _entries(connection, query, {"chain": chain, "last": last_seq, "limit": limit})


def entries_by_rows(
    connection: Connection, kind: EntryKind, after_first_id: int, limit: int
) -> list[Entry]:
    """The next entries of a kind by their first_id, behind ``after_first_id``."""
    query = text(
        f"{_ENTRY} WHERE kind = :kind AND first_id > :after AND first_id <= {_MAX_ID}"
        " ORDER BY first_id LIMIT :limit"
    )
    return _entries(connection, query, {"kind": int(kind), "after": after_first_id, "limit": limit})


def last_entry_by_rows(connection: Connection, kind: EntryKind) -> Entry | None:
    """The entry of a kind with the highest first_id."""
    query = text(
        f"{_ENTRY} WHERE kind = :kind AND first_id <= {_MAX_ID} ORDER BY first_id DESC LIMIT 1"
    )
    found = _entries(connection, query, {"kind": int(kind)})
    return found[0] if found else None


def _entries(connection: Connection, query: Any, values: dict[str, int]) -> list[Entry]:
    return [Entry(*row) for row in connection.execute(query, values)]
