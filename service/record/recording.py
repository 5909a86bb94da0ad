"""Records calls: a single call and a chunk of thousands in the same way.

Only this module decides whether a call is recorded, a duplicate, in conflict or refused, and which
rates price it, so CreateCdr and UploadCdrs cannot differ. The calls stay inside the rating core;
Python handles only those that are not new. The caller owns the transaction. This module must not
depend on the offsets of uploads or on the wire.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import Any

import ratingcore
from ratingcore.record.key_order import in_key_order, split
from ratingcore.record.record_rating import count_outcomes, rate_records
from ratingcore.record.records import Records
from ratingcore.record.row_digest import digest_of_new
from ratingcore.record.rows import RowTuples, column_arrays, copy_data, shared_fields
from ratingcore.record.values import Content
from ratingcore.wire.tally import Tally
from tollwire.service.cache.decks import Decks, TenantDeck
from tollwire.service.domain import scopes
from tollwire.service.domain.errors import NotFound, Reason
from tollwire.service.domain.model import MAX_GENERATION, Call, Extension, Tenant
from tollwire.service.domain.money import max_cost_words
from tollwire.service.domain.request import Scope
from tollwire.service.observability import instruments
from tollwire.service.observability.tallies import TALLIES
from tollwire.service.storage import cdrs, ledger
from tollwire.service.storage.cdr_rows import Key, Recorded
from tollwire.service.storage.cdrs import Inserted
from tollwire.service.storage.engine import Connection
from tollwire.service.storage.ledger import EntryKind, LedgerHead
from tollwire.service.storage.parties import Parties, hold_parties


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the call at ``position`` of the batch was not recorded. ``metadata`` is for programs."""

    position: int
    call_id: str
    reason: Reason
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recording:
    """What became of a batch. created + duplicates + refusals are its calls; ``outcomes`` is what
    those of created came to; the refusals come by rising position. The CDRs have the ids from
    ``first_id`` on, and this ``digest``; 0 and empty where none was created. ``is_entered``: the
    ledger has their entry. ``has_chunk``: the chunk of the upload is stored too. ``recorded_again``
    of those created follow a reversed CDR of the same
    call_id; ``derived_duplicates`` of the duplicates have a derived call_id. ``order`` has the
    positions of those created, by rising id; ``tenants`` has the tenants of all calls, as the calls
    were rated, and ``extensions`` has their extensions."""

    first_id: int
    created: int
    duplicates: int
    outcomes: Tally
    refusals: tuple[Refusal, ...]
    digest: bytes
    created_at_ns: int
    is_entered: bool = False
    has_chunk: bool = False
    recorded_again: int = 0
    derived_duplicates: int = 0
    order: array[int] = field(default_factory=lambda: array("I"))
    tenants: Mapping[int, Tenant] = field(default_factory=dict)
    extensions: Mapping[int, Extension] = field(default_factory=dict)

    @property
    def unrated(self) -> int:
        return self.outcomes.unrated()

    @property
    def conflicts(self) -> int:
        return sum(refusal.reason == Reason.CDR_CONFLICT for refusal in self.refusals)


def content_of(call: Call) -> Content:
    """What the call is compared by; its call_id is empty where the sender gave none."""
    return Content(*(getattr(call, name) for name in Content._fields))


@dataclass(frozen=True, slots=True)
class Rated:
    """A batch that is rated and not written: the positions of calls that may be new, in key order,
    and of those whose key is in ``existing`` or occurs before in the batch; and the refusals so
    far."""

    records: Records
    parties: Parties
    tenants: Mapping[int, Tenant]
    new: array[int]
    old: array[int]
    existing: dict[Key, Recorded]
    refusals: list[Refusal]


def _nothing() -> None:
    """No work to do."""


