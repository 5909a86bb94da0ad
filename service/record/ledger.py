"""The root of the ledger, and the verification of the ledger.

A root has the length of each chain and a digest of the hashes of the last entries. Reading a root
stores nothing. The verification walks each chain from its first entry, recomputes every hash, and
compares the rows of the tables with the entries (ledger_rows.py, ledger_covered.py). It also
reports missing triggers. Without a root it finds
every change that has no entry of its own. If somebody rewrites a whole chain, the chain is
consistent, and only an earlier root or the signatures of the entries show the change.
"""

from __future__ import annotations

import hashlib
import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tollwire.service.domain.errors import invalid_field
from tollwire.service.domain.model import MAX_ID
from tollwire.service.domain.record_model import (
    LedgerDifference,
    LedgerDifferenceKind,
    LedgerProgress,
    LedgerRoot,
)
from tollwire.service.domain.thread_context import Work
from tollwire.service.record.ledger_covered import CoveredCheck
from tollwire.service.record.ledger_rows import KINDS, RowCheck
from tollwire.service.record.signatures import PublicKeys
from tollwire.service.storage import covered_rows, ledger
from tollwire.service.storage.engine import Database
from tollwire.service.storage.ledger import HASH_SIZE, NO_HASH, ChainHead, Entry, EntryKind
from tollwire.service.storage.schema import triggers

# A verification reports its progress at this interval, or earlier at this number of differences.
PROGRESS_SECONDS = 1.0
PROGRESS_DIFFERENCES = 1_000
PART_ENTRIES = 10_000
MAX_CHAIN_DIFFERENCES = 100
# Transactions enter their rows in the order of their ends, and each is dated some time before its
# end; the clocks of several servers differ.
MAX_FALL_NS = 600 * 10**9

