"""The revision of each tenant's deck, and the changes since a revision.

The protocol that keeps all workers on the committed rates:

- A transaction that changes rates or rules of a tenant first locks the tenant's row of ``decks``,
  which serialises the changes of one tenant. It then writes with the next revision, and last calls
  ``advance``.
- ``advance`` raises the clock of all decks and writes its number to the row. The clock stays locked
  until the commit, so the order of ``change_seq`` is the order of the commits: a worker that has
  all changes up to a number and reads those above it misses none.
- Rates are rows with the revisions at which they were added and retired, so the rates at a revision
  are always the same, whatever is committed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection, Select, select, update

from tollwire.service.domain.model import Tenant
from tollwire.service.storage import ledger
from tollwire.service.storage.changes import Clock
from tollwire.service.storage.dialects.base import RowsPart
from tollwire.service.storage.dialects.lookup import dialect_of
from tollwire.service.storage.rates import TERMS
from tollwire.service.storage.schema.tenant_tables import (
    IS_PRESENT,
    DeckClockRow,
    DeckRow,
    RateVersionRow,
)
from tollwire.service.storage.tenants import tenant_from_row

_PART_CHANGES = 10
# A rate as the core reads it.
ROW = (*TERMS, RateVersionRow.__table__.c.tenant_id)
_SELECT = f"SELECT {', '.join(column.key for column in ROW)} FROM {RateVersionRow.__tablename__}"
T_co = TypeVar("T_co", covariant=True)
# A change of a rate takes effect with its commit, in every worker.
CLOCK = Clock("deck_clock", "tollwire_decks")

_CHANGED = (
    "SELECT decks.tenant_id, decks.revision, decks.change_seq, name, currency, rounding,"
    " country_code, national_prefix, international_prefix, created_at_ns, cost_decimals"
    " FROM decks LEFT JOIN tenants ON tenants.id = decks.tenant_id"
    " WHERE decks.change_seq > ? ORDER BY decks.change_seq"
)
_VERSIONS = (
    "SELECT first_version_id, last_version_id FROM rate_changes"
    " WHERE tenant_id = ? AND revision > ? AND revision <= ?"
)
_GONE = (
    "SELECT version_id, prefix FROM rate_versions WHERE tenant_id = ? AND created_revision <= ?"
    " AND retired_revision > ? AND retired_revision <= ?"
)


class RateReader(Protocol[T_co]):
    """Reads rates in parts, each with the values of ROW."""

    def read(self, part: RowsPart) -> Iterable[tuple[int, T_co]]:
        """The id of each tenant whose rates are complete, and what was made of them."""

    def end(self) -> Iterable[tuple[int, T_co]]:
        """The same for the last tenant."""


class _StateRow(NamedTuple):
    """A row of ``_CHANGED``; from ``name`` on, None without a tenant."""

    tenant_id: int
    revision: int
    change_seq: int
    name: str | None
    currency: str
    rounding: int
    country_code: str
    national_prefix: str
    international_prefix: str
    created_at_ns: int
    cost_decimals: int


@dataclass(frozen=True, slots=True)
class DeckState:
    """The revision of a deck and the tenant with its rules; None if the tenant was deleted."""

    tenant_id: int
    revision: int
    change_seq: int
    tenant: Tenant | None


def create(connection: Connection, tenant_id: int) -> int:
    """Create the deck of a tenant if it does not exist, lock it and return its revision: 0, or the
    last one of a deleted tenant with that id."""
    new = {"tenant_id": tenant_id, "revision": 0, "change_seq": 0}
    dialect_of(connection).insert_or_ignore(connection, DeckRow, new)
    found = lock(connection, tenant_id)
    assert found is not None
    return found


def lock(connection: Connection, tenant_id: int) -> int | None:
    """Lock a deck until the transaction ends; returns its revision, None if the tenant never
    existed."""
    query = select(DeckRow.revision).where(DeckRow.tenant_id == tenant_id).with_for_update()
    return connection.execute(query).scalar_one_or_none()


def revision(connection: Connection, tenant_id: int) -> int | None:
    """The committed revision of a deck; None if the tenant never existed."""
    query = select(DeckRow.revision).where(DeckRow.tenant_id == tenant_id)
    return connection.execute(query).scalar_one_or_none()


def advance(connection: Connection, tenant_id: int, to_revision: int) -> None:
    """Set the revision of a deck that this transaction has locked. Call it last in the
    transaction."""
    ledger.append_collected(connection)  # while no other transaction waits for the clock
    clock = connection.execute(
        update(DeckClockRow)
        .values(change_seq=DeckClockRow.change_seq + 1)
        .returning(DeckClockRow.change_seq)
    ).scalar_one()
    connection.execute(
        update(DeckRow)
        .where(DeckRow.tenant_id == tenant_id)
        .values(revision=to_revision, change_seq=clock)
    )
    CLOCK.notify(connection)


def change_seq(connection: Connection) -> int:
    """The number of the last committed change of any deck."""
    return dialect_of(connection).deck_change_seq(connection)


def changed_since(connection: Connection, known_seq: int) -> list[DeckState]:
    """The decks that changed after ``known_seq``, in the order of their last changes."""
    found = dialect_of(connection).driver_rows(connection, _CHANGED, (known_seq,))
    return [
        DeckState(
            row.tenant_id,
            row.revision,
            row.change_seq,
            None if row.name is None else tenant_from_row(row),
        )
        for row in map(_StateRow._make, found)
    ]


@dataclass(frozen=True, slots=True)
class RateChanges:
    """The rates that a deck has got after revision ``since`` (0: all), until ``until``. Of each
    change the first and the last version."""

    tenant_id: int
    since: int
    until: int
    versions: Sequence[tuple[int, int]]

    def __len__(self) -> int:
        """The number of versions, of which some may not exist any more."""
        return sum(last - first + 1 for first, last in self.versions)


def changes_between(connection: Connection, tenant_id: int, since: int, until: int) -> RateChanges:
    """What to read for a deck that is known at revision ``since``."""
    values = (tenant_id, since, until)
    found = dialect_of(connection).driver_rows(connection, _VERSIONS, values)
    return RateChanges(tenant_id, since, until, [(first, last) for first, last in found])


def rates_gone(connection: Connection, changes: RateChanges) -> list[tuple[int, str]]:
    """version_id and prefix of the rates that existed before the changes and do not exist after
    them."""
    values = (changes.tenant_id, changes.since, changes.since, changes.until)
    found = dialect_of(connection).driver_rows(connection, _GONE, values)
    return [(version_id, prefix) for version_id, prefix in found]


def rates_come(connection: Connection, changes: RateChanges, reader: RateReader[Any]) -> None:
    """Read the rates of the changes that still exist at the end of them. A query of its own:
    PostgreSQL may join badly while it has no statistics of the tables."""
    found = changes.versions
    for start in range(0, len(found), _PART_CHANGES):
        _read_changes(connection, found[start : start + _PART_CHANGES], changes.until, reader)


def _read_changes(
    connection: Connection,
    changes: Sequence[tuple[int, int]],
    until: int,
    reader: RateReader[Any],
) -> None:
    """Read the rates of some changes, each given by its first and last version, that exist at
    revision ``until``."""
    within = " OR ".join(f"version_id BETWEEN {first} AND {last}" for first, last in changes)
    # coalesce, so that no index is used: it would be read as a whole. As text, because SQLAlchemy
    # would take longer to write the query than the database to run it.
    query = f"{_SELECT} WHERE ({within}) AND coalesce(retired_revision, {until + 1}) > {until}"
    _read(connection, query, reader)


def rates_of_prefixes(
    connection: Connection,
    tenant_id: int,
    prefixes: Sequence[str],
    revision: int,
    reader: RateReader[Any],
) -> None:
    """Read the tenant's rates with one of these prefixes at ``revision``."""
    common = (
        RateVersionRow.tenant_id == tenant_id,
        RateVersionRow.prefix.in_(prefixes),
        RateVersionRow.created_revision <= revision,
    )
    # Two queries, because each has an index of its own.
    for condition in (IS_PRESENT, RateVersionRow.retired_revision > revision):
        _read(connection, _literal(connection, select(*ROW).where(*common, condition)), reader)


def _read(connection: Connection, query: str, reader: RateReader[Any]) -> None:
    with dialect_of(connection).parts(connection, query) as parts:
        for part in parts:
            reader.read(part)


def present_rates(connection: Connection, reader: RateReader[T_co]) -> Iterator[tuple[int, T_co]]:
    """Read the present rates of all tenants. Yields the id and what the reader has made of each
    tenant that has rates."""
    query = select(*ROW).where(IS_PRESENT).order_by(RateVersionRow.tenant_id, RateVersionRow.prefix)
    with dialect_of(connection).parts(connection, _literal(connection, query)) as parts:
        for part in parts:
            yield from reader.read(part)
    yield from reader.end()
    dialect_of(connection).release_memory(connection)


def _literal(connection: Connection, query: Select[Any]) -> str:
    """The text of a query with its values in it."""
    literal = query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    return str(literal)
