"""What differs between the databases: one class for each, with this interface.

The queries of storage call these methods and never compare the name of a database. Must not import
the query modules; tables and row types only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import psycopg
from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    TableValuedAlias,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.elements import KeyedColumnElement

from tollwire.service.storage.cdr_rows import ROW_FIELDS, NewRows, RowReader
from tollwire.service.storage.schema.record_tables import (
    LedgerEntryRow,
    UploadChunkRow,
    UploadRow,
)

T = TypeVar("T")
RowsPart = bytes | list[tuple[Any, ...]]
TextColumn = ColumnElement[str] | InstrumentedAttribute[str]

# The columns of a new CDR without its id, and those of an entry of the ledger.
CDR_COLUMNS = ", ".join(ROW_FIELDS)
LEDGER_COLUMNS = tuple(LedgerEntryRow.__table__.columns.keys())
UPLOAD_COLUMNS = tuple(UploadRow.__table__.columns.keys())
# The columns of a chunk of an upload, and the changes of its upload, with the names of the
# parameters in braces.
CHUNK_COLUMNS = tuple(UploadChunkRow.__table__.columns.keys())
COUNTS = (
    *("created", "duplicates", "conflicts", "rejected", "unrated"),
    *("recorded_again", "derived_call_ids", "derived_duplicates", "duration_seconds"),
)
CHANGES_OF_UPLOAD = ", ".join(
    (
        "committed_offset = committed_offset + {calls}",
        "updated_at_ns = {now_ns}",
        "revision = revision + 1",
        "chunks_hash = {chunks_hash}",
        *(f"{name} = {name} + {{{name}}}" for name in COUNTS),
    )
)


class KeyTaken(Exception):
    """Another CDR has the key of a row to insert. No row of the statement is inserted."""


class ConnectionLost(psycopg.OperationalError):
    """The connection was dead when a transaction was to begin on it. Nothing was changed."""


class ExtensionTuple(NamedTuple):
    """A row of the table of extensions."""

    id: int
    tenant_id: int
    number: str
    name: str


# The number of a chain of the ledger, its length, and the hash of its last entry.
LedgerHead = tuple[int, int, bytes]


class HeldParties(NamedTuple):
    """What ``hold_parties`` has found."""

    tenant_ids: set[int]
    extensions: list[ExtensionTuple]
    change_seq: int
    first_cdr_id: int
    ledger_head: LedgerHead | None = None
    upload: tuple[Any, ...] | None = None  # by UPLOAD_COLUMNS
    # The end of a chain that is locked for the entry of the upload.
    upload_head: LedgerHead | None = None


class ServerFacts(NamedTuple):
    """A description of a database. ``clock_ahead_seconds``: by how much its clock is ahead of the
    clock of this machine; None if it has no clock of its own. ``defect``: a known defect of this
    version, and the versions without it."""

    version: str
    clock_ahead_seconds: float | None = None
    max_connections: int | None = None
    unsafe_settings: tuple[str, ...] = ()
    defect: tuple[str, str] | None = None


class Wakeups(Protocol):
    """Tells that something may have been committed. Belongs to one thread."""

    # For how long after the last event a commit that it told of may not show yet.
    settle_seconds: float

    def fileno(self) -> int:
        """A descriptor that is readable when something has happened."""

    def drain(self) -> bool:
        """Whether something has happened since the last call. An exception if it cannot tell of
        commits any more."""

    def close(self) -> None:
        """Release what it holds, but for the connection."""


class PackedRows(Protocol):
    """Rows to insert, in one of two forms."""

    def __iter__(self) -> Iterator[tuple[Any, ...]]: ...

    def copy_part(self) -> bytes:
        """The next part of PostgreSQL's binary COPY data; empty after the last one."""


