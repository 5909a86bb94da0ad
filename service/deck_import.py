"""Taking over a whole deck: checked as it streams in, compared and written as one change.

Atomic: where any rate is rejected nothing changes, and the outcome says which and why. A rate is
recognised by its prefix and effective_from; a deck that names the same one twice is ambiguous, so
the second is rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import merge
from itertools import islice
from operator import attrgetter

from service.decks import tenant_not_found
from service.errors import FieldViolation
from service.model import ImportMode, ImportOutcome, Rate, RateError
from service.rate_checks import check_terms, normalized
from service.storage import deck_import as storage
from service.storage import decks as stored_decks
from service.storage import ids, tenants
from service.storage.engine import Connection, Database

MAX_ERRORS = 1000
_PART_RATES = 10_000


def import_deck(
    database: Database,
    tenant_id: int,
    mode: ImportMode,
    dry_run: bool,
    rates: Iterable[Rate | RateError],
    clock_ns: Callable[[], int],
) -> ImportOutcome:
    """See ``Rates.import_deck``."""
    with database.read() as connection:
        if tenants.get(connection, tenant_id) is None:
            raise tenant_not_found(tenant_id)
    with storage.staging(database) as connection:
        intake = _Intake(database, connection, tenant_id)
        intake.take(rates)
        with database.read(connection):
            rejected, errors = intake.verdict()
            if rejected:
                revision = stored_decks.revision(connection, tenant_id) or 0
                return ImportOutcome(rejected=rejected, errors=errors, rate_revision=revision)
        unit = database.read if dry_run else database.write
        with unit(connection):
            lock = stored_decks.revision if dry_run else stored_decks.lock
            revision_or_none = lock(connection, tenant_id)
            if revision_or_none is None or tenants.get(connection, tenant_id) is None:
                raise tenant_not_found(tenant_id)
            revision = revision_or_none
            found = storage.compare(connection, tenant_id, replace=mode == ImportMode.REPLACE)
            if not dry_run and found != storage.NO_CHANGE:
                revision += 1
                storage.take_over(
                    connection,
                    tenant_id,
                    revision,
                    first_version_id=ids.reserve(
                        database, connection, "rate_versions", found.created + found.updated
                    ),
                    first_rate_id=ids.reserve(database, connection, "rates", found.created),
                    now_ns=clock_ns(),
                )
                stored_decks.advance(connection, tenant_id, revision)
        return ImportOutcome(
            created=found.created,
            updated=found.updated,
            deleted=found.deleted,
            unchanged=intake.accepted - found.created - found.updated,
            rate_revision=revision,
        )


class _Intake:
    """The deck on its way into the staging table, and what is wrong with it so far."""

    def __init__(self, database: Database, connection: Connection, tenant_id: int) -> None:
        self._database = database
        self._connection = connection
        self._tenant_id = tenant_id
        self._rows: list[storage.Row] = []
        self._errors: list[RateError] = []  # the first MAX_ERRORS
        self._last_bad_index = -1
        self._bad = 0
        self.accepted = 0

    def take(self, rates: Iterable[Rate | RateError]) -> None:
        index = 0
        for item in rates:
            if isinstance(item, RateError):
                index = item.index
                self._reject(item)
            elif found := self._check(item):
                for wrong in found:
                    self._reject(RateError(index, wrong.field, wrong.description))
            else:
                self._rows.append(storage.staged_row(index, normalized(item)))
                if len(self._rows) == _PART_RATES:
                    self._stage()
            index += 1
        self._stage()

    def verdict(self) -> tuple[int, tuple[RateError, ...]]:
        """How many rates are rejected, and the first errors, once the whole deck is taken."""
        count = 0
        errors: Iterable[RateError] = self._errors
        if not storage.complete(self._connection):
            count = storage.count_duplicates(self._connection)
            repeated = (
                RateError(
                    index,
                    "prefix",
                    f"the deck has this prefix and effective_from already, at index {first_index}",
                )
                for index, first_index in storage.duplicates(self._connection, MAX_ERRORS)
            )
            errors = merge(self._errors, repeated, key=attrgetter("index"))
        return self._bad + count, tuple(islice(errors, MAX_ERRORS))

    def _check(self, rate: Rate) -> list[FieldViolation]:
        found = check_terms(rate)
        if rate.tenant_id not in (0, self._tenant_id):
            wrong = f"must be 0 or the import's, {self._tenant_id}; got {rate.tenant_id}"
            found.append(FieldViolation("tenant_id", wrong))
        return found

    def _reject(self, error: RateError) -> None:
        """Several errors may follow each other for one rate: it is rejected once."""
        if error.index != self._last_bad_index:
            self._last_bad_index = error.index
            self._bad += 1
        if len(self._errors) < MAX_ERRORS:
            self._errors.append(error)

    def _stage(self) -> None:
        if self._rows:
            # A transaction that only writes temporary tables holds up nobody.
            with self._database.read(self._connection):
                storage.stage(self._connection, self._rows)
            self.accepted += len(self._rows)
            self._rows = []
