"""SQLite: one writer, ids that rise by themselves, and lists as JSON."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from itertools import count
from typing import Any, TypeVar

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    TableValuedAlias,
    case,
    false,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.elements import KeyedColumnElement

from tollwire.service.domain.case_folding import fold, needles, other_forms
from tollwire.service.storage.cdr_rows import ROW_FIELDS, NewRows, RowReader
from tollwire.service.storage.dialects import sqlite_wakeups
from tollwire.service.storage.dialects.base import (
    CDR_COLUMNS,
    CHANGES_OF_UPLOAD,
    CHUNK_COLUMNS,
    LEDGER_COLUMNS,
    UPLOAD_COLUMNS,
    Dialect,
    ExtensionTuple,
    HeldParties,
    LedgerHead,
    PackedRows,
    RowsPart,
    ServerFacts,
    TextColumn,
    Wakeups,
)
from tollwire.service.storage.dialects.sqlite_connection import FILES, HOLDS_FUNCTION, sqlite_engine
from tollwire.service.storage.failures import UNKNOWN_OUTCOME
from tollwire.service.storage.schema.all_tables import METADATA

T = TypeVar("T")

# OR FAIL: a row that breaks a constraint ends the transaction anyway. With ABORT, the default, and
# a trigger SQLite would copy each page before it changes it, for every row anew.
_INSERT_CDRS = f"INSERT OR FAIL INTO cdrs ({CDR_COLUMNS}) VALUES {{}} ON CONFLICT DO NOTHING"
# How many rows one statement inserts: as many as possible of the first number, then of the next
# one. A statement for each row would take twice as long, half of it to begin and to end.
_ROWS_OF_STATEMENT = (64, 8, 1)
# Every transaction that records a call runs these.
_FIND_TENANTS = "SELECT id FROM tenants WHERE id IN (SELECT value FROM json_each(?))"
_FIND_EXTENSIONS = (
    "SELECT id, tenant_id, number, name FROM extensions"
    " WHERE id IN (SELECT value FROM json_each(?))"
)
_DECK_CLOCK = "SELECT change_seq FROM deck_clock"
_CLOCK_AND_NEWEST_CDR = "SELECT change_seq, (SELECT max(id) FROM cdrs) FROM deck_clock"
_LEDGER_HEAD = "SELECT chain, length, hash FROM ledger_heads WHERE chain = ?"
# The chains of the ledger.
_OF_CALLS, _OF_OTHERS = 0, 1
_INSERT_LEDGER_ENTRY = (
    f"INSERT INTO ledger_entries ({', '.join(LEDGER_COLUMNS)})"
    f" VALUES ({', '.join(f':{name}' for name in LEDGER_COLUMNS)})"
)
_INSERT_CHUNK = (
    f"INSERT INTO upload_chunks ({', '.join(CHUNK_COLUMNS)})"
    f" VALUES ({', '.join(f':{name}' for name in CHUNK_COLUMNS)})"
)
_FIND_UPLOAD = f"SELECT {', '.join(UPLOAD_COLUMNS)} FROM uploads WHERE id = ?"
_CHANGE_UPLOAD = (
    f"UPDATE uploads SET {CHANGES_OF_UPLOAD.replace('{', ':').replace('}', '')}"
    " WHERE id = :upload_id"
)
_MOVE_LEDGER_HEAD = "UPDATE ledger_heads SET length = :seq, hash = :hash WHERE chain = :chain"


# Few, so that the garbage collector does not scan them, and they stay in the processor's cache.
_PART_ROWS = 500


_WAL_RESET = (
    "in rare cases it damages a database in WAL mode that several connections use, as those of a"
    " server do",
    "3.51.3 or later, 3.50.7 or 3.44.6",
)


def _has_wal_reset_defect(version: tuple[int, ...]) -> bool:
    """The WAL-reset bug (sqlite.org/wal.html) is in all versions up to 3.51.2 but those to which
    the correction was ported."""
    return (
        version < (3, 51, 3)
        and not (3, 50, 7) <= version < (3, 51)
        and not (3, 44, 6) <= version < (3, 45)
    )


class SQLite(Dialect):
    name = "sqlite"
    has_one_writer = True
    least_poll_seconds = 0.005
    # SQLite merges by itself.
    most_merged_tenants = 0

    def make_engine(self, url: URL, pool_size: int, wait_seconds: float) -> Engine:
        return sqlite_engine(url, pool_size, wait_seconds)

    def hold_snapshot(self, connection: Connection) -> None:
        """Every transaction has one."""

    def confirm(self, connection: Connection) -> None:
        connection.info[FILES].check(UNKNOWN_OUTCOME)

    def check_sessions(
        self, engine: Engine, url: URL, session_engine: Engine | None, session_url: URL | None
    ) -> bool:
        return False

    def describe(self, connection: Connection) -> ServerFacts:
        (version,) = connection.exec_driver_sql("SELECT sqlite_version()").one()
        number = tuple(map(int, version.split(".")))
        return ServerFacts(
            f"SQLite {version}", defect=_WAL_RESET if _has_wal_reset_defect(number) else None
        )

    def notify(self, connection: Connection, channel: str) -> None:
        """``wakeups`` tells of every write."""

    def can_wake(self, driver: Any) -> bool:
        return sqlite_wakeups.IS_SUPPORTED

    def wakeups(self, driver: Any, channel: str) -> Wakeups:
        return sqlite_wakeups.LogWrites(driver)

    def commits_of_others(self, driver: Any) -> int | None:
        ((data_version,),) = driver.execute("PRAGMA data_version").fetchall()
        return int(data_version)

    def take_row_ids(self, connection: Connection, table: str, count: int) -> int:
        # No other transaction writes meanwhile, and rows of these tables are never deleted.
        newest = connection.execute(select(func.max(METADATA.tables[table].c.id))).scalar()
        return int(newest or 0) + 1

    def insert_or_ignore(
        self, connection: Connection, table: type[Any], values: Mapping[str, Any]
    ) -> bool:
        new = sqlite.insert(table).values(values).on_conflict_do_nothing()
        key = table.__table__.primary_key.columns
        return connection.execute(new.returning(*key)).first() is not None

    def bulk_insert(
        self,
        connection: Connection,
        table: str,
        columns: Sequence[KeyedColumnElement[Any]],
        rows: Iterable[Sequence[Any]],
    ) -> None:
        names = ", ".join(column.key for column in columns)
        places = ", ".join("?" * len(columns))
        _execute_many(connection, f"INSERT INTO {table} ({names}) VALUES ({places})", rows)

    def insert_packed(
        self,
        connection: Connection,
        table: str,
        columns: Sequence[KeyedColumnElement[Any]],
        rows: PackedRows,
    ) -> None:
        self.bulk_insert(connection, table, columns, rows)

    def deck_change_seq(self, connection: Connection) -> int:
        driver: Any = connection.connection.driver_connection
        ((change_seq,),) = driver.execute(_DECK_CLOCK).fetchall()
        return int(change_seq)

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
        # No other transaction writes meanwhile.
        driver: Any = connection.connection.driver_connection
        tenants = json.dumps(list(tenant_ids))
        found = driver.execute(_FIND_TENANTS, (tenants,)).fetchall()
        extensions: list[tuple[Any, ...]] = []
        if extension_ids:
            wanted = json.dumps(list(extension_ids))
            extensions = driver.execute(_FIND_EXTENSIONS, (wanted,)).fetchall()
        ((change_seq, newest_id),) = driver.execute(_CLOCK_AND_NEWEST_CDR).fetchall()
        uploads = driver.execute(_FIND_UPLOAD, (upload_id,)).fetchall() if upload_id else []
        return HeldParties(
            {tenant_id for (tenant_id,) in found},
            [
                extension
                for row in extensions
                if (extension := ExtensionTuple(*row)).tenant_id in tenant_ids or not only_theirs
            ],
            int(change_seq),
            int(newest_id or 0) + 1,
            upload=uploads[0] if uploads else None,
        )

    def insert_cdrs(
        self,
        connection: Connection,
        rows: NewRows,
        first_id: int,
        *,
        is_first: bool,
        meanwhile: Callable[[], object] | None = None,
    ) -> int:
        # SQLite assigns the ids, from first_id on, and none to a row whose key is taken.
        shared = rows.shared_fields()
        inserted = begin = 0
        for size in _ROWS_OF_STATEMENT:
            end = len(rows) - (len(rows) - begin) % size
            if begin < end:
                once = shared if size > 1 else ()
                values = rows.tuples(begin, end, size, once)
                inserted += _execute_many(connection, _insert_cdrs(size, once), values)
            begin = end
        return inserted

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
        raise NotImplementedError("SQLite has no round trips to save")

    def add_upload_chunk(
        self, connection: Connection, chunk: Mapping[str, Any], *, hold_chain: bool
    ) -> tuple[None, None]:
        driver: Any = connection.connection.driver_connection
        driver.execute(_INSERT_CHUNK, chunk)
        driver.execute(_CHANGE_UPLOAD, chunk)
        return None, None

    def violates(self, error: IntegrityError, constraint: str) -> bool:
        # No other transaction writes meanwhile.
        return False

    def hold_ledger_chain(self, connection: Connection, *, of_calls: bool) -> LedgerHead:
        driver: Any = connection.connection.driver_connection
        wanted = (_OF_CALLS if of_calls else _OF_OTHERS,)
        ((chain, length, last_hash),) = driver.execute(_LEDGER_HEAD, wanted).fetchall()
        return chain, length, last_hash

    def add_ledger_entries(
        self,
        connection: Connection,
        entries: Sequence[Mapping[str, Any]],
        *,
        commits: bool = False,
    ) -> None:
        driver: Any = connection.connection.driver_connection
        for entry in entries:
            driver.execute(_INSERT_LEDGER_ENTRY, entry)
            driver.execute(_MOVE_LEDGER_HEAD, entry)

    def among(self, column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
        rows = func.json_each(json.dumps(list(values), ensure_ascii=False)).table_valued("value")
        return column.in_(select(rows.c.value))

    def listed(self, numbers: Sequence[int]) -> TableValuedAlias:
        return func.json_each(json.dumps(list(numbers))).table_valued("value")

    def is_subset(
        self, column: InstrumentedAttribute[str | None], allowed: str
    ) -> ColumnElement[bool]:
        of_column = func.json_each(column).table_valued("value")
        of_allowed = func.json_each(allowed).table_valued("value")
        others = select(of_column.c.value).where(
            of_column.c.value.not_in(select(of_allowed.c.value))
        )
        return column.is_not(None) & ~others.exists()

    def contains(self, column: TextColumn, term: str) -> ColumnElement[bool]:
        """Calls the folding of Python for texts that are not ASCII."""
        folded = fold(term)
        if not any(other_forms(char) for char in folded):
            return func.instr(column, folded) > 0
        in_ascii = (
            func.instr(func.lower(column), needle) > 0
            for needle, _ in needles(folded)
            if needle.isascii()
        )
        is_not_ascii = column.op("GLOB", is_comparison=True)("*[^\x01-\x7f]*")
        return case(
            (is_not_ascii, getattr(func, HOLDS_FUNCTION)(column, folded)),
            else_=or_(false(), *in_ascii),
        )

    def unlikely(self, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        return func.likelihood(condition, literal_column("0.000001"))

    def read_rows(self, connection: Connection, query: str, reader: RowReader[T]) -> T:
        driver: Any = connection.connection.driver_connection
        try:
            return _read_tuples(driver, query, reader)
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
        # The reader reports the text.
        with self.undecodable_texts(connection):
            return _read_tuples(driver, query, reader)

    @contextmanager
    def undecodable_texts(self, connection: Connection) -> Iterator[None]:
        driver: Any = connection.connection.driver_connection
        driver.text_factory = _with_surrogates
        try:
            yield
        finally:
            driver.text_factory = str

    def driver_rows(
        self, connection: Connection, query: str, values: Sequence[int]
    ) -> list[tuple[Any, ...]]:
        driver: Any = connection.connection.driver_connection
        with closing(driver.cursor()) as cursor:
            found: list[tuple[Any, ...]] = cursor.execute(query, values).fetchall()
        return found

    @contextmanager
    def parts(self, connection: Connection, query: str) -> Iterator[Iterator[RowsPart]]:
        # An expression that packs the rows into one text takes longer than to make the tuples.
        driver: Any = connection.connection.driver_connection
        with closing(driver.cursor()) as cursor:
            cursor.execute(query)
            yield iter(lambda: cursor.fetchmany(_PART_ROWS), [])

    def release_memory(self, connection: Connection) -> None:
        # A long query fills the page cache of its connection, which keeps the memory.
        connection.exec_driver_sql("PRAGMA shrink_memory")


@lru_cache(256)
def _insert_cdrs(rows: int, shared: tuple[str, ...]) -> str:
    """The statement that inserts ``rows`` rows. Its parameters are numbered: the values of the
    fields ``shared``, once, and then those of the other fields of each row."""
    numbers = count(1)
    of_shared = {name: next(numbers) for name in shared}
    values = (
        ", ".join(f"?{of_shared.get(name) or next(numbers)}" for name in ROW_FIELDS)
        for _ in range(rows)
    )
    return _INSERT_CDRS.format(", ".join(f"({row})" for row in values))


def _execute_many(connection: Connection, statement: str, rows: Iterable[Sequence[Any]]) -> int:
    """How many rows were inserted. Past SQLAlchemy, which takes only lists: ten thousand rows that
    live at once cost the garbage collector a third of the time of the insert."""
    cursor = connection.connection.cursor()
    try:
        cursor.executemany(statement, rows)  # type: ignore[arg-type]  # any iterable will do
        return cursor.rowcount
    finally:
        cursor.close()


def _read_tuples(driver: Any, query: str, reader: RowReader[T]) -> T:
    with closing(driver.cursor()) as cursor:
        return reader.tuples(cursor.execute(query))


def _with_surrogates(text: bytes) -> str:
    return text.decode(errors="surrogateescape")