class Recorder:
    """Records calls within transactions of others. Thread-safe."""

    def __init__(self, decks: Decks, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._decks = decks
        self._clock_ns = clock_ns

    def hold(self, connection: Connection, records: Records, scope: Scope) -> Parties:
        """``holding`` in a transaction that has begun with something else. The decks have the
        changes that were committed by then."""
        parties = holding(records, scope)(connection)
        self._decks.catch_up(connection, parties.change_seq)
        return parties

    def rate(self, connection: Connection, records: Records, parties: Parties) -> Rated:
        """Rate the calls that break no rule. The decks must have the changes up to those of
        ``parties``, which ``holding`` has locked in this transaction."""
        records.set_first_generation()
        held = known_decks(self._decks, parties.tenant_ids)
        decks = {tenant_id: one.deck for tenant_id, one in held.items()}
        refusals = _unknown_parties(records, decks.keys(), parties.extensions)
        order = in_key_order(records, {_party(records, one.position) for one in refusals})
        rate_records(records, order, decks)
        new, old, overflowing = split(records, order)
        existing: dict[Key, Recorded] = {}
        if overflowing:
            found = cdrs.find(connection, map(records.key, overflowing))
            existing = {key: one for key, one in found.items() if not one.is_reversed}
            new, old, overflowing = split(records, order, existing)
            refusals += [_overflow(records, position, decks) for position in overflowing]
        tenants = {tenant_id: one.tenant for tenant_id, one in held.items()}
        return Rated(records, parties, tenants, new, old, existing, refusals)

    def write(
        self,
        connection: Connection,
        rated: Rated,
        upload_id: int,
        *,
        chunk: Callable[[Recording], Mapping[str, Any]] | None = None,
        commits: bool = False,
        meanwhile: Callable[[], object] = _nothing,
    ) -> Recording:
        """Write the rated calls that are not recorded yet. ``enter`` must be the last step of the
        transaction.

        ``chunk`` returns the chunk of an upload (``uploads.chunk_values``) for a recording; if
        nothing but the rows, their entry and the chunk is to be written, all may be written
        together. ``commits``: the transaction has no more to write. Then this may commit, if
        nothing has to be read or written after it. ``meanwhile`` may be called while the database
        inserts the rows."""
        records, parties, new, old = rated.records, rated.parties, rated.new, rated.old
        existing, refusals = rated.existing, rated.refusals
        rows = CallRows(records, new, upload_id, self._clock_ns())
        first_id = parties.first_cdr_id
        entry = _entry(connection, rows, parties) if len(rows) else None
        expected: Recording | None = None
        if entry is not None and chunk is not None and not old and not refusals:
            expected = Recording(
                first_id=first_id,
                created=len(rows),
                duplicates=0,
                outcomes=count_outcomes(records, new),
                refusals=(),
                digest=entry.digest,
                created_at_ns=rows.created_at_ns,
                is_entered=True,
                has_chunk=True,
                order=new,
                tenants=rated.tenants,
                extensions=parties.extensions,
            )

        def work_meanwhile(rows: CallRows = rows) -> None:
            rows.digest(first_id)
            meanwhile()

        inserted = cdrs.insert_new(
            connection,
            rows,
            first_id,
            entry,
            chunk=None if expected is None or chunk is None else chunk(expected),
            commits=commits and not old and (chunk is None or expected is not None),
            meanwhile=work_meanwhile,
        )
        if inserted.is_entered and expected is not None:
            return expected
        first_count = len(new)
        if inserted.existing:
            rows = rows.without(inserted.existing.keys())
            existing |= {key: one for key, one in inserted.existing.items() if not one.is_reversed}
            first_count = len(rows)
            rows, refused = _record_again(connection, rows, new, old, inserted, existing)
            refusals += refused
            old.extend(position for position in new if records.key(position) in existing)
        conflicts = _conflicts(connection, records, rows.order, old, existing)
        refusals += conflicts
        return Recording(
            first_id=inserted.first_id if len(rows) else 0,
            created=len(rows),
            duplicates=len(old) - len(conflicts),
            outcomes=count_outcomes(records, rows.order),
            refusals=tuple(sorted(refusals, key=attrgetter("position"))),
            digest=rows.digest(inserted.first_id) if len(rows) else b"",
            is_entered=inserted.is_entered,
            created_at_ns=rows.created_at_ns,
            recorded_again=len(rows) - first_count,
            derived_duplicates=records.derived(old)
            - records.derived(one.position for one in conflicts),
            order=rows.order,
            tenants=rated.tenants,
            extensions=parties.extensions,
        )


def holding(records: Records, scope: Scope, upload_id: int = 0) -> Callable[[Connection], Parties]:
    """Locks those tenants and extensions of the calls that exist; tenants outside ``scope`` count
    as missing. Locks the upload before them, if ``upload_id`` is not 0. May be the opening of a
    transaction.

    They are locked first, and then the decks catch up, so the rates that are committed when the
    calls are written price them.
    """
    parties = records.parties()
    tenant_ids = {tenant_id for tenant_id, _ in parties}
    scopes.concerns(tenant_ids)
    if scope.tenant_ids is not None:
        tenant_ids &= scope.tenant_ids
    extension_ids = {one for tenant_id, one in parties if tenant_id in tenant_ids}
    return partial(
        hold_parties,
        tenant_ids=tenant_ids,
        extension_ids=extension_ids - {0},
        cdr_count=len(records) - len(records.bad()),
        only_theirs=scope.tenant_ids is not None,
        upload_id=upload_id,
    )


def enter(connection: Connection, recording: Recording, head: LedgerHead | None = None) -> None:
    """Add the entry of the recorded rows to the ledger, unless it was inserted with the rows. Call
    it last before the commit: it locks a chain, and other transactions may wait for that lock.
    ``head``: the end of a chain that is locked already."""
    if recording.created and not recording.is_entered:
        ledger.append(
            connection,
            EntryKind.RECORDED,
            recording.first_id,
            recording.created,
            recording.digest,
            recording.created_at_ns,
            head=head,
        )


def expect_records(method: str) -> None:
    """Create the counters of ``method`` at 0. A counter that begins with the first record hides
    that record from queries for its increase."""
    for outcome in ("created", "duplicate", "conflict", "rejected"):
        instruments.RECORDS.add(0, method, outcome)


def count_recorded(method: str, recording: Recording) -> None:
    """Count the outcome of a committed batch of ``method`` in the metrics."""
    TALLIES[method].add_all(recording.outcomes)
    _count(method, "created", recording.created)
    _count(method, "duplicate", recording.duplicates)


def count_refused(method: str, conflicts: int, rejected: int) -> None:
    """Count the calls that were not recorded in the metrics."""
    _count(method, "conflict", conflicts)
    _count(method, "rejected", rejected)


def _count(method: str, outcome: str, calls: int) -> None:
    if calls:
        instruments.RECORDS.add(calls, method, outcome)


def known_decks(decks: Decks, tenant_ids: Collection[int]) -> dict[int, TenantDeck]:
    """The decks of those tenants that have one."""
    known: dict[int, TenantDeck] = {}
    for tenant_id in tenant_ids:
        try:
            known[tenant_id] = decks.deck(tenant_id)
        except NotFound:
            continue
    return known


@dataclass(frozen=True, slots=True)
class CallRows:
    """The calls at the positions ``order`` as rows to insert. ``upload_id`` 0 means none."""

    records: Records
    order: array[int]  # positions
    upload_id: int
    created_at_ns: int
    _digests: dict[int, bytes] = field(init=False, repr=False, default_factory=dict)

    def __len__(self) -> int:
        return len(self.order)

    def keys(self) -> Iterator[Key]:
        return map(self.records.key, self.order)

    def shared_fields(self) -> tuple[str, ...]:
        return shared_fields(self.records, self.order)

    def tuples(
        self, begin: int, end: int, rows_each: int, shared: Collection[str]
    ) -> Iterable[tuple[Any, ...]]:
        order = self.order[begin:end]
        return RowTuples(self.records, order, self.upload_id, self.created_at_ns, rows_each, shared)

    def copy_data(self, first_id: int) -> bytes:
        return copy_data(self.records, self.order, first_id, self.upload_id, self.created_at_ns)

    def column_arrays(self, first_id: int) -> list[bytes]:
        return column_arrays(self.copy_data(first_id), len(self))

    def digest(self, first_id: int) -> bytes:
        """The digest of the rows, with ids from ``first_id`` on. Its format never changes. It is
        computed once, so the generations must be final."""
        if first_id not in self._digests:
            self._digests[first_id] = digest_of_new(
                self.records, self.order, first_id, self.upload_id, self.created_at_ns
            )
        return self._digests[first_id]

    def without(self, keys: Collection[Key]) -> CallRows:
        key = self.records.key
        kept = array("I", [position for position in self.order if key(position) not in keys])
        return replace(self, order=kept)

    def following(self, generations: Mapping[Key, int]) -> None:
        for position in self.order:
            key = self.records.key(position)
            self.records.set_generation(position, generations[key] + 1)


def _entry(connection: Connection, rows: CallRows, parties: Parties) -> ledger.Entry | None:
    """The entry of the rows in the ledger, if a chain is locked for it."""
    if parties.ledger_head is None:
        return None
    return ledger.entry_after(
        connection,
        parties.ledger_head,
        EntryKind.RECORDED,
        parties.first_cdr_id,
        len(rows),
        rows.digest(parties.first_cdr_id),
        rows.created_at_ns,
    )


def _record_again(
    connection: Connection,
    rows: CallRows,
    new: array[int],
    old: array[int],
    inserted: Inserted,
    existing: dict[Key, Recorded],
) -> tuple[CallRows, list[Refusal]]:
    """Record those of ``new`` whose newest CDR is reversed again, as the next generation of their
    key. Returns all rows, these last, and the refusals of calls that have no next generation. Calls
    that another transaction has recorded meanwhile are added to ``existing``; refused ones are
    removed from ``old``."""
    records = rows.records
    taken_back = {key: one for key, one in inserted.existing.items() if one.is_reversed}
    if not taken_back:
        return rows, []
    last = {key for key, one in taken_back.items() if one.generation >= MAX_GENERATION}
    refused = []
    if last:
        refused = [
            _no_generation_left(records, position, taken_back[records.key(position)])
            for position in (*new, *old)
            if records.key(position) in last
        ]
        old[:] = array("I", [position for position in old if records.key(position) not in last])
    again = array(
        "I",
        [
            position
            for position in new
            if (key := records.key(position)) in taken_back and key not in last
        ],
    )
    more = replace(rows, order=again)
    first_id = inserted.first_id + len(rows)
    taken = cdrs.insert_again(connection, more, first_id, taken_back)
    existing |= taken
    return replace(rows, order=rows.order + more.without(taken.keys()).order), refused


def _no_generation_left(records: Records, position: int, recorded: Recorded) -> Refusal:
    call_id = records.call_id(position)
    return Refusal(
        position,
        call_id,
        Reason.CDR_CONFLICT,
        f"call_id: {call_id!r} was recorded and reversed {MAX_GENERATION + 1:,} times,"
        f" the last time as CDR {recorded.cdr_id}, and cannot be again; use another call_id",
        {"cdr_id": str(recorded.cdr_id), "fields": ""},
    )


def _party(records: Records, position: int) -> tuple[int, int]:
    content = records.content(position)
    return content.tenant_id, content.extension_id


def _unknown_parties(
    records: Records, tenants: Collection[int], extensions: Mapping[int, Extension]
) -> list[Refusal]:
    """A refusal for each call whose tenant or extension does not exist."""
    unknown: dict[tuple[int, int], tuple[Reason, str, dict[str, str]]] = {}
    for tenant_id, extension_id in records.parties():
        if tenant_id not in tenants:
            unknown[tenant_id, extension_id] = unknown_tenant(tenant_id)
        elif extension_id and not _is_of(extensions.get(extension_id), tenant_id):
            unknown[tenant_id, extension_id] = (
                Reason.EXTENSION_NOT_FOUND,
                f"extension_id: tenant {tenant_id} has no extension {extension_id}",
                {"extension_id": str(extension_id)},
            )
    if not unknown:
        return []
    return [
        Refusal(position, records.call_id(position), *unknown[_party(records, position)])
        for position in records.of_parties(unknown.keys())
    ]


def unknown_tenant(tenant_id: int) -> tuple[Reason, str, dict[str, str]]:
    """Reason, message and metadata of the refusal of a call whose tenant does not exist."""
    return (
        Reason.TENANT_NOT_FOUND,
        f"tenant_id: there is no tenant {tenant_id}",
        {"tenant_id": str(tenant_id)},
    )


def _is_of(extension: Extension | None, tenant_id: int) -> bool:
    return extension is not None and extension.tenant_id == tenant_id


def _overflow(records: Records, position: int, decks: Mapping[int, ratingcore.Deck]) -> Refusal:
    decimals = decks[records.key(position)[0]].cost_decimals
    return Refusal(
        position,
        records.call_id(position),
        Reason.COST_OVERFLOW,
        f"duration_seconds: the cost would exceed {max_cost_words(decimals)}",
    )


def _conflicts(
    connection: Connection,
    records: Records,
    created: Sequence[int],
    old: Sequence[int],
    existing: Mapping[Key, Recorded],
) -> list[Refusal]:
    """A refusal for each call of ``old`` whose content differs from the recorded content, which may
    be of this batch."""
    if not old:
        return []
    own = {records.key(position): position for position in created}
    changed = []
    for position in old:
        first = own.get(records.key(position))
        recorded = (
            existing[records.key(position)].content if first is None else records.content(first)
        )
        if records.content(position) != recorded:
            changed.append(position)
    # What this batch recorded has an id by now.
    ids = cdrs.find(connection, {key for key in map(records.key, changed) if key in own})
    return [
        _conflict(
            records,
            position,
            ids.get(records.key(position)) or existing[records.key(position)],
        )
        for position in changed
    ]


def _conflict(records: Records, position: int, recorded: Recorded) -> Refusal:
    sent = records.content(position)
    differing = [
        name.removesuffix("_ns")
        for name, mine, stored in zip(Content._fields, sent, recorded.content, strict=True)
        if mine != stored
    ]
    call_id = records.call_id(position)
    return Refusal(
        position,
        call_id,
        Reason.CDR_CONFLICT,
        f"call_id: {call_id!r} is recorded as CDR {recorded.cdr_id} with other content"
        f" (different: {', '.join(differing)}); nothing was changed; another call needs"
        " another call_id",
        {"cdr_id": str(recorded.cdr_id), "fields": ",".join(differing)},
    )
