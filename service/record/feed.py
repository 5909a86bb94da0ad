"""The feed: CDRs in the order of recording, from a position, each exactly once and without gaps.

The ledger has the order. The entries of a chain are committed one after the other, so a reader
always sees the beginning of a chain without gaps, and a position is the number of entries read of
each chain. Ids are not sufficient: of two simultaneous transactions, the one with the lower ids may
be committed later.

Clients get a position as a cursor, an opaque text. The server stores nothing about readers.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tollwire.service.cache.decks import Decks
from tollwire.service.domain import paging, scopes
from tollwire.service.domain.checks import check_id, refuse
from tollwire.service.domain.errors import InvalidInput, invalid_field
from tollwire.service.domain.model import Cdr
from tollwire.service.domain.thread_context import Work
from tollwire.service.record.cdrs import most_bytes
from tollwire.service.record.ledger_rows import MAX_ENTRY_ROWS
from tollwire.service.storage import cdr_lists, ledger
from tollwire.service.storage.engine import Connection, Database
from tollwire.service.storage.ledger import Entry, EntryKind
from tollwire.service.storage.owners import Within

MAX_PART_CDRS = paging.MAX_PAGE_SIZE
# The maximum numbers of rows (if the reader wants only some tenants) and entries that one
# transaction reads.
MAX_PART_ROWS = 10_000
MAX_PART_ENTRIES = 10_000
# The number of entries of a chain in the first query, and the maximum.
_FIRST_ENTRIES, _MOST_ENTRIES = 16, 256
# The intervals at which a waiting stream checks that it is still wanted, and a process checks for
# new entries.
TICK_SECONDS = 0.1
COUNT_SECONDS = 0.2
# The interval at which a cursor is sent while no CDR matches.
PROGRESS_SECONDS = 5.0

_MOST_CHAINS = 256
_NOT_OF_THIS_FEED = (
    "was not returned by WatchCdrs for this tenant_id, caller and database; start again without"
    " a cursor"
)


@dataclass(frozen=True, slots=True)
class Position:
    """``lengths``: the number of entries read, for each chain. ``taken``: the number of rows read
    of the next entry of ``chain``."""

    lengths: tuple[int, ...] = ()
    chain: int = 0
    taken: int = 0

    def of_chain(self, chain: int) -> int:
        return self.lengths[chain] if chain < len(self.lengths) else 0

    def after(self, chain: int, seq: int) -> Position:
        """The position after this entry."""
        lengths = list(self.lengths) + [0] * (chain + 1 - len(self.lengths))
        lengths[chain] = seq
        return Position(tuple(lengths))


@dataclass(frozen=True, slots=True)
class FeedPart:
    """CDRs, and the cursor of the position directly after them. ``caught_up``: there were no more
    CDRs when they were read."""

    cdrs: Sequence[Cdr]
    cursor: str
    caught_up: bool


@dataclass(frozen=True, slots=True)
class _Segment:
    """Rows of one entry, and the position before them."""

    before: Position
    entry: Entry
    ids: range

    def until(self, cdr_id: int) -> Position:
        """The position directly after a row."""
        taken = cdr_id + 1 - self.entry.first_id
        if taken >= self.entry.row_count:
            return self.before.after(self.entry.chain, self.entry.seq)
        return replace(self.before, chain=self.entry.chain, taken=taken)


class Feed:
    """Reads the record in the order of recording. Thread-safe."""

    def __init__(self, database: Database, decks: Decks) -> None:
        self._database = database
        self._decks = decks
        self._count_lock = threading.Lock()
        self._counted_at = 0.0
        self._entries = 0

    def watch(
        self, tenant_id: int, cursor: str, *, from_now: bool, follow: bool
    ) -> Iterator[FeedPart | None]:
        """Yield parts after the cursor ("": from the first CDR; ``from_now``: only CDRs recorded
        after this call). Without ``follow`` it ends after the CDRs that exist. Also yields None, at
        least every TICK_SECONDS, so that the caller can stop.

        ``tenant_id`` 0: CDRs of all tenants that the caller may see. InvalidInput for a cursor of
        another feed.
        """
        refuse(check_id("tenant_id", tenant_id, required=False))
        if from_now and cursor:
            raise invalid_field("from_now", "must be false if there is a cursor")
        if tenant_id:
            self._decks.deck(tenant_id)
        reader = _FeedReader(self._database, tenant_id, scopes.within())
        position = reader.position(cursor, from_now=from_now)
        return self._parts(reader, position, follow=follow)

    def _parts(
        self, reader: _FeedReader, position: Position, *, follow: bool
    ) -> Iterator[FeedPart | None]:
        sent_at, has_reported = time.monotonic(), False
        while True:
            cdrs, position, caught_up = reader.read(position)
            # When the stream catches up for the first time, a part with a cursor reports it.
            if (
                cdrs
                or (caught_up and not has_reported)
                or time.monotonic() - sent_at >= PROGRESS_SECONDS
            ):
                sent_at, has_reported = time.monotonic(), caught_up
                yield FeedPart(cdrs, reader.cursor(position), caught_up)
            yield None
            if caught_up:
                if not follow:
                    return
                while self._count_entries() <= sum(position.lengths):
                    time.sleep(TICK_SECONDS)
                    yield None

    def _count_entries(self) -> int:
        """The recent number of entries: one query is shared by all waiting streams."""
        with self._count_lock:
            if time.monotonic() - self._counted_at >= COUNT_SECONDS:
                with self._database.read(work=Work.LOOK) as connection:
                    self._entries = sum(head.length for head in ledger.heads(connection))
                self._counted_at = time.monotonic()
            return self._entries


class _FeedReader:
    """Reads the CDRs that one caller may see."""

    def __init__(self, database: Database, tenant_id: int, within: Within) -> None:
        self._database = database
        self._tenant_id = tenant_id
        self._within = within
        self._filters = ("WatchCdrs", tenant_id, within)
        self._wants_all = not tenant_id and within is None

    def cursor(self, position: Position) -> str:
        key = (position.chain, position.taken, *position.lengths)
        return paging.encode_token(self._filters, key)

    def position(self, cursor: str, *, from_now: bool) -> Position:
        try:
            key = paging.decode_token(cursor, self._filters, None)
        except InvalidInput as error:
            raise invalid_field("cursor", _NOT_OF_THIS_FEED) from error
        if key is None and not from_now:
            return Position()
        with self._database.snapshot() as connection:
            present = _lengths(connection)
            if key is None:
                return Position(present)
            if not 2 <= len(key) <= _MOST_CHAINS or min(key) < 0:
                raise invalid_field("cursor", _NOT_OF_THIS_FEED)
            found = Position(tuple(key[2:]), key[0], key[1])
            if not _is_within(connection, found, present):
                raise invalid_field("cursor", _NOT_OF_THIS_FEED)
        return found

    def read(self, position: Position) -> tuple[list[Cdr], Position, bool]:
        """The next CDRs, the position after them, and whether there are no more. The list can be
        empty although there are more CDRs."""
        with self._database.snapshot(Work.LONG) as connection:
            most_rows = MAX_PART_CDRS if self._wants_all else MAX_PART_ROWS
            segments, behind, caught_up = _segments(connection, position, most_rows)
            ids = [cdr_id for segment in segments for cdr_id in segment.ids]
            if not self._wants_all:
                owned = cdr_lists.owned_ids(connection, ids, self._tenant_id, self._within)
                ids = [cdr_id for cdr_id in ids if cdr_id in owned]
            wanted = ids[:MAX_PART_CDRS]
            cdrs = cdr_lists.by_ids(connection, wanted)
        shown = paging.fitting(cdrs, len(cdrs), most_bytes)
        if len(shown) == len(cdrs) and len(wanted) == len(ids):
            return cdrs, behind, caught_up
        last_id = shown[-1].id if len(shown) < len(cdrs) else wanted[-1]
        (segment,) = (one for one in segments if last_id in one.ids)
        return shown, segment.until(last_id), False


def _lengths(connection: Connection) -> tuple[int, ...]:
    lengths = {head.chain: head.length for head in ledger.heads(connection)}
    return tuple(lengths.get(chain, 0) for chain in range(max(lengths, default=-1) + 1))


def _is_within(connection: Connection, position: Position, present: tuple[int, ...]) -> bool:
    """Whether the position exists in this ledger."""
    if any(
        length > (present[chain] if chain < len(present) else 0)
        for chain, length in enumerate(position.lengths)
    ):
        return False
    if not position.taken:
        return True
    after = position.of_chain(position.chain)
    found = ledger.entries_behind(connection, position.chain, after, 1)
    return any(_is_recorded(entry) and position.taken < entry.row_count for entry in found)


def _segments(
    connection: Connection, position: Position, most_rows: int
) -> tuple[list[_Segment], Position, bool]:
    """The next rows, up to ``most_rows``, the position after them, and whether there are no more.

    Entries of one chain are in their order; between chains, the entry with the earliest time comes
    first. So repeated reads of committed entries have the same order.
    """
    chains = {
        chain: _entries(connection, chain, position.of_chain(chain))
        for chain, length in enumerate(_lengths(connection))
        if length > position.of_chain(chain)
    }
    heap: list[tuple[int, int, Entry]] = []

    def push(chain: int, *, first: bool = False) -> None:
        entry = next(chains[chain], None)
        if entry is not None:
            made_at = entry.created_at_ns if isinstance(entry.created_at_ns, int) else 0
            heapq.heappush(heap, (-(2**63) if first else made_at, chain, entry))

    for chain in chains:
        # An entry that was read in part is completed first.
        push(chain, first=bool(position.taken) and chain == position.chain)
    segments: list[_Segment] = []
    entries = 0
    while heap and most_rows and entries < MAX_PART_ENTRIES:
        _, chain, entry = heapq.heappop(heap)
        entries += 1
        if _is_recorded(entry):
            taken = position.taken if chain == position.chain else 0
            begin = entry.first_id + taken
            ids = range(begin, min(entry.first_id + entry.row_count, begin + most_rows))
            segments.append(_Segment(replace(position, taken=0), entry, ids))
            most_rows -= len(ids)
            position = segments[-1].until(ids[-1])
            if position.taken:
                return segments, position, False
        else:
            position = position.after(chain, entry.seq)
        push(chain)
    return segments, position, not heap


def _entries(connection: Connection, chain: int, after_seq: int) -> Iterator[Entry]:
    size = _FIRST_ENTRIES
    while True:
        found = ledger.entries_behind(connection, chain, after_seq, size)
        yield from found
        if len(found) < size:
            return
        after_seq = found[-1].seq
        size = min(4 * size, _MOST_ENTRIES)


def _is_recorded(entry: Entry) -> bool:
    """Whether the entry is about new CDRs. Entries with impossible values, which only somebody with
    access to the database can write, are skipped here and reported by the verification."""
    return (
        entry.kind == EntryKind.RECORDED
        and isinstance(entry.first_id, int)
        and isinstance(entry.row_count, int)
        and 0 < entry.row_count <= MAX_ENTRY_ROWS
    )
