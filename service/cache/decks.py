"""The rates of all tenants in memory, kept equal to the committed rates.

Every worker has one ``Decks``. Readers take a tenant's deck by reference and never wait: a deck is
immutable, and a change builds the next one beside it and swaps the reference. How a change is found
and why none can be missed: tollwire.service.storage.decks.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TypeVar

import ratingcore
from ratingcore.base.memory import trim_heap
from ratingcore.wire.rate_rows import RateRows
from tollwire.service.cache.deck_images import ALL_DECKS, Answer, DeckImages
from tollwire.service.cache.deck_sharing import MIN_SHARED_BYTES, DeckSharing
from tollwire.service.cache.worker_progress import Progress
from tollwire.service.domain import scopes
from tollwire.service.domain.errors import (
    FailedPrecondition,
    NotFound,
    OverLimit,
    Reason,
    Unavailable,
)
from tollwire.service.domain.model import MAX_PREFIX_RATES, Tenant
from tollwire.service.domain.thread_context import Work, current_request, regardless
from tollwire.service.settings.config import DEFAULT_MAX_DECK_BYTES, DEFAULT_MAX_TENANT_RATES
from tollwire.service.storage import decks
from tollwire.service.storage.change_follower import ChangeFollower
from tollwire.service.storage.decks import DeckState
from tollwire.service.storage.engine import Connection, Database, opened
from tollwire.service.storage.failures import unavailable
from tollwire.service.storage.parties import Parties
from tollwire.service.storage.refusals import DatabaseRefused

Opened = TypeVar("Opened")

_LOG = logging.getLogger("tollwire.decks")

# How long a change waits at most for the other workers of the server to rate with it.
WAIT_SECONDS = 2.0
IMPORT_WAIT_SECONDS = 30.0

# How long a worker waits for the decks that another worker builds, before it reads the rates.
LOAD_WAIT_SECONDS = 60.0
BUILD_WAIT_SECONDS = 5.0
# From this number of rates on it is faster to map a deck than to read its changes.
LARGE_CHANGE = 10_000
# With more outdated decks than this it is faster to read all decks.
MAX_OUTDATED = 100

_TRIES_OUTSIDE = 3
# From when a commit shows to others until its own thread has heard of it.
_SETTLE_SECONDS = 1.0
# Longer than the largest deck takes.
_BUILDING_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class TenantDeck:
    """A tenant's rules and rates at one revision."""

    tenant: Tenant
    deck: ratingcore.Deck
    revision: int


@dataclass(frozen=True, slots=True)
class DeckLimits:
    """``tenant_rates``: the rates of one tenant; ``deck_bytes``: the memory of all decks."""

    tenant_rates: int = DEFAULT_MAX_TENANT_RATES
    deck_bytes: int = DEFAULT_MAX_DECK_BYTES


class PendingDeck:
    """The next deck, built by the thread that changes it, for all threads that catch up with the
    change.

    It is valid only if the change is committed, which other threads may see before that thread.
    """

    def __init__(self) -> None:
        self._settled = threading.Event()
        self._is_committed = False

    def settle(self, *, is_committed: bool) -> None:
        self._is_committed = is_committed
        self._settled.set()

    def holds(self) -> bool:
        """Whether the change is committed. Waits until its thread has the result; False if it takes
        too long."""
        return self._settled.wait(_SETTLE_SECONDS) and self._is_committed


