"""Recording calls: the one way into the record, for a single call as for a chunk of thousands.

What makes two calls one (rating rule 10), what is refused and why, and what a call costs at the
moment when it is written are decided here and nowhere else, so CreateCdr and UploadCdrs cannot
differ. The caller owns the transaction; this module knows neither uploads' offsets nor the wire.
"""

from __future__ import annotations

import hashlib
import struct
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import attrgetter
from typing import Any

import ratingcore
from service.decks import Decks, TenantDeck
from service.errors import NotFound, Reason
from service.model import Call, Direction, Disposition
from service.storage import cdrs
from service.storage.cdrs import Contents, Key, Outcomes, Recorded
from service.storage.engine import Connection

_E4 = 10_000
_OUTBOUND = int(Direction.OUTBOUND)
_ANSWERED = int(Disposition.ANSWERED)


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
    """What became of a batch. created + duplicates + refusals are its calls; ``unrated`` counts
    those of created that have no cost; the refusals come by rising position."""

    created: int
    duplicates: int
    unrated: int
    refusals: tuple[Refusal, ...]

    @property
    def conflicts(self) -> int:
        return sum(refusal.reason == Reason.CDR_CONFLICT for refusal in self.refusals)


def contents_of(calls: Sequence[Call]) -> Contents:
    """What the calls are compared by, with the call_ids that they are recorded under."""
    return Contents(
        tenant_id=[call.tenant_id for call in calls],
        call_id=[call.call_id or derived_call_id(call) for call in calls],
        extension_id=[call.extension_id for call in calls],
        caller_number=[call.caller_number for call in calls],
        destination_number=[call.destination_number for call in calls],
        direction=[int(call.direction) for call in calls],
        disposition=[int(call.disposition) for call in calls],
        duration_seconds=[call.duration_seconds for call in calls],
        started_at_ns=[call.started_at_ns for call in calls],
        ended_at_ns=[call.ended_at_ns for call in calls],
    )


def derived_call_id(call: Call) -> str:
    """The call_id of a call that was sent without one: the same for the same content, for ever.

    SHA-256, cut to 128 bits, over a fixed layout in which no two calls look alike: little-endian
    integers of fixed width, and texts as UTF-8 behind their length.
    """
    caller = call.caller_number.encode()
    destination = call.destination_number.encode()
    fixed = struct.pack(
        "<qqBBq?qqII",
        call.tenant_id,
        call.extension_id,
        call.direction,
        call.disposition,
        call.duration_seconds,
        call.ended_at_ns is not None,
        call.ended_at_ns or 0,
        call.started_at_ns,
        len(caller),
        len(destination),
    )
    digest = hashlib.sha256(b"tollwire.call.1" + fixed + caller + destination)
    return "auto-" + digest.hexdigest()[:32]


