"""Single rates, and the import and export of whole decks.

Every change writes a new version and keeps the old one (rating rule 9): a CDR refers to the version
that priced it. A rate is identified by its id, and in a deck by its prefix and effective_from; a
tenant has each such pair only once (rating rule 3).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tollwire.service.accounts import audit
from tollwire.service.accounts.tenants import require_tenant, tenant_exists
from tollwire.service.cache.decks import Decks, tenant_not_found
from tollwire.service.domain import paging, scopes
from tollwire.service.domain.checks import check_id, check_text, refuse
from tollwire.service.domain.errors import Aborted, AlreadyExists, NotFound, Reason, invalid_field
from tollwire.service.domain.model import ImportOutcome, ImportPlan, Page, Rate
from tollwire.service.domain.thread_context import Work, current_request
from tollwire.service.rating.deck_import import DeckImports, Intake
from tollwire.service.rating.rate_checks import check_rate, normalized
from tollwire.service.storage import decks, ids, rates
from tollwire.service.storage.engine import Connection, Database

MAX_SEARCH_CHARS = 256
_EXPORT_RATES = 1000
# The most memory that a rate takes in a deck: 33 nodes of 12 bytes, its columns, its destination
# and intervals; and what it may add for every other rate.
_MOST_RATE_BYTES = 3072
_BYTES_OF_OTHER_RATES = 12
# The most that an interval takes in a response.
_INTERVAL_BYTES = 40


class Rates:
    """Manages rates. Thread-safe."""

    def __init__(
        self, database: Database, decks: Decks, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._database = database
        self._decks = decks
        self._clock_ns = clock_ns
        self._imports = DeckImports(database, decks, clock_ns)

    def create(self, rate: Rate) -> Rate:
        """Create a rate; the database chooses the id. AlreadyExists RATE_EXISTS if the tenant has a
        rate with this prefix and effective_from; OverLimit TOO_MANY_RATES."""
        refuse(check_rate(rate), "rate.")
        now_ns = self._clock_ns()
        rate = replace(normalized(rate), created_at_ns=now_ns, updated_at_ns=now_ns)
        with self._database.write() as connection:
            revision = _lock_deck(connection, rate.tenant_id) + 1
            _refuse_taken(connection, rate)
            self._check_growth(connection, rate, created=1)
            rate_id = ids.take(connection, "rate_versions")
            rate = replace(rate, id=rate_id, version_id=rate_id, rate_revision=revision)
            rates.add(connection, rate, revision)
            _enter(connection, "CreateRate", now_ns, None, rate)
            decks.advance(connection, rate.tenant_id, revision)
        self._decks.refresh_after_commit()
        current_request().leaves_rates_at(revision)
        return rate

    def get(self, rate_id: int) -> Rate:
        refuse(check_id("id", rate_id))
        with self._database.read() as connection:
            rate = rates.get(connection, rate_id)
        if rate is None or not scopes.covers(rate.tenant_id):
            raise _rate_not_found(rate_id)
        return rate

    def list(self, tenant_id: int, search: str, page_size: int, page_token: str) -> Page[Rate]:
        """One page, by tenant, prefix and effective_from. ``tenant_id`` 0: all tenants that the
        caller may see. ``search``: a part of the prefix or destination, case-insensitive. NotFound
        TENANT_NOT_FOUND."""
        refuse(
            [
                *check_id("tenant_id", tenant_id, required=False),
                *check_text("search", search, MAX_SEARCH_CHARS),
            ]
        )
        size = paging.page_size(page_size)
        wanted = ("rates", tenant_id, search, scopes.within())
        after = paging.decode_token(page_token, wanted, (int, str, int, int))
        with self._database.read(work=Work.LONG) as connection:
            require_tenant(connection, tenant_id)
            found = rates.page(connection, tenant_id, search, after, size + 1, scopes.within())
        return paging.cut(found, size, wanted, rates.position, _most_bytes)

    def update(self, rate: Rate, fields: frozenset[str], etag: str) -> Rate:
        """Set ``fields`` to the values in ``rate``. Its tenant_id must be 0 or the owner's. An
        update without changes keeps the etag.

        Aborted ETAG_MISMATCH if ``etag`` is not empty and not the current one; AlreadyExists
        RATE_EXISTS if another rate has the new prefix and effective_from; OverLimit TOO_MANY_RATES
        if it has a new prefix.
        """
        refuse(check_id("id", rate.id), "rate.")
        with self._database.write() as connection:
            revision, stored = self._lock_rate(connection, rate.id, etag)
            if rate.tenant_id not in (0, stored.tenant_id):
                raise invalid_field(
                    "rate.tenant_id",
                    f"must be 0 or the owner's, {stored.tenant_id}; got {rate.tenant_id}",
                )
            changed = replace(stored, **{name: getattr(rate, name) for name in fields})
            refuse(check_rate(changed), "rate.")
            changed = normalized(changed)
            if changed == stored:
                current_request().leaves_rates_at(revision)
                return stored
            if rates.position(changed) != rates.position(stored):
                _refuse_taken(connection, changed)
            if changed.prefix != stored.prefix:
                self._check_growth(connection, changed, created=0)
            changed = replace(
                changed,
                version_id=ids.take(connection, "rate_versions"),
                updated_at_ns=self._clock_ns(),
                rate_revision=revision + 1,
            )
            rates.retire(
                connection,
                stored.tenant_id,
                stored.version_id,
                revision + 1,
                changed.updated_at_ns,
            )
            rates.add(connection, changed, revision + 1)
            _enter(connection, "UpdateRate", changed.updated_at_ns, stored, changed)
            decks.advance(connection, changed.tenant_id, revision + 1)
        self._decks.refresh_after_commit()
        current_request().leaves_rates_at(revision + 1)
        return changed

    def delete(self, rate_id: int, etag: str) -> None:
        """Aborted ETAG_MISMATCH if ``etag`` is not empty and not the current one."""
        refuse(check_id("id", rate_id))
        with self._database.write() as connection:
            revision, stored = self._lock_rate(connection, rate_id, etag)
            now_ns = self._clock_ns()
            rates.retire(connection, stored.tenant_id, stored.version_id, revision + 1, now_ns)
            _enter(connection, "DeleteRate", now_ns, stored, None)
            decks.advance(connection, stored.tenant_id, revision + 1)
        self._decks.refresh_after_commit()
        current_request().leaves_rates_at(revision + 1)

    def export(self, tenant_id: int) -> Iterator[Sequence[Rate]]:
        """All current rates of a tenant, by prefix and effective_from, in parts. Later changes are
        not included, and no transaction stays open between the parts."""
        refuse(check_id("tenant_id", tenant_id))
        with self._database.read() as connection:
            revision = decks.revision(connection, tenant_id)
            if revision is None or not tenant_exists(connection, tenant_id):
                raise tenant_not_found(tenant_id)
        return self._export(tenant_id, revision)

    def import_deck(self, plan: ImportPlan, fill: Callable[[Intake], None]) -> ImportOutcome:
        """Import a whole deck, or nothing if any rate is rejected. ``fill`` puts the rates into its
        argument as they arrive. NotFound TENANT_NOT_FOUND; Exhausted TOO_MANY_STREAMS if the
        imports in progress use all memory for imports; FailedPrecondition IMPORT_GAP if a replacing
        deck begins too late."""
        refuse(check_id("tenant_id", plan.tenant_id))
        outcome = self._imports.run(plan, fill)
        current_request().leaves_rates_at(outcome.rate_revision)
        return outcome

    def _export(self, tenant_id: int, revision: int) -> Iterator[Sequence[Rate]]:
        after = None
        while True:
            with self._database.read() as connection:
                part = rates.page_at_revision(connection, tenant_id, revision, after, _EXPORT_RATES)
            if part:
                yield part
            if len(part) < _EXPORT_RATES:
                return
            after = rates.position(part[-1])

    def _check_growth(self, connection: Connection, rate: Rate, created: int) -> None:
        """Check the limits before a tenant gets a rate with another prefix. ``created``: how many
        rates the tenant then has more."""
        present = self._decks.in_memory(rate.tenant_id)
        tenant_rates = len(present.deck) if present else 0
        self._decks.check_growth(
            rate.tenant_id,
            rates.count_of_prefix(connection, rate.tenant_id, rate.prefix) + 1,
            tenant_rates + created,
            _MOST_RATE_BYTES + _BYTES_OF_OTHER_RATES * tenant_rates,
        )

    def _lock_rate(self, connection: Connection, rate_id: int, etag: str) -> tuple[int, Rate]:
        """Lock the deck of a rate. Returns its revision and the current state of the rate."""
        found = rates.get(connection, rate_id)
        if found is None or not scopes.covers(found.tenant_id):
            raise _rate_not_found(rate_id)
        revision = _lock_deck(connection, found.tenant_id)
        # Read again: the rate may have changed before the lock was acquired.
        stored = rates.get(connection, rate_id)
        if stored is None:
            raise _rate_not_found(rate_id)
        if etag and etag != stored.etag:
            raise Aborted(
                Reason.ETAG_MISMATCH,
                f"rate {rate_id} has changed since it was read; read it again",
                metadata={"rate_id": str(rate_id), "etag": stored.etag},
            )
        return revision, stored


def rehearse_change(connection: Connection) -> None:
    """Execute the statements of a change of a rate, without a tenant. The caller rolls them back.

    A statement takes several times as long the first time, with Python's global lock, so the first
    changes after a start would delay the calls that are rated meanwhile. The audit log is left out:
    a rollback would leave a gap in its ids.
    """
    rates.get(connection, 0)
    decks.lock(connection, 0)
    tenant_exists(connection, 0)
    version_id = ids.take(connection, "rate_versions")
    rates.retire(connection, 0, version_id, 1, 0)
    rates.add(connection, Rate(id=version_id, version_id=version_id), 1)
    decks.advance(connection, 0, 1)


def _enter(
    connection: Connection, action: str, now_ns: int, before: Rate | None, after: Rate | None
) -> None:
    """Write an entry to the audit log."""
    one = after or before
    assert one is not None
    audit.enter(
        connection,
        action=action,
        resource=f"rate/{one.id}",
        now_ns=now_ns,
        tenant_id=one.tenant_id,
        before=before,
        after=after,
    )


def _lock_deck(connection: Connection, tenant_id: int) -> int:
    revision = decks.lock(connection, tenant_id) if scopes.covers(tenant_id) else None
    if revision is None or not tenant_exists(connection, tenant_id):
        raise tenant_not_found(tenant_id)
    return revision


def _refuse_taken(connection: Connection, rate: Rate) -> None:
    taken = rates.at_position(connection, rates.position(rate))
    if taken is not None:
        raise AlreadyExists(
            Reason.RATE_EXISTS,
            f"tenant {rate.tenant_id} already has rate {taken.id} with prefix {rate.prefix!r} and"
            " this effective_from",
            metadata={"rate_id": str(taken.id), "tenant_id": str(rate.tenant_id)},
        )


def _rate_not_found(rate_id: int) -> NotFound:
    return NotFound(
        Reason.RATE_NOT_FOUND, f"there is no rate {rate_id}", metadata={"rate_id": str(rate_id)}
    )


def _most_bytes(rate: Rate) -> int:
    """The maximum size of a rate in a response."""
    return 300 + _INTERVAL_BYTES * len(rate.intervals) + 4 * len(rate.destination)