class Decks:
    """The decks of all tenants. Thread-safe. A caller finds those of the tenants that it may see.

    ``load`` before the first use; ``follow`` to keep up with other workers; ``close`` at the end.
    """

    def __init__(
        self,
        database: Database,
        progress: Progress | None = None,
        images: DeckImages | None = None,
        limits: DeckLimits | None = None,
    ) -> None:
        """``progress`` and ``images``: of the workers of this server; None where there is one."""
        self._limits = limits or DeckLimits()
        self._database = database
        self._decks: dict[int, TenantDeck] = {}
        # By tenant and revision.
        self._pending: dict[tuple[int, int], tuple[PendingDeck, TenantDeck]] = {}
        self._known_seq = 0
        self._refresh_began = -math.inf
        self._failure: tuple[float, Unavailable] | None = None
        # Held while decks are built. A thread that waits for it has its connection already, and the
        # thread that holds it needs no other one, so a full pool cannot block both.
        self._building = threading.Lock()
        self._follower = ChangeFollower(
            database,
            decks.CLOCK,
            what="changes of rates",
            log=_LOG,
            known_seq=lambda: self._known_seq,
            refresh=self.refresh,
        )
        self.share(progress, images)

    def share(self, progress: Progress | None, images: DeckImages | None) -> None:
        """What the workers of this server share, before ``load``; None if there is one."""
        self._progress = progress
        self._images = images
        self._sharing: DeckSharing | None = None
        if images is not None:
            self._sharing = DeckSharing(
                images, self._present, self._adopt, known_seq=lambda: self._known_seq
            )

    def load(self) -> None:
        """Take all decks that another worker of this server has published, and read what was
        committed since; or read everything that is committed, in one go, and publish it. One deck
        is built at a time, so that no more memory is held than the decks take and one of them in
        the making."""
        published: dict[int, ratingcore.Deck] | Answer = Answer.ALONE
        if self._images is not None:
            published = self._images.take(ALL_DECKS, 0, LOAD_WAIT_SECONDS)
        try:
            with self._database.snapshot(work=Work.LONG) as connection, self._building:
                states = decks.changed_since(connection, 0)
                is_read = isinstance(published, Answer) or not self._load_published(
                    connection, states, published
                )
                if is_read:
                    self._load_all(connection, states)
                self._known_seq = states[-1].change_seq if states else 0
        except BaseException:
            if self._images is not None and published is Answer.BUILD:
                self._images.give_up(ALL_DECKS)
            raise
        if self._images is not None and is_read:
            made = [(one.tenant.id, one.deck) for one in self._decks.values()]
            self._adopt(self._images.publish(ALL_DECKS, self._known_seq, self._known_seq, made))
            del made
        if is_read:
            trim_heap()
        if self._progress is not None:
            # From now on the others wait for this worker; what they changed before is read here.
            self._progress.report(self._known_seq)
            self.refresh()

    def _load_published(
        self,
        connection: Connection,
        states: Sequence[DeckState],
        published: Mapping[int, ratingcore.Deck],
    ) -> bool:
        """Use published decks, none of which is newer than its state, and read the changes since.
        False, without an effect, if that would take longer than to read everything."""
        present = [state for state in states if state.tenant is not None]
        outdated = 0
        for state in present:
            deck = published.get(state.tenant_id)
            outdated += deck is None or deck.revision != state.revision
        if outdated > MAX_OUTDATED:
            return False
        for state in present:
            assert state.tenant is not None
            deck = published.get(state.tenant_id)
            if deck is not None and deck.revision <= state.revision:
                self._decks[state.tenant_id] = TenantDeck(state.tenant, deck, deck.revision)
            if deck is None or deck.revision != state.revision:
                self._apply(connection, state)
        return True

    def _load_all(self, connection: Connection, states: Sequence[DeckState]) -> None:
        present = {state.tenant_id: state for state in states if state.tenant}
        taken_bytes = 0
        for tenant_id, builder in decks.present_rates(connection, RateRows()):
            self._take(present.pop(tenant_id), builder)
            taken_bytes += self._decks[tenant_id].deck.nbytes
            if taken_bytes > self._limits.deck_bytes:
                raise DatabaseRefused(
                    "--max-deck-bytes: the rates of all tenants take more than"
                    f" {self._limits.deck_bytes:,} bytes of memory; raise the limit"
                )
        for state in present.values():
            self._take(state, ratingcore.DeckBuilder())

    def refresh(self) -> None:
        """Catch up with everything that is committed."""
        began = time.monotonic()
        with self._database.read(work=Work.LOOK) as connection:
            self.catch_up(connection)
        self._refresh_began = max(self._refresh_began, began)

    def refresh_after_commit(self, wait_seconds: float = WAIT_SECONDS) -> None:
        """As ``refresh``, after the caller has committed a change. The change is written even if it
        cannot be read back now; the follower reads it later.

        Then wait until all workers of this server rate with the change: at most ``wait_seconds``,
        and at most half of the time for which the client still waits.
        """
        try:
            with regardless():
                self.refresh()
        except Unavailable:
            _LOG.warning("a change is committed, but cannot be read back yet")
            return
        if self._progress is None:
            return
        request = current_request()
        remaining = request.remaining_seconds()
        if remaining is not None:
            wait_seconds = min(wait_seconds, remaining / 2)
        if not self._progress.wait(self._known_seq, wait_seconds, request.is_wanted):
            _LOG.warning("a change is committed, but a worker does not rate with it yet")

    def catch_up(self, connection: Connection, change_seq: int | None = None) -> None:
        """Catch up with the changes that ``connection`` sees. ``change_seq`` is the number of the
        last one if the caller has read it. Do not call it in a transaction that has changed rates:
        uncommitted rates must not price calls."""
        if change_seq is None:
            change_seq = decks.change_seq(connection)
        if change_seq <= self._known_seq:
            return
        with self._turn_to_build():
            for state in decks.changed_since(connection, self._known_seq):
                self._apply(connection, state)
                self._known_seq = state.change_seq
            if self._progress is not None:
                self._progress.report(self._known_seq)

    @contextmanager
    def _turn_to_build(self) -> Iterator[None]:
        """Unavailable if another thread builds for too long, as it may if the database does not
        answer. All waiting threads then fail at the same time."""
        if not self._building.acquire(timeout=_BUILDING_SECONDS):
            raise unavailable("the changes of rates cannot be read")
        try:
            yield
        finally:
            self._building.release()

    def in_memory(self, tenant_id: int) -> TenantDeck | None:
        """The tenant's deck, without a look into the database."""
        return self._decks.get(tenant_id) if scopes.covers(tenant_id) else None

    @contextmanager
    def writing(self, work: Work = Work.ORDINARY) -> Iterator[Connection]:
        """A writing transaction in which calls are rated, with decks that are up to date when it
        begins.

        Changes that were committed while it waited for its start are read outside of it as well:
        its locks must not last while the deck of a big import is built. ``catch_up`` within it then
        has little left to do.
        """
        with self._writing(work, decks.change_seq, lambda change_seq: change_seq) as (
            connection,
            _,
        ):
            yield connection

    @contextmanager
    def recording(
        self, hold: Callable[[Connection], Parties]
    ) -> Iterator[tuple[Connection, Parties]]:
        """The same for a transaction that begins with ``hold_parties``, in one round trip. Returns
        what ``hold`` has returned; the decks have at least the changes that were committed when the
        parties were locked."""
        with self._writing(Work.ORDINARY, hold, attrgetter("change_seq")) as (connection, parties):
            self.catch_up(connection, parties.change_seq)
            yield connection, parties

    @contextmanager
    def _writing(
        self,
        work: Work,
        opening: Callable[[Connection], Opened],
        change_seq: Callable[[Opened], int],
    ) -> Iterator[tuple[Connection, Opened]]:
        for is_last in (False,) * _TRIES_OUTSIDE + (True,):
            with self._database.write(work=work, opening=opening) as connection:
                found: Opened = opened(connection)
                # The last time, the rates change without a pause. Then there is little to read.
                if is_last or change_seq(found) <= self._known_seq:
                    yield connection, found
                    return
            self.refresh()

    @contextmanager
    def handing_over(self) -> Iterator[Callable[[TenantDeck], None]]:
        """Around a transaction that changes a deck and builds the next one itself. The caller hands
        the new deck over before the commit, which must be within the block. After the block the
        deck is in use, and no thread reads the change from the database."""
        pending = PendingDeck()
        keys: list[tuple[int, int]] = []
        shared: list[TenantDeck] = []

        def hand_over(made: TenantDeck) -> None:
            keys.append((made.tenant.id, made.revision))
            self._pending[keys[-1]] = (pending, made)
            if self._images is not None and made.deck.nbytes >= MIN_SHARED_BYTES:
                # The other workers wait for the image, and do not read the rates.
                self._images.take(made.tenant.id, made.revision)
                shared.append(made)

        try:
            yield hand_over
        except BaseException:
            pending.settle(is_committed=False)
            for made in shared:
                assert self._images is not None
                self._images.give_up(made.tenant.id)
            raise
        else:
            pending.settle(is_committed=True)
            for made in shared:
                self._publish(made)
            self.refresh_after_commit(IMPORT_WAIT_SECONDS)
        finally:
            for key in keys:
                self._pending.pop(key, None)

    def _publish(self, made: TenantDeck) -> None:
        """Publish a committed deck, and use its image if it is used already."""
        assert self._images is not None
        tenant_id = made.tenant.id
        mapped = self._images.publish(
            tenant_id, made.revision, self._known_seq, [(tenant_id, made.deck)]
        )
        self._adopt(mapped)
        key = (tenant_id, made.revision)
        if key in self._pending and tenant_id in mapped:
            pending, _ = self._pending[key]
            self._pending[key] = (pending, replace(made, deck=mapped[tenant_id]))

    def _present(self, tenant_id: int) -> ratingcore.Deck | None:
        found = self._decks.get(tenant_id)
        return None if found is None else found.deck

    def deck(self, tenant_id: int, asked_at: float | None = None) -> TenantDeck:
        """The tenant's present deck. NotFound TENANT_NOT_FOUND, after a look into the database.

        ``asked_at``, by time.monotonic(): a look since then will do, and so will one that failed.
        So a batch that names many unknown tenants asks the database once. Unavailable where the
        database is away.
        """
        found = self.in_memory(tenant_id)
        if found is None and (asked_at is None or self._refresh_began < asked_at):
            self._look(asked_at)
            found = self.in_memory(tenant_id)
        if found is None:
            raise tenant_not_found(tenant_id)
        return found

    def _look(self, asked_at: float | None) -> None:
        """Refresh, unless that has failed since ``asked_at``: then fail likewise, at once."""
        failed = self._failure
        if failed is not None and asked_at is not None and failed[0] >= asked_at:
            raise Unavailable(failed[1].reason, failed[1].message)
        began = time.monotonic()
        try:
            self.refresh()
        except Unavailable as error:
            self._failure = (began, error)
            raise

    def at_least(self, tenant_id: int, revision: int, asked_at: float | None = None) -> TenantDeck:
        """The tenant's deck at ``revision`` or later. Asks the database where this worker has not
        seen it yet. NotFound TENANT_NOT_FOUND, FailedPrecondition RATE_REVISION_AHEAD."""
        found = self.deck(tenant_id, asked_at)
        if found.revision < revision:
            self.refresh()
            found = self.deck(tenant_id)
        if found.revision < revision:
            raise FailedPrecondition(
                Reason.RATE_REVISION_AHEAD,
                f"the rates of tenant {tenant_id} are at revision {found.revision}, not yet at"
                f" {revision}; demand one that a change of these rates has answered",
                metadata={
                    "tenant_id": str(tenant_id),
                    "rate_revision": str(found.revision),
                },
            )
        return found

    def size(self) -> tuple[int, int]:
        """How many tenants there are, and how many rates they have together."""
        decks = list(self._decks.values())
        return len(decks), sum(len(tenant.deck) for tenant in decks)

    def check_growth(
        self, tenant_id: int, prefix_rates: int, tenant_rates: int, more_bytes: int
    ) -> None:
        """Check a change of a tenant's rates before memory is taken for it. ``prefix_rates``: the
        most rates of one prefix, and ``tenant_rates`` all rates, after the change; ``more_bytes``:
        an upper bound of the growth of the deck. OverLimit TOO_MANY_RATES."""
        limits = self._limits
        if prefix_rates > MAX_PREFIX_RATES:
            raise _over_limit(
                "rates_of_prefix",
                MAX_PREFIX_RATES,
                f"a prefix would have {prefix_rates:,} rates; at most {MAX_PREFIX_RATES:,} are"
                " allowed, so delete some that have ended",
            )
        if tenant_rates > limits.tenant_rates:
            raise _over_limit(
                "rates_of_tenant",
                limits.tenant_rates,
                f"tenant {tenant_id} would have {tenant_rates:,} rates; at most"
                f" {limits.tenant_rates:,} are allowed (--max-tenant-rates)",
            )
        if more_bytes > 0 and self.nbytes() + more_bytes > limits.deck_bytes:
            raise _over_limit(
                "deck_bytes",
                limits.deck_bytes,
                f"the rates of all tenants would take more than {limits.deck_bytes:,} bytes of"
                " memory (--max-deck-bytes)",
            )

    def nbytes(self) -> int:
        """The memory of all decks, in bytes."""
        return sum(tenant.deck.nbytes for tenant in list(self._decks.values()))

    def change_number(self) -> int:
        """The number of the last change of any deck that is in these."""
        return self._known_seq

    def lag_seconds(self) -> float:
        """For how long changes may have been missed: since it was last known that none was."""
        return self._follower.lag_seconds()

    def follow(self) -> None:
        """Start to watch for the changes of other workers, in a thread of its own."""
        self._follower.start()
        if self._sharing is not None:
            self._sharing.start()

    def on_failed_look(self, call: Callable[[], None]) -> None:
        """Call ``call``, from the thread that follows, when the database did not answer it."""
        self._follower.on_failed_look = call

    def close(self) -> None:
        """Stop to follow. A database that does not answer delays it by seconds at most."""
        self._follower.close()
        if self._sharing is not None:
            self._sharing.close()
        if self._images is not None:
            self._images.close()

    def _apply(self, connection: Connection, state: DeckState) -> None:
        if state.tenant is None:
            self._decks.pop(state.tenant_id, None)
            return
        pending, made = self._pending.get((state.tenant_id, state.revision), (None, None))
        if pending is not None and made is not None and pending.holds():
            self._decks[state.tenant_id] = made
            return
        known = self._decks.get(state.tenant_id)
        since = known.revision if known else 0
        changes = decks.changes_between(connection, state.tenant_id, since, state.revision)
        found: dict[int, ratingcore.Deck] | Answer = Answer.ALONE
        if self._images is not None and len(changes) >= LARGE_CHANGE:
            found = self._images.take(state.tenant_id, state.revision, BUILD_WAIT_SECONDS)
        if not isinstance(found, Answer):
            deck = found[state.tenant_id]
            self._decks[state.tenant_id] = TenantDeck(state.tenant, deck, state.revision)
            return
        try:
            self._build(connection, state, changes, known)
        except BaseException:
            if self._images is not None and found is Answer.BUILD:
                self._images.give_up(state.tenant_id)
            raise
        made = self._decks[state.tenant_id]
        if self._images is not None and found is Answer.BUILD:
            mapped = self._images.publish(
                state.tenant_id, state.revision, self._known_seq, [(state.tenant_id, made.deck)]
            )
            deck = mapped.get(state.tenant_id, made.deck)
            self._decks[state.tenant_id] = replace(made, deck=deck)
        elif self._sharing is not None:
            self._sharing.note(state.tenant_id, made.deck)

    def _build(
        self,
        connection: Connection,
        state: DeckState,
        changes: decks.RateChanges,
        known: TenantDeck | None,
    ) -> None:
        builder = ratingcore.DeckBuilder(known.deck if known else None)
        for version_id, prefix in decks.rates_gone(connection, changes):
            builder.remove(version_id, prefix)
        decks.rates_come(connection, changes, RateRows(builder))
        self._take(state, builder)

    def _adopt(self, mapped: Mapping[int, ratingcore.Deck]) -> None:
        """Use these decks in place of equal ones."""
        with self._building:
            for tenant_id, deck in mapped.items():
                present = self._decks.get(tenant_id)
                if present is not None and present.revision == deck.revision:
                    self._decks[tenant_id] = replace(present, deck=deck)

    def _take(self, state: DeckState, builder: ratingcore.DeckBuilder) -> None:
        """Rate with what was built from now on. The tenant of ``state`` is there."""
        assert state.tenant is not None
        self._decks[state.tenant_id] = built(builder, state.tenant, state.revision)


def built(builder: ratingcore.DeckBuilder, tenant: Tenant, revision: int) -> TenantDeck:
    """The deck that a builder holds, under the tenant's rules."""
    deck = builder.build(
        revision,
        tenant.rounding,
        tenant.country_code,
        tenant.national_prefix,
        tenant.international_prefix,
        tenant.cost_decimals,
    )
    return TenantDeck(tenant, deck, revision)


def _over_limit(limit: str, most: int, message: str) -> OverLimit:
    return OverLimit(
        Reason.TOO_MANY_RATES,
        f"{message}; nothing was changed",
        metadata={"limit": limit, "most": str(most)},
    )


def tenant_not_found(tenant_id: int) -> NotFound:
    return NotFound(
        Reason.TENANT_NOT_FOUND,
        f"there is no tenant {tenant_id}",
        metadata={"tenant_id": str(tenant_id)},
    )
