"""Imports a whole deck: checks the rates as they arrive, then compares and writes them as one
change.

The import is atomic: if any rate is rejected, nothing changes, and the outcome has the errors. A
rate is identified by its prefix and effective_from. If a deck has the same pair twice, the second
is rejected.

The deck is collected in memory, in a compact form, and uses the database only when it is complete,
so a slow sender blocks no other. It is compared with the worker's own deck, which equals the
committed one under the lock on the tenant's deck. The worker then uses the resulting deck.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from heapq import merge, nsmallest
from itertools import islice
from operator import attrgetter

from ratingcore import DeckBuilder, IncomingDeck, RateInfo
from ratingcore.pricing.values import InEffect
from ratingcore.wire.rate_row_writer import RateRowWriter
from tollwire.service.accounts import audit
from tollwire.service.accounts.tenants import tenant_exists
from tollwire.service.cache.decks import Decks, TenantDeck, built, tenant_not_found
from tollwire.service.domain.errors import Exhausted, FailedPrecondition, Reason, invalid_field
from tollwire.service.domain.model import ImportMode, ImportOutcome, ImportPlan, Rate, RateError
from tollwire.service.domain.thread_context import Work, stop_if_over
from tollwire.service.rating.rate_checks import check_terms, normalized
from tollwire.service.storage import deck_import, decks
from tollwire.service.storage.engine import Connection, Database
from tollwire.service.storage.rates import note_change

MAX_ERRORS = 1000
MAX_DECK_RATES = 5_000_000
# The memory of all incoming decks in one worker. The largest possible deck uses about half of it.
MAX_INTAKE_BYTES = 1024**3
# For how many rates the work for a client that has left may go on.
_RATES_BETWEEN_CHECKS = 4096
_NS = 10**9
# The terms of a rate that have the same name and type in the core.
_SAME_IN_CORE = tuple(
    name
    for name in RateInfo._fields
    if name not in ("version_id", "rate_id", "intervals", "effective_from_ns", "effective_to_ns")
)


class IntakeMemory:
    """The memory that all incoming decks may use together. Thread-safe."""

    def __init__(self, size_bytes: int) -> None:
        self.free_bytes = size_bytes
        self._lock = threading.Lock()

    def take(self, more_bytes: int) -> None:
        """Reserve memory; a negative number releases it. Exhausted if there is not enough."""
        with self._lock:
            if more_bytes > self.free_bytes:
                raise Exhausted(
                    Reason.TOO_MANY_STREAMS,
                    "the imports in progress use all memory for imports; try again later",
                )
            self.free_bytes -= more_bytes


class Intake:
    """The incoming deck, with its errors so far. Used as a context manager."""

    def __init__(
        self, tenant_id: int, memory: IntakeMemory, effective_from_ns: int | None = None
    ) -> None:
        """``effective_from_ns``: the start of rates without an effective_from."""
        self.deck = IncomingDeck(tenant_id, _pair(effective_from_ns))
        self._tenant_id = tenant_id
        self._effective_from_ns = effective_from_ns
        self._memory = memory
        self._held_bytes = 0
        self._errors: list[RateError] = []  # the first MAX_ERRORS
        self._last_bad_index = -1
        self._bad = 0

    def __enter__(self) -> Intake:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.take(-self._held_bytes)

    def read(self, request: bytes) -> Iterator[tuple[int, bytes]]:
        """Read the rates of a well-formed ImportRatesRequest. Yields the index and the bytes of
        each rate that is not plainly valid; the caller must ``put`` or ``reject`` it. Ends with
        the client, some thousands of rates later at most."""
        at = 0
        while at < len(request):
            stop_if_over()
            left, at = self.deck.read(request, at)
            self._bound()
            yield from left

    def expect(self, rates: int) -> None:
        """Call it with the number of rates of a message before they are read. InvalidInput if the
        deck would have too many."""
        if self.deck.seen + rates > MAX_DECK_RATES:
            raise invalid_field("rates", f"must be at most {MAX_DECK_RATES:,} in a deck")

    @property
    def is_hopeless(self) -> bool:
        """Whether the deck has as many errors as a response shows."""
        return len(self._errors) == MAX_ERRORS

    def dated(self, rate: Rate) -> Rate:
        """The rate, with the start of the deck if it has no effective_from."""
        if rate.effective_from_ns is None:
            return replace(rate, effective_from_ns=self._effective_from_ns)
        return rate

    def put(self, index: int, rate: Rate) -> None:
        """Add one rate to the deck, or reject it with all its violations."""
        rate = self.dated(rate)
        found = check_terms(rate)
        for violation in found:
            self.reject(RateError(index, violation.field, violation.description))
        if rate.tenant_id not in (0, self._tenant_id):
            wrong = f"must be 0 or the import's, {self._tenant_id}; got {rate.tenant_id}"
            self.reject(RateError(index, "tenant_id", wrong))
        elif not found:
            self._put(index, normalized(rate))

    def reject(self, error: RateError) -> None:
        """Record an error. Consecutive errors of one rate count as one rejected rate."""
        if error.index != self._last_bad_index:
            self._last_bad_index = error.index
            self._bad += 1
        if len(self._errors) < MAX_ERRORS:
            self._errors.append(error)

    def result(self) -> tuple[int, tuple[RateError, ...]]:
        """The number of rejected rates, and the first errors. Call it after the whole deck was
        read, or once it is hopeless."""
        self.deck.sort()
        count = sum(1 for _ in self._repeated())
        repeated = (
            RateError(
                index,
                "prefix",
                f"rates[{index}] has the same prefix and effective_from as rates[{first_index}];"
                " remove one of them",
                first_index,
            )
            for index, first_index in nsmallest(MAX_ERRORS, self._repeated())
        )
        errors = merge(self._errors, repeated, key=attrgetter("index"))
        return self._bad + count, tuple(islice(errors, MAX_ERRORS))

    def _repeated(self) -> Iterator[tuple[int, int]]:
        """``repeated`` of the deck, of which there may be millions. Ends with the client."""
        for at, found in enumerate(self.deck.repeated()):
            if at % _RATES_BETWEEN_CHECKS == 0:
                stop_if_over()
            yield found

    def _put(self, index: int, rate: Rate) -> None:
        self.deck.put(
            index,
            intervals=[
                (part.start_seconds, part.cost_per_minute_e8, part.billing_increment)
                for part in rate.intervals
            ],
            effective_from=_pair(rate.effective_from_ns),
            effective_to=_pair(rate.effective_to_ns),
            **{name: getattr(rate, name) for name in _SAME_IN_CORE},
        )

    def _bound(self) -> None:
        size_bytes = self.deck.nbytes
        self._memory.take(size_bytes - self._held_bytes)
        self._held_bytes = size_bytes


@dataclass(frozen=True, slots=True)
class _Changes:
    """The changes that an import makes in a deck. ``gone``: version_id and prefix of rates that are
    updated or deleted. ``closed``: current rates, which end at ``closed_at_ns``.
    """

    created: int
    updated: int
    gone: list[tuple[int, str]]
    closed: list[RateInfo]
    closed_at_ns: int | None

    @property
    def deleted(self) -> int:
        return len(self.gone) - self.updated

    def retired(self) -> list[tuple[int, str]]:
        """version_id and prefix of all rates whose current version ends."""
        return self.gone + [(rate.version_id, rate.prefix) for rate in self.closed]


class DeckImports:
    """Imports of whole decks. Thread-safe."""

    def __init__(self, database: Database, decks: Decks, clock_ns: Callable[[], int]) -> None:
        self._database = database
        self._decks = decks
        self._clock_ns = clock_ns
        self._memory = IntakeMemory(MAX_INTAKE_BYTES)

    def run(self, plan: ImportPlan, fill: Callable[[Intake], None]) -> ImportOutcome:
        """See ``Rates.import_deck``."""
        tenant_id = plan.tenant_id
        with self._database.read() as connection:
            _require(connection, tenant_id)
        with Intake(tenant_id, self._memory, plan.effective_from_ns) as intake:
            fill(intake)
            rejected, errors = intake.result()
            if rejected:
                with self._database.read() as connection:
                    revision = decks.revision(connection, tenant_id) or 0
                return ImportOutcome(rejected=rejected, errors=errors, rate_revision=revision)
            accepted = len(intake.deck)
            changes, revision = self._apply(plan, intake.deck)
        return ImportOutcome(
            created=changes.created,
            updated=changes.updated,
            deleted=changes.deleted,
            unchanged=accepted - changes.created - changes.updated,
            rate_revision=revision,
            closed=len(changes.closed),
        )

    def _apply(self, plan: ImportPlan, deck: IncomingDeck) -> tuple[_Changes, int]:
        """The changes, and the tenant's rate revision after them; for a dry run, the current
        revision."""
        tenant_id, dry_run = plan.tenant_id, plan.dry_run
        unit = self._database.read if dry_run else self._decks.writing
        with self._decks.handing_over() as hand_over, unit(work=Work.LONG) as connection:
            if not dry_run:
                decks.lock(connection, tenant_id)
            _require(connection, tenant_id)
            self._decks.catch_up(connection)
            base = self._decks.in_memory(tenant_id)
            if base is None:
                raise tenant_not_found(tenant_id)
            changes = self._compare(plan, base, deck)
            if dry_run or not (len(deck) or changes.retired()):
                return changes, base.revision
            made = self._write(connection, base, deck, changes)
            hand_over(made)
            self._enter(connection, plan.mode, changes, made)
            decks.advance(connection, tenant_id, made.revision)
        return changes, made.revision

    def _compare(self, plan: ImportPlan, base: TenantDeck, deck: IncomingDeck) -> _Changes:
        """The changes. FailedPrecondition IMPORT_GAP if the deck begins too late; OverLimit
        TOO_MANY_RATES."""
        is_empty = not len(deck)
        start_ns = plan.effective_from_ns
        now_ns = self._clock_ns()
        # The replaced rates stay in effect until the deck begins.
        at_ns = now_ns if start_ns is None else max(now_ns, start_ns)
        updated, gone = deck.compare(
            base.deck,
            replace=plan.mode == ImportMode.REPLACE,
            closing=_pair(start_ns),
            at=divmod(at_ns, _NS),
        )
        if plan.mode == ImportMode.REPLACE and not is_empty and not plan.allow_gap:
            _refuse_gap(plan.tenant_id, deck.in_effect, at_ns)
        changes = _Changes(len(deck) - updated, updated, gone, deck.closed, start_ns)
        if len(deck) or deck.closed:
            # A deck that has passed a limit, which was higher before, can still be updated.
            grows = changes.created > 0
            self._decks.check_growth(
                plan.tenant_id,
                deck.most_rates_of_prefix if grows else 0,
                len(base.deck) + changes.created - changes.deleted if grows else 0,
                deck.most_growth_bytes,
            )
        return changes

    def _enter(
        self, connection: Connection, mode: ImportMode, changes: _Changes, made: TenantDeck
    ) -> None:
        """Write the totals to the audit log. The single rates have their own history."""
        done = {
            "mode": mode.name,
            "created": changes.created,
            "updated": changes.updated,
            "deleted": changes.deleted,
            **({"closed": len(changes.closed)} if changes.closed else {}),
            "rate_revision": made.revision,
        }
        tenant_id = made.tenant.id
        audit.enter(
            connection,
            action="ImportRates",
            resource=f"deck/{tenant_id}",
            now_ns=self._clock_ns(),
            tenant_id=tenant_id,
            after=done,
        )

    def _write(
        self, connection: Connection, base: TenantDeck, deck: IncomingDeck, changes: _Changes
    ) -> TenantDeck:
        tenant_id, revision = base.tenant.id, base.revision + 1
        count = len(deck) + len(changes.closed)
        first_version_id = deck_import.reserve_ids(self._database, connection, count)
        deck.number(first_version_id)
        builder = DeckBuilder(base.deck)
        retired = changes.retired()
        for at, (version_id, prefix) in enumerate(retired):
            if at % _RATES_BETWEEN_CHECKS == 0:
                stop_if_over()
            builder.remove(version_id, prefix)
        deck.put_into(builder)
        closed = _closed(changes, first_version_id + len(deck))
        builder.put_many(closed)
        # The core builds and hashes while the database writes.
        with ThreadPoolExecutor(1, "deck import") as pool:
            making = pool.submit(built, builder, base.tenant, revision)
            gone = [version_id for version_id, _ in retired]
            keep_age = changes.updated or changes.closed
            created_at_ns = deck_import.created_at_ns(connection, gone) if keep_age else {}
            deck_import.retire(connection, gone, revision)
            now_ns = self._clock_ns()
            hashing = pool.submit(
                deck_import.hashed, RateRowWriter(deck, revision, created_at_ns, now_ns)
            )
            if len(deck):
                rows = RateRowWriter(deck, revision, created_at_ns, now_ns)
                deck_import.add_packed(connection, rows)
            closing = list(deck_import.rows_of(tenant_id, revision, closed, created_at_ns, now_ns))
            if closing:
                deck_import.add(connection, closing)
            hashed = hashing.result()
            hashed.add_rows(closing)
            if count:
                last_version_id = first_version_id + count - 1
                note_change(connection, tenant_id, revision, first_version_id, last_version_id)
                deck_import.enter(connection, first_version_id, count, hashed.digest(), now_ns)
            deck_import.enter_retired(connection, tenant_id, gone, revision, now_ns)
            return making.result()


def _closed(changes: _Changes, first_version_id: int) -> list[RateInfo]:
    """The next versions of the rates that end."""
    return [
        rate._replace(version_id=version_id, effective_to_ns=changes.closed_at_ns)
        for version_id, rate in enumerate(changes.closed, first_version_id)
    ]


def _pair(time_ns: int | None) -> tuple[int, int] | None:
    """Seconds and nanoseconds, the form that the core uses."""
    return None if time_ns is None else divmod(time_ns, _NS)


def _refuse_gap(tenant_id: int, effect: InEffect, at_ns: int) -> None:
    """FailedPrecondition IMPORT_GAP if the tenant would have no rate in effect although it has one
    now, or if a prefix of the deck would have none until a later rate begins. Prefixes that are not
    in the deck are deleted intentionally."""
    if not (effect.gaps or (effect.before and not effect.after)):
        return
    lost = effect.before if not effect.after else effect.gaps
    begins, advice = "", "allow_gap (--allow-gap) imports the deck as it is"
    message = (
        f"rates: {lost} of the {effect.before} prefixes of tenant {tenant_id} that have a rate in"
        f" effect at {audit.time_text(at_ns - at_ns % _NS)} would have none with this deck"
    )
    if effect.begins_ns is None:
        message += ", whose rates have all ended"
    else:
        begins = audit.time_text(effect.begins_ns)
        message += f" until its rates begin, the first at {begins}"
        advice = (
            f"effective_from (--effective-from {begins}) keeps the current rates in effect until"
            f" then; {advice}"
        )
    raise FailedPrecondition(
        Reason.IMPORT_GAP,
        f"{message}; nothing was changed; {advice}",
        metadata={"prefixes": str(lost), "begins_at": begins},
    )


def _require(connection: Connection, tenant_id: int) -> None:
    if not tenant_exists(connection, tenant_id):
        raise tenant_not_found(tenant_id)