class Dialect(ABC):
    """One database. Has no state; all threads share it."""

    name: ClassVar[str]  # SQLAlchemy's
    # Whether a transaction for writing excludes all others, so that rows need no locks.
    has_one_writer: ClassVar[bool]
    # The shortest useful interval between two looks at a change clock, where nothing tells of
    # commits.
    least_poll_seconds: ClassVar[float]
    # A query for the newest rows of several tenants is one query for each tenant, merged, up to
    # this number of tenants.
    most_merged_tenants: ClassVar[int]

    # Connections and transactions.

    @abstractmethod
    def make_engine(self, url: URL, pool_size: int, wait_seconds: float) -> Engine:
        """An engine whose waits all end (tollwire.service.storage.limits). A transaction for
        writing has the execution option ``is_writing``. One with the option ``has_opening`` begins
        with ``deck_change_seq`` or ``hold_parties``, in one round trip. If the connection is dead,
        the beginning raises ConnectionLost."""

    @abstractmethod
    def hold_snapshot(self, connection: Connection) -> None:
        """Let all statements of this transaction, which only reads, see the same state of the
        database. Call it before the first statement."""

    @abstractmethod
    def confirm(self, connection: Connection) -> None:
        """Raises if what was committed last on the connection will not survive its processes."""

    @abstractmethod
    def check_sessions(
        self, engine: Engine, url: URL, session_engine: Engine | None, session_url: URL | None
    ) -> bool:
        """Whether a connection pooler answers at ``url``, which may not keep sessions.
        DatabaseRefused if ``session_url`` leads to another database, or to sessions that are not
        kept."""

    @abstractmethod
    def describe(self, connection: Connection) -> ServerFacts:
        """The facts that ``tollwire doctor`` examines."""

    # Notification of changes. ``driver`` is the driver's own connection.

    @abstractmethod
    def notify(self, connection: Connection, channel: str) -> None:
        """Notify the listeners of this channel once the transaction is committed."""

    @abstractmethod
    def can_wake(self, driver: Any) -> bool:
        """Whether ``wakeups`` of this connection can tell of commits."""

    @abstractmethod
    def wakeups(self, driver: Any, channel: str) -> Wakeups:
        """What tells of commits from now on. OSError if the system refuses it."""

    @abstractmethod
    def commits_of_others(self, driver: Any) -> int | None:
        """A number that changes with each commit of another connection and takes less than a query;
        None if the database has none."""

    # Rows to insert.

    @abstractmethod
    def take_row_ids(self, connection: Connection, table: str, count: int) -> int:
        """The first of ``count`` consecutive ids for new rows: tollwire.service.storage.ids."""

    @abstractmethod
    def insert_or_ignore(
        self, connection: Connection, table: type[Any], values: Mapping[str, Any]
    ) -> bool:
        """Insert a row. False if a row with one of its unique keys exists."""

    @abstractmethod
    def bulk_insert(
        self,
        connection: Connection,
        table: str,
        columns: Sequence[KeyedColumnElement[Any]],
        rows: Iterable[Sequence[Any]],
    ) -> None:
        """Insert rows with values for these columns. Takes one row at a time from ``rows``."""

    @abstractmethod
    def insert_packed(
        self,
        connection: Connection,
        table: str,
        columns: Sequence[KeyedColumnElement[Any]],
        rows: PackedRows,
    ) -> None:
        """The same for rows that the core makes."""

    @abstractmethod
    def deck_change_seq(self, connection: Connection) -> int:
        """The number of the last committed change of any deck. May be the opening of a
        transaction."""

    @abstractmethod
    def hold_parties(
        self,
        connection: Connection,
        tenant_ids: Collection[int],
        extension_ids: Collection[int],
        *,
        only_theirs: bool,
        cdr_count: int,
        upload_id: int,
    ) -> HeldParties:
        """Lock those of the tenants and extensions that exist, against deletion and changes of
        their keys, in one round trip: tollwire.service.storage.parties. Before them lock this
        upload, if ``upload_id`` is not 0 and it exists. ``only_theirs``: leave out the extensions
        of other tenants. Then read the number of the last change of decks, and take
        ids for ``cdr_count`` CDRs. For few CDRs a database may also lock a chain of the ledger, if
        one is free, for ``insert_cdrs_and_entry``. May be the opening of a transaction."""

    @abstractmethod
    def insert_cdrs(
        self,
        connection: Connection,
        rows: NewRows,
        first_id: int,
        *,
        is_first: bool,
        meanwhile: Callable[[], object] | None = None,
    ) -> int:
        """Insert the rows of which no key is taken, with consecutive ids from ``first_id`` on, and
        return how many these are. A database that cannot leave out single rows inserts either all,
        or none and raises KeyTaken; the transaction goes on, and by then the other CDR is
        committed. ``first_id`` is from ``hold_parties`` in this transaction. ``is_first``: this
        transaction has written nothing since ``hold_parties``. ``meanwhile``: called if the
        database works on the rows by itself, while it does."""

    @abstractmethod
    def insert_cdrs_and_entry(
        self,
        connection: Connection,
        rows: NewRows,
        first_id: int,
        entry: Mapping[str, Any],
        *,
        chunk: Mapping[str, Any] | None,
        commits: bool,
    ) -> bool:
        """Insert all rows, their entry in the ledger, and the chunk of an upload, given as for
        ``add_upload_chunk`` and with the ``entry`` of the upload, if they are one; in one round
        trip. Call it only if
        ``hold_parties`` has locked a chain, first after it. False if a key is taken or another
        transaction inserts it now: nothing is written, and the chain is not locked any more.
        ``commits``: commit in the same round trip if all is written; nothing may follow in this
        transaction then."""

    @abstractmethod
    def add_upload_chunk(
        self, connection: Connection, chunk: Mapping[str, Any], *, hold_chain: bool
    ) -> tuple[LedgerHead | None, LedgerHead | None]:
        """Store a chunk, and add its counts to its upload. ``chunk``: by CHUNK_COLUMNS, and
        duration_seconds, now_ns and chunks_hash. A database with round trips also locks chains of
        the ledger if they are free, as ``hold_ledger_chain`` does: one of the record of calls
        with ``hold_chain``, and one of the others. Returns their ends."""

    @abstractmethod
    def violates(self, error: IntegrityError, constraint: str) -> bool:
        """Whether the error says that another transaction has taken a key of this unique
        constraint."""

    # The ledger.

    @abstractmethod
    def hold_ledger_chain(self, connection: Connection, *, of_calls: bool) -> LedgerHead:
        """Lock a chain until the transaction ends: one of the record of calls, or one of the
        others. Prefers a chain that no other transaction holds."""

    @abstractmethod
    def add_ledger_entries(
        self,
        connection: Connection,
        entries: Sequence[Mapping[str, Any]],
        *,
        commits: bool = False,
    ) -> None:
        """Write entries, each given by LEDGER_COLUMNS, which follow each other in a chain, and move
        its end to the last one: one round trip. With ``commits`` nothing may follow in the
        transaction, and a database with round trips commits it in the same one."""

    # Conditions.

    @abstractmethod
    def among(self, column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
        """That ``column`` is one of ``values``, which are one parameter."""

    @abstractmethod
    def listed(self, numbers: Sequence[int]) -> TableValuedAlias:
        """The numbers, one parameter, as rows with the column ``value``."""

    @abstractmethod
    def is_subset(
        self, column: InstrumentedAttribute[str | None], allowed: str
    ) -> ColumnElement[bool]:
        """That each number of a JSON list is in ``allowed``, which is also a JSON list."""

    @abstractmethod
    def contains(self, column: TextColumn, term: str) -> ColumnElement[bool]:
        """``matches`` of tollwire.service.domain.case_folding in the database. LIKE differs: SQLite
        folds only ASCII, and PostgreSQL what the locale of the database has."""

    @abstractmethod
    def unlikely(self, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        """The condition, with the hint that nearly no row has it."""

    # Reading in bulk.

    @abstractmethod
    def read_rows(self, connection: Connection, query: str, reader: RowReader[T]) -> T:
        """What ``reader`` makes of the rows of a query that has no parameters."""

    @abstractmethod
    def undecodable_texts(self, connection: Connection) -> AbstractContextManager[None]:
        """Within the block texts that are not UTF-8 are read with surrogates. The service never
        writes such texts."""

    @abstractmethod
    def driver_rows(
        self, connection: Connection, query: str, values: Sequence[int]
    ) -> list[tuple[Any, ...]]:
        """The rows of a query with "?" for each value, without SQLAlchemy's work for each row."""

    @abstractmethod
    def parts(
        self, connection: Connection, query: str
    ) -> AbstractContextManager[Iterator[RowsPart]]:
        """The rows of a query that has no parameters, in parts, of which one is in memory: binary
        COPY data, of whole rows, or tuples."""

    @abstractmethod
    def release_memory(self, connection: Connection) -> None:
        """Free the memory in which this connection keeps what a long query has read."""