MAX_ROOT_CHARS = 1_000
_ROOT = re.compile(r"(\d{1,19}(?:-\d{1,19})*):([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class GivenRoot:
    """A root that was stored before: the lengths of the chains, and the digest of their ends."""

    lengths: tuple[int, ...]
    digest: str

    @classmethod
    def read(cls, root: str) -> GivenRoot | None:
        """Parse a root; None for an empty text. InvalidInput if the text is not a root."""
        if not root:
            return None
        found = _ROOT.fullmatch(root.strip()) if len(root) <= MAX_ROOT_CHARS else None
        if found is None:
            raise invalid_field(
                "root", "must have the form that GetLedgerRoot returns: LENGTHS:HEX"
            )
        lengths = tuple(map(int, found[1].split("-")))
        if max(lengths) > MAX_ID:
            raise invalid_field(
                "root", f"has a chain of {max(lengths)} entries; the maximum is {MAX_ID}"
            )
        return cls(lengths, found[2])


def root_of(ends: Sequence[ChainHead]) -> str:
    """The root of chains with these ends, in the order of the chains from 0. Auditors store roots
    for years, so the format must not change. Empty chains at the end are left out."""
    while ends and ends[-1].length == 0:
        ends = ends[:-1]
    hashed = hashlib.sha256(b"tollwire.root.1")
    for end in ends:
        hashed.update(struct.pack("<2q", end.chain, end.length) + end.hash)
    lengths = "-".join(str(end.length) for end in ends) or "0"
    return f"{lengths}:{hashed.hexdigest()}"


class Ledger:
    """The root and the verification of the ledger. Thread-safe."""

    def __init__(self, database: Database, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._clock_ns = clock_ns

    def root(self) -> LedgerRoot:
        """The current root."""
        with self._database.read() as connection:
            heads = ledger.heads(connection)
        return LedgerRoot(root_of(heads), sum(head.length for head in heads), self._clock_ns())

    def verify(self, root: str, public_keys: Sequence[str] = ()) -> Iterator[LedgerProgress]:
        """Check the whole ledger; with ``root`` (not empty) also that it continues that root. With
        ``public_keys`` also that one of them has signed each entry, or each after ``root``.

        Each part is read in its own transaction when the iterator advances. Rows that are written
        meanwhile are not differences. InvalidInput if ``root`` is not a root, or one of
        ``public_keys`` is not a key.
        """
        return self._progress(GivenRoot.read(root), PublicKeys(public_keys))

    def _progress(
        self, given: GivenRoot | None, public_keys: PublicKeys
    ) -> Iterator[LedgerProgress]:
        check = _Check(self._database, given, public_keys)
        began = reported_at = time.monotonic()
        for _ in check.parts():
            now = time.monotonic()
            if now - reported_at >= PROGRESS_SECONDS or len(check.found) >= PROGRESS_DIFFERENCES:
                yield check.progress(now - began, done=False)
                reported_at = now
        yield check.progress(time.monotonic() - began, done=True)


@dataclass
class _Check:
    """One verification. ``found``: the differences that were not reported yet."""

    database: Database
    given: GivenRoot | None
    public_keys: PublicKeys
    found: list[LedgerDifference] = field(default_factory=list)
    entries_checked: int = 0
    rows_checked: int = 0

    def progress(self, seconds: float, *, done: bool) -> LedgerProgress:
        differences, self.found = tuple(self.found), []
        rows_per_second = self.rows_checked / seconds if seconds else 0.0
        return LedgerProgress(
            self.entries_checked, self.rows_checked, rows_per_second, differences, done
        )

    def report(self, difference: LedgerDifference) -> None:
        self.found.append(difference)

    def parts(self) -> Iterator[None]:
        """Check the parts, one for each step of the iterator."""
        self._check_triggers()
        heads = self._heads()
        given_ends = []
        for head in heads:
            walk = _Walk(self, head, self._given_length(head.chain))
            yield from walk.parts()
            given_ends.append(walk.given_end)
        self._check_root(heads, given_ends)
        checks: list[RowCheck | CoveredCheck] = [
            *(RowCheck(self.database, kind, self.report) for kind in KINDS),
            *(CoveredCheck(self.database, covered, self.report) for covered in covered_rows.KINDS),
        ]
        for rows in checks:
            before = self.rows_checked
            for _ in rows.parts():
                self.rows_checked = before + rows.rows_checked
                yield

    def _check_triggers(self) -> None:
        with self.database.read() as connection:
            missing = triggers.missing(connection)
        for name, table in missing:
            self.report(
                LedgerDifference(
                    LedgerDifferenceKind.TRIGGER,
                    f"the trigger {name} of {table}, which refuses changes, is missing or disabled;"
                    " find out who removed it, and run: tollwire migrate",
                )
            )

    def _heads(self) -> list[ChainHead]:
        """The ends of the chains. Reports entries after an end, and chains without an end."""
        with self.database.snapshot(Work.LONG) as connection:
            heads = list(filter(_is_head, ledger.heads(connection)))
            chains = ledger.chains_with_entries(connection)
            behind = [
                entry
                for head in heads
                for entry in ledger.entries_behind(
                    connection, head.chain, head.length, MAX_CHAIN_DIFFERENCES
                )
            ]
        for entry in behind:
            self.chain_differs(entry.chain, entry.seq, "the entry is after the end of the chain")
        for chain in {*chains, *range(len(heads))} - {head.chain for head in heads}:
            self.chain_differs(chain, 0, f"the end of chain {chain!r} is missing")
        return heads

    def _given_length(self, chain: int) -> int:
        lengths = self.given.lengths if self.given else ()
        return lengths[chain] if 0 <= chain < len(lengths) else 0

    def _check_root(
        self, heads: Sequence[ChainHead], given_ends: Sequence[ChainHead | None]
    ) -> None:
        if self.given is None:
            return
        lengths = {head.chain: head.length for head in heads}
        shorter = [
            chain
            for chain, length in enumerate(self.given.lengths)
            if length > lengths.get(chain, 0)
        ]
        for chain in shorter:
            self._root_differs(
                f"chain {chain} had {self.given.lengths[chain]} entries in the given root, and has"
                f" {lengths.get(chain, 0)} now",
                chain,
            )
        ends = [end for end in given_ends if end is not None]
        if not shorter and root_of(ends).partition(":")[2] != self.given.digest:
            self._root_differs("the current entries are not those of the given root")

    def _root_differs(self, message: str, chain: int = 0) -> None:
        self.report(LedgerDifference(LedgerDifferenceKind.ROOT, message, chain))

    def chain_differs(
        self,
        chain: int,
        seq: int,
        message: str,
        kind: LedgerDifferenceKind = LedgerDifferenceKind.CHAIN,
    ) -> None:
        """Report a difference. A chain or seq that is not a number, which SQLite can contain, is
        only in the message."""
        numbers = (value if isinstance(value, int) else 0 for value in (chain, seq))
        self.report(LedgerDifference(kind, message, *numbers))


class _Walk:
    """The walk along a chain, from its first entry to its end. ``given_end``: the entry at which
    the chain ended in the given root; None if this entry does not exist."""

    def __init__(self, check: _Check, head: ChainHead, given_length: int) -> None:
        self._check = check
        self._head = head
        self._given_length = given_length
        self._seq = 0  # of the last entry
        self._last_hash: bytes | None = NO_HASH  # None: the entry is missing
        self._last_ns = -(2**63)  # the time of the last entry
        self._unsigned: list[int] = []  # the first and the last of the entries without a signature
        self._differences = 0
        self.given_end = None if given_length else ChainHead(head.chain, 0, NO_HASH)

    def parts(self) -> Iterator[None]:
        first_seq = -MAX_ID - 1
        while first_seq <= self._head.length:
            with self._check.database.read(work=Work.LONG) as connection:
                entries = ledger.entries(
                    connection, self._head.chain, first_seq, self._head.length, PART_ENTRIES
                )
            for entry in entries:
                self._step(entry)
            self._check.entries_checked += len(entries)
            yield
            if len(entries) < PART_ENTRIES:
                break
            first_seq = entries[-1].seq + 1
        self._missing_until(self._head.length)
        self._report_unsigned()
        if self._last_hash is not None and self._last_hash != self._head.hash:
            self._differs(self._head.length, "the end of the chain does not match its last entry")

    def _step(self, entry: Entry) -> None:
        if entry.seq < 1:
            self._differs(entry.seq, "the entry is before the first entry of the chain")
            return
        self._missing_until(entry.seq - 1)
        if not _is_entry(entry):
            self._differs(entry.seq, "the entry has impossible values")
            self._last_hash = None
        else:
            if self._last_hash is not None and _hash(self._last_hash, entry) != entry.hash:
                self._differs(
                    entry.seq, "the entry was changed, or does not follow the previous entry"
                )
            elif self._last_ns - entry.created_at_ns > MAX_FALL_NS:
                self._differs(
                    entry.seq,
                    "the entry is dated more than ten minutes before the previous one: it was added"
                    " later, or a clock was set back",
                    LedgerDifferenceKind.TIME,
                )
            self._last_ns = entry.created_at_ns
            self._check_signature(entry)
            self._last_hash = entry.hash
            if entry.seq == self._given_length:
                self.given_end = ChainHead(entry.chain, entry.seq, entry.hash)
        self._seq = entry.seq

    def _check_signature(self, entry: Entry) -> None:
        keys = self._check.public_keys
        if not keys or entry.seq <= self._given_length:
            return
        if keys.have_signed(entry.hash, entry.signature):
            self._report_unsigned()
        else:
            self._unsigned = [*self._unsigned[:1], entry.seq]

    def _report_unsigned(self) -> None:
        if self._unsigned:
            first, last = self._unsigned[0], self._unsigned[-1]
            entries = "the entry has" if first == last else f"the entries up to {last} have"
            self._differs(first, f"{entries} no signature of the given keys")
            self._unsigned = []

    def _missing_until(self, seq: int) -> None:
        if self._seq < seq:
            self._differs(self._seq + 1, f"the entries up to {seq} are missing")
            self._seq, self._last_hash = seq, None

    def _differs(
        self,
        seq: int,
        message: str,
        kind: LedgerDifferenceKind = LedgerDifferenceKind.CHAIN,
    ) -> None:
        self._differences += 1
        if self._differences == MAX_CHAIN_DIFFERENCES:
            message += "; further differences of this chain are not reported"
        if self._differences <= MAX_CHAIN_DIFFERENCES:
            self._check.chain_differs(self._head.chain, seq, message, kind)


def _hash(last_hash: bytes, entry: Entry) -> bytes:
    return ledger.entry_hash(
        last_hash,
        entry.chain,
        entry.seq,
        entry.kind,
        entry.first_id,
        entry.row_count,
        entry.created_at_ns,
        entry.digest,
        entry.format,
    )


def _is_hash(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == HASH_SIZE


def _is_head(head: ChainHead) -> bool:
    return isinstance(head.chain, int) and isinstance(head.length, int) and _is_hash(head.hash)


def _is_entry(entry: Entry) -> bool:
    numbers = (
        *(entry.seq, entry.kind, entry.first_id, entry.row_count, entry.created_at_ns),
        entry.revision,
    )
    return (
        all(isinstance(number, int) for number in numbers)
        and entry.kind in set(EntryKind)
        and entry.format in ledger.FORMATS
        and _is_hash(entry.digest)
        and _is_hash(entry.hash)
    )
