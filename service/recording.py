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
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from operator import attrgetter, itemgetter

import ratingcore
from service.decks import Decks, TenantDeck
from service.errors import NotFound, Reason
from service.model import Call, Direction, Disposition
from service.storage import cdrs
from service.storage.cdrs import Content, Key, Outcomes, Recorded
from service.storage.engine import Connection

_key = itemgetter(0, 1)
_tenant = itemgetter(0)
_E4 = 10_000


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


def content(call: Call) -> Content:
    """What the call is compared by, with the call_id that it is recorded under."""
    return (
        call.tenant_id,
        call.call_id or derived_call_id(call),
        call.extension_id,
        call.caller_number,
        call.destination_number,
        int(call.direction),
        int(call.disposition),
        call.duration_seconds,
        call.started_at_ns,
        call.ended_at_ns,
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

    def record(self, connection: Connection, calls: Sequence[Call], upload_id: int) -> Recording:
        """Rate and write the calls, each valid in itself, that are not recorded yet.

        ``connection`` is in a writing transaction; nothing is durable before it commits.
        """
        contents = [content(call) for call in calls]
        refusals: list[Refusal] = []
        tenant_decks, owners = self._hold_parties(connection, contents)
        known = _with_parties(contents, tenant_decks.keys(), owners, refusals)
        # In key order, which is the order to write in; what was sent twice stands side by side.
        order = sorted(known, key=lambda position: contents[position][:2])
        chosen = [contents[position] for position in order]
        outcomes = rate(chosen, tenant_decks)
        batch = _Batch(order, chosen, outcomes)

        overflowed = batch.overflowed()
        in_the_way = cdrs.find(connection, [_key(chosen[index]) for index in overflowed])
        new, old = batch.split(overflowed, in_the_way, refusals)
        rows = cdrs.rows(chosen, outcomes, upload_id, self._clock_ns())
        if len(new) < len(rows):
            rows = [rows[index] for index in new]
        in_the_way |= cdrs.insert_new(connection, rows)

        created = new
        if in_the_way:
            created = [index for index in new if _key(chosen[index]) not in in_the_way]
            old += [index for index in new if _key(chosen[index]) in in_the_way]
        conflicts = _conflicts(connection, batch, created, old, in_the_way)
        refusals += conflicts
        return Recording(
            created=len(created),
            duplicates=len(old) - len(conflicts),
            unrated=sum(outcomes.status[index] == ratingcore.UNRATED for index in created),
            refusals=tuple(sorted(refusals, key=attrgetter("position"))),
        )

    def _hold_parties(
        self, connection: Connection, contents: Sequence[Content]
    ) -> tuple[dict[int, TenantDeck], dict[int, int]]:
        """The decks of the tenants that exist and the owners of the extensions that do.

        They are locked first and the decks caught up after, so that the calls are priced by what is
        committed when they are written.
        """
        tenant_ids = {call[0] for call in contents}
        extension_ids = {call[2] for call in contents} - {0}
        present, owners = cdrs.hold_parties(connection, tenant_ids, extension_ids)
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


def rate(contents: Sequence[Content], tenant_decks: Mapping[int, TenantDeck]) -> Outcomes:
    """What each call costs now. Calls of one tenant stand together; each tenant has a deck.

    A call whose cost would overflow has the status ``ratingcore.REFUSED``.
    """
    columns: tuple[list[int | None], ...] = tuple([] for _ in Outcomes._fields)
    for tenant_id, run in groupby(contents, key=_tenant):
        for column, part in zip(columns, _rate(list(run), tenant_decks[tenant_id]), strict=True):
            column.extend(part)
    return Outcomes(*columns)  # type: ignore[arg-type]  # status and rate_revision have no None


def _rate(contents: Sequence[Content], tenant_deck: TenantDeck) -> Outcomes:
    deck = tenant_deck.deck
    numbers = [call[4].encode() for call in contents]
    rated = deck.rate_columns(
        b"".join(numbers),
        array("q", accumulate(map(len, numbers), initial=0)),
        array("q", [call[7] for call in contents]),
        array("q", [call[8] for call in contents]),
        bytes(
            [call[5] == Direction.OUTBOUND and call[6] == Disposition.ANSWERED for call in contents]
        ),
    )
    status, indexes = list(rated.status), list(rated.rate_index)
    versions = {index: deck.rate_at(index).version_id for index in set(indexes) if index >= 0}
    costs = [
        None if state == ratingcore.UNRATED else cost
        for state, cost in zip(status, rated.cost_e4, strict=True)
    ]
    return Outcomes(
        status=status,
        unrated_reason=[reason or None for reason in rated.unrated_reason],
        bill_seconds=[
            None if state == ratingcore.UNRATED else seconds
            for state, seconds in zip(status, rated.bill_seconds, strict=True)
        ],
        cost_units=[None if cost is None else cost // _E4 for cost in costs],
        cost_fraction_e4=[None if cost is None else cost % _E4 for cost in costs],
        # A call that a rate blocks has no cost, and no rate that priced it.
        rate_version_id=[
            versions[index] if state == ratingcore.RATED else None
            for state, index in zip(status, indexes, strict=True)
        ],
        rate_revision=[tenant_deck.revision] * len(contents),
    )


def _with_parties(
    contents: Sequence[Content],
    tenants: Collection[int],
    owners: Mapping[int, int],
    refusals: list[Refusal],
) -> Sequence[int]:
    """The positions of the calls whose tenant and extension exist; the others are refused."""
    parties = {(call[0], call[2]) for call in contents}
    unknown: dict[tuple[int, int], tuple[Reason, str]] = {}
    for tenant_id, extension_id in parties:
        if tenant_id not in tenants:
            message = f"tenant_id: there is no tenant {tenant_id}"
            unknown[tenant_id, extension_id] = (Reason.TENANT_NOT_FOUND, message)
        elif extension_id and owners.get(extension_id) != tenant_id:
            message = f"extension_id: tenant {tenant_id} has no extension {extension_id}"
            unknown[tenant_id, extension_id] = (Reason.EXTENSION_NOT_FOUND, message)
    if not unknown:
        return range(len(contents))
    known = []
    for position, call in enumerate(contents):
        if (failure := unknown.get((call[0], call[2]))) is None:
            known.append(position)
        else:
            refusals.append(Refusal(position, call[1], *failure))
    return known


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rated calls in key order: the position of each in what was sent, its content, its outcome."""

    order: Sequence[int]
    contents: Sequence[Content]
    outcomes: Outcomes

    def overflowed(self) -> list[int]:
        status = self.outcomes.status
        if ratingcore.REFUSED not in status:
            return []
        return [index for index, state in enumerate(status) if state == ratingcore.REFUSED]

    def split(
        self,
        overflowed: Sequence[int],
        recorded: Collection[Key],
        refusals: list[Refusal],
    ) -> tuple[list[int], list[int]]:
        """Which to write, and which are only to be compared with what is recorded then: those that
        come a second time. A cost that overflows is refused, unless the call was recorded at a time
        when it did not."""
        keys = list(map(_key, self.contents))
        if not overflowed and len(set(keys)) == len(keys):
            return list(range(len(keys))), []
        too_dear = set(overflowed)
        new: list[int] = []
        old: list[int] = []
        for index, key in enumerate(keys):
            if index in too_dear and key not in recorded:
                refusals.append(self._overflow(index))
            elif key in recorded or (new and keys[new[-1]] == key):
                old.append(index)
            else:
                new.append(index)
        return new, old

    def _overflow(self, index: int) -> Refusal:
        return Refusal(
            self.order[index],
            self.contents[index][1],
            Reason.COST_OVERFLOW,
            "duration_seconds: the cost would pass 15 digits before the point",
        )

    def conflict(self, index: int, recorded: Recorded) -> Refusal:
        call = self.contents[index]
        differing = [
            name.removesuffix("_ns")
            for name, sent, stored in zip(cdrs.CONTENT, call, recorded.content, strict=True)
            if sent != stored
        ]
        return Refusal(
            self.order[index],
            call[1],
            Reason.CDR_CONFLICT,
            f"call_id: {call[1]!r} is recorded as CDR {recorded.cdr_id} with other content"
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
    own = {_key(batch.contents[index]): batch.contents[index] for index in created}
    changed = [
        index
        for index in old
        if batch.contents[index]
        != (own.get(key := _key(batch.contents[index])) or in_the_way[key].content)
    ]
    # What this batch recorded has an id by now.
    ids = cdrs.find(
        connection, {key for index in changed if (key := _key(batch.contents[index])) in own}
    )
    return [
        batch.conflict(index, ids.get(key) or in_the_way[key])
        for index in changed
        for key in [_key(batch.contents[index])]
    ]
