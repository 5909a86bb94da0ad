"""CDRs in the order of recording, from a position on: each exactly once, and none left out.

The ledger has that order. The entries of one chain are committed one after the other, so what a
reader sees of a chain is always its beginning, and a position is how far each chain was read. Ids
would not do: of two transactions at once the one with the lower ids may be committed later.

A position is handed out as a cursor, an opaque text, and nothing is kept on the server.
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
# How many rows one transaction looks at where only some tenants' are wanted, and how many entries.
MAX_PART_ROWS = 10_000
MAX_PART_ENTRIES = 10_000
# How many entries of a chain are read at first, and at most, in one query.
_FIRST_ENTRIES, _MOST_ENTRIES = 16, 256
# How often a stream that waits looks whether it is still wanted, and a process for new entries.
TICK_SECONDS = 0.1
LOOK_SECONDS = 0.2
# How often a cursor is sent while nothing that was read was wanted.
PROGRESS_SECONDS = 5.0

_MOST_CHAINS = 256
_NOT_OF_THIS_FEED = (
    "is not one that WatchCdrs returned for this tenant_id and to this caller, from this database;"
    " start again without it"
)


@dataclass(frozen=True, slots=True)
class Position:
    """``lengths``: of each chain, how many entries were read. ``taken`` rows of the next entry of
    ``chain`` were read as well."""

    lengths: tuple[int, ...] = ()
    chain: int = 0
    taken: int = 0

    def of_chain(self, chain: int) -> int:
        return self.lengths[chain] if chain < len(self.lengths) else 0

    def after(self, chain: int, seq: int) -> Position:
        """Behind that entry."""
        lengths = list(self.lengths) + [0] * (chain + 1 - len(self.lengths))
        lengths[chain] = seq
        return Position(tuple(lengths))


@dataclass(frozen=True, slots=True)
class FeedPart:
    """CDRs, and the cursor of the position right behind them. ``caught_up``: when they were read
    there were no more."""

    cdrs: Sequence[Cdr]
    cursor: str
    caught_up: bool


@dataclass(frozen=True, slots=True)
class _Segment:
    """Rows of one entry, with the position before them."""

    before: Position
    entry: Entry
    ids: range

    def until(self, cdr_id: int) -> Position:
        """The position right behind a row."""
        taken = cdr_id + 1 - self.entry.first_id
        if taken >= self.entry.row_count:
            return self.before.after(self.entry.chain, self.entry.seq)
        return replace(self.before, chain=self.entry.chain, taken=taken)


class Feed:
    """What follows the record. Thread-safe."""

    def __init__(self, database: Database, decks: Decks) -> None:
        self._database = database
        self._decks = decks
        self._look = threading.Lock()
        self._looked_at = 0.0
        self._entries = 0

    def watch(
        self, tenant_id: int, cursor: str, *, from_now: bool, follow: bool
    ) -> Iterator[FeedPart | None]:
        """Parts from the cursor on ("": from the first CDR; ``from_now``: from those recorded after
        this). Without ``follow`` it ends once it has caught up. None at least each TICK_SECONDS:
        the caller may stop there.

        ``tenant_id`` 0: CDRs of all tenants that the caller may see. InvalidInput for a cursor that
        is not of this feed.
        """
        refuse(check_id("tenant_id", tenant_id, required=False))
        if from_now and cursor:
            raise invalid_field("from_now", "must be false where there is a cursor")
        if tenant_id:
            self._decks.deck(tenant_id)
        reader = _FeedReader(self._database, tenant_id, scopes.within())
        position = reader.position(cursor, from_now=from_now)
        return self._parts(reader, position, follow=follow)

    def _parts(
        self, reader: _FeedReader, position: Position, *, follow: bool
    ) -> Iterator[FeedPart | None]:
        told_at, told = time.monotonic(), False
        while True:
            cdrs, position, caught_up = reader.read(position)
            # The first time that it has caught up is told, with a cursor to go on from.
            if cdrs or (caught_up and not told) or time.monotonic() - told_at >= PROGRESS_SECONDS:
                told_at, told = time.monotonic(), caught_up
                yield FeedPart(cdrs, reader.cursor(position), caught_up)
            yield None
            if caught_up:
                if not follow:
                    return
                while self._count_entries() <= sum(position.lengths):
                    time.sleep(TICK_SECONDS)
                    yield None

    def _count_entries(self) -> int:
        """How many entries there were a moment ago: one look serves all who wait."""
        with self._look:
            if time.monotonic() - self._looked_at >= LOOK_SECONDS:
                with self._database.read(work=Work.LOOK) as connection:
                    self._entries = sum(head.length for head in ledger.heads(connection))
                self._looked_at = time.monotonic()
            return self._entries


class _FeedReader:
    """Reads for one caller."""

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
        """The next CDRs, the position behind them, and whether there are no more. There may be more
        although there are none here."""
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
    """Whether there is such a position in this ledger."""
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
    """The next rows, up to ``most_rows``, the position behind them and whether there are no more.

    Entries of one chain in their order; between the chains, that of the next entries which was made
    first. So what is committed when it is read comes in one and the same order each time.
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
        # The entry that was begun is read to its end first.
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
    """Whether it is of CDRs. What no transaction writes, and an owner of the database may have put
    there, is left to the verification."""
    return (
        entry.kind == EntryKind.RECORDED
        and isinstance(entry.first_id, int)
        and isinstance(entry.row_count, int)
        and 0 < entry.row_count <= MAX_ENTRY_ROWS
    )