class Recorder:
    """Records calls within transactions of others. Thread-safe."""

    def __init__(self, decks: Decks, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._decks = decks
        self._clock_ns = clock_ns

    def record(self, connection: Connection, calls: Contents, upload_id: int) -> Recording:
        """Rate and write the calls, each valid in itself, that are not recorded yet.

        ``connection`` is in a writing transaction; nothing is durable before it commits.
        """
        refusals: list[Refusal] = []
        tenant_decks, owners = self._hold_parties(connection, calls)
        order = _in_key_order(calls, _with_parties(calls, tenant_decks.keys(), owners, refusals))
        chosen = calls.take(order)
        outcomes = rate(chosen, tenant_decks)
        batch = _Batch(order, chosen, outcomes)

        overflowed = batch.overflowed()
        in_the_way = cdrs.find(connection, map(chosen.key, overflowed))
        new, old = batch.split(overflowed, in_the_way, refusals)
        rows = cdrs.NewRows(chosen, outcomes, upload_id, self._clock_ns())
        if len(new) < len(rows):
            rows = rows.take(new)
        in_the_way |= cdrs.insert_new(connection, rows)

        created = new
        if in_the_way:
            created = [index for index in new if chosen.key(index) not in in_the_way]
            old += [index for index in new if chosen.key(index) in in_the_way]
        conflicts = _conflicts(connection, batch, created, old, in_the_way)
        refusals += conflicts
        return Recording(
            created=len(created),
            duplicates=len(old) - len(conflicts),
            unrated=[outcomes.status[index] for index in created].count(ratingcore.UNRATED),
            refusals=tuple(sorted(refusals, key=attrgetter("position"))),
        )

    def _hold_parties(
        self, connection: Connection, calls: Contents
    ) -> tuple[dict[int, TenantDeck], dict[int, int]]:
        """The decks of the tenants that exist and the owners of the extensions that do.

        They are locked first and the decks caught up after, so that the calls are priced by what is
        committed when they are written.
        """
        present, owners = cdrs.hold_parties(
            connection, set(calls.tenant_id), set(calls.extension_id) - {0}
        )
        self._decks.catch_up(connection)
        return known_decks(self._decks, present), owners


def known_decks(decks: Decks, tenant_ids: Collection[int]) -> dict[int, TenantDeck]:
    """The decks of those tenants that have one."""
    known: dict[int, TenantDeck] = {}
    for tenant_id in tenant_ids:
        try:
            known[tenant_id] = decks.deck(tenant_id)
        except NotFound:
            continue
    return known


def rate(calls: Contents, tenant_decks: Mapping[int, TenantDeck]) -> Outcomes:
    """What each call costs now. The calls come by rising tenant_id; each tenant has a deck.

    A call whose cost would overflow has the status ``ratingcore.REFUSED``.
    """
    columns: list[list[Any]] = [[] for _ in Outcomes._fields]
    begin = 0
    while begin < calls.size:
        tenant_id = calls.tenant_id[begin]
        end = bisect_right(calls.tenant_id, tenant_id, begin)
        rated = _rate(calls.part(begin, end), tenant_decks[tenant_id])
        for column, part in zip(columns, rated, strict=True):
            column += part
        begin = end
    return Outcomes(*columns)


def _rate(calls: Contents, tenant_deck: TenantDeck) -> Outcomes:
    deck = tenant_deck.deck
    numbers = [number.encode() for number in calls.destination_number]
    rated = deck.rate_columns(
        b"".join(numbers),
        array("q", accumulate(map(len, numbers), initial=0)),
        array("q", calls.duration_seconds),
        array("q", calls.started_at_ns),
        bytes(
            [
                direction == _OUTBOUND and disposition == _ANSWERED
                for direction, disposition in zip(calls.direction, calls.disposition, strict=True)
            ]
        ),
    )
    status = list(rated.status)
    indexes = list(rated.rate_index)
    versions = {index: deck.rate_at(index).version_id for index in set(indexes) if index >= 0}
    has_cost = [state != ratingcore.UNRATED for state in status]
    costs = [cost if has else None for cost, has in zip(rated.cost_e4, has_cost, strict=True)]
    return Outcomes(
        status=status,
        unrated_reason=[reason or None for reason in rated.unrated_reason],
        bill_seconds=[
            seconds if has else None
            for seconds, has in zip(rated.bill_seconds, has_cost, strict=True)
        ],
        cost_units=[None if cost is None else cost // _E4 for cost in costs],
        cost_fraction_e4=[None if cost is None else cost % _E4 for cost in costs],
        # A call that a rate blocks has no cost, and no rate that priced it.
        rate_version_id=[
            versions[index] if state == ratingcore.RATED else None
            for index, state in zip(indexes, status, strict=True)
        ],
        rate_revision=[tenant_deck.revision] * calls.size,
    )


def _with_parties(
    calls: Contents,
    tenants: Collection[int],
    owners: Mapping[int, int],
    refusals: list[Refusal],
) -> Sequence[int]:
    """The positions of the calls whose tenant and extension exist; the others are refused."""
    unknown: dict[tuple[int, int], tuple[Reason, str, dict[str, str]]] = {}
    for tenant_id, extension_id in set(zip(calls.tenant_id, calls.extension_id, strict=True)):
        if tenant_id not in tenants:
            unknown[tenant_id, extension_id] = (
                Reason.TENANT_NOT_FOUND,
                f"tenant_id: there is no tenant {tenant_id}",
                {"tenant_id": str(tenant_id)},
            )
        elif extension_id and owners.get(extension_id) != tenant_id:
            unknown[tenant_id, extension_id] = (
                Reason.EXTENSION_NOT_FOUND,
                f"extension_id: tenant {tenant_id} has no extension {extension_id}",
                {"extension_id": str(extension_id)},
            )
    if not unknown:
        return range(calls.size)
    known = []
    for position, parties in enumerate(zip(calls.tenant_id, calls.extension_id, strict=True)):
        if parties in unknown:
            refusals.append(Refusal(position, calls.call_id[position], *unknown[parties]))
        else:
            known.append(position)
    return known


def _in_key_order(calls: Contents, positions: Sequence[int]) -> list[int]:
    """The order to write in. What is there twice stands side by side, as it was sent."""
    order = sorted(positions, key=calls.call_id.__getitem__)
    order.sort(key=calls.tenant_id.__getitem__)
    return order


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rated calls in key order: the position of each in what was sent, the call, its outcome."""

    order: Sequence[int]
    calls: Contents
    outcomes: Outcomes

    def overflowed(self) -> list[int]:
        status = self.outcomes.status
        if ratingcore.REFUSED not in status:
            return []
        return [index for index, state in enumerate(status) if state == ratingcore.REFUSED]

    def split(
        self, overflowed: Collection[int], recorded: Collection[Key], refusals: list[Refusal]
    ) -> tuple[list[int], list[int]]:
        """Which to write, and which are only to be compared with what is recorded then: those that
        come a second time. A cost that overflows is refused, unless the call was recorded at a time
        when it did not."""
        size = self.calls.size
        if not overflowed and len(set(self.calls.call_id)) == size:
            return list(range(size)), []
        too_dear = set(overflowed)
        new: list[int] = []
        old: list[int] = []
        for index in range(size):
            key = self.calls.key(index)
            if index in too_dear and key not in recorded:
                refusals.append(self._overflow(index))
            elif key in recorded or (new and self.calls.key(new[-1]) == key):
                old.append(index)
            else:
                new.append(index)
        return new, old

    def _overflow(self, index: int) -> Refusal:
        return Refusal(
            self.order[index],
            self.calls.call_id[index],
            Reason.COST_OVERFLOW,
            "duration_seconds: the cost would pass 15 digits before the point",
        )

    def conflict(self, index: int, recorded: Recorded) -> Refusal:
        sent = self.calls.content(index)
        differing = [
            name.removesuffix("_ns")
            for name, mine, stored in zip(Contents._fields, sent, recorded.content, strict=True)
            if mine != stored
        ]
        call_id = self.calls.call_id[index]
        return Refusal(
            self.order[index],
            call_id,
            Reason.CDR_CONFLICT,
            f"call_id: {call_id!r} is recorded as CDR {recorded.cdr_id} with other content"
            f" (different: {', '.join(differing)}); nothing was changed; another call needs"
            " another call_id",
            {"cdr_id": str(recorded.cdr_id), "fields": ",".join(differing)},
        )


def _conflicts(
    connection: Connection,
    batch: _Batch,
    created: Sequence[int],
    old: Sequence[int],
    in_the_way: dict[Key, Recorded],
) -> list[Refusal]:
    """Those of ``old`` whose content is not the recorded one, be it recorded long ago or by this
    batch itself."""
    if not old:
        return []
    calls = batch.calls
    own = {calls.key(index): index for index in created}
    changed = []
    for index in old:
        first = own.get(calls.key(index))
        recorded = in_the_way[calls.key(index)].content if first is None else calls.content(first)
        if calls.content(index) != recorded:
            changed.append(index)
    # What this batch recorded has an id by now.
    ids = cdrs.find(connection, {key for key in map(calls.key, changed) if key in own})
    return [
        batch.conflict(index, ids.get(calls.key(index)) or in_the_way[calls.key(index)])
        for index in changed
    ]
