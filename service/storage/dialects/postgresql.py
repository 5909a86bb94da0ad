"""PostgreSQL: row locks, COPY, notifications, and ids from sequences."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import reduce
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGresult
from sqlalchemy import (
    ARRAY,
    URL,
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    SmallInteger,
    TableValuedAlias,
    Text,
    any_,
    cast,
    func,
    literal,
    or_,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.elements import KeyedColumnElement

from tollwire.service.domain.case_folding import DOTTED_I, fold, needles, other_forms
from tollwire.service.storage.cdr_rows import ROW_FIELDS, NewRows, RowReader
from tollwire.service.storage.dialects import postgresql_sessions
from tollwire.service.storage.dialects.base import (
    CDR_COLUMNS,
    CHANGES_OF_UPLOAD,
    CHUNK_COLUMNS,
    LEDGER_COLUMNS,
    UPLOAD_COLUMNS,
    Dialect,
    ExtensionTuple,
    HeldParties,
    KeyTaken,
    LedgerHead,
    PackedRows,
    RowsPart,
    ServerFacts,
    TextColumn,
    Wakeups,
)
from tollwire.service.storage.dialects.postgresql_connection import postgresql_engine, run_steps
from tollwire.service.storage.dialects.postgresql_copy import copy_out, copy_out_parts
from tollwire.service.storage.dialects.postgresql_pipeline import (
    Step,
    int8,
    int8_array,
    int_of,
    prepared,
)
from tollwire.service.storage.dialects.postgresql_wakeups import Notifications
from tollwire.service.storage.failures import committing
from tollwire.service.storage.schema.record_tables import ROW_IDS, CdrRow, LedgerEntryRow

T = TypeVar("T")

_COPY_CDRS = f"COPY cdrs (id, {CDR_COLUMNS}) FROM STDIN (FORMAT BINARY)"
_COPY_TYPES = {
    BigInteger: "int8",
    Integer: "int4",
    SmallInteger: "int2",
    Text: "text",
    LargeBinary: "bytea",
    Boolean: "bool",
}

# Every transaction that records a call runs these, most of them in postgresql_pipeline.
_HOLD_TENANTS = prepared(
    b"SELECT id FROM tenants WHERE id = ANY($1::bigint[]) ORDER BY id FOR KEY SHARE"
)
_HOLD_EXTENSIONS = prepared(
    b"SELECT id, tenant_id, number, name FROM extensions WHERE id = ANY($1::bigint[])"
    b" AND ($2::bigint[] IS NULL OR tenant_id = ANY($2::bigint[])) ORDER BY id FOR KEY SHARE"
)
_HOLD_UPLOAD = prepared(
    f"SELECT {', '.join(UPLOAD_COLUMNS)} FROM uploads WHERE id = $1::bigint FOR UPDATE".encode()
)
_DECK_CLOCK = prepared(b"SELECT change_seq FROM deck_clock")
_TAKE_CDR_IDS = prepared(f"SELECT tollwire_take_ids('{ROW_IDS['cdrs'].name}', $1::bigint)".encode())
_TAKE_IDS = "SELECT tollwire_take_ids(%s::regclass, %s)"
_COMMIT = b"COMMIT"
_SAVEPOINT = "SAVEPOINT before_cdrs"
_TO_SAVEPOINT = f"ROLLBACK TO {_SAVEPOINT}"
_LEDGER_HEADS = "SELECT chain, length, hash FROM ledger_heads"
# The chains of the record of calls, and those of everything else.
_CHAINS_OF = {True: "chain < 16", False: "chain >= 16"}
_FREE_LEDGER_HEAD = {
    of_calls: prepared(
        f"{_LEDGER_HEADS} WHERE {chains} ORDER BY chain LIMIT 1 FOR UPDATE SKIP LOCKED".encode()
    )
    for of_calls, chains in _CHAINS_OF.items()
}
_ANY_LEDGER_HEAD = {
    of_calls: f"{_LEDGER_HEADS} WHERE {chains} ORDER BY random() LIMIT 1 FOR UPDATE".encode()
    for of_calls, chains in _CHAINS_OF.items()
}
_ADD_LEDGER_ENTRY = (
    "WITH moved AS"
    " (UPDATE ledger_heads SET length = {seq}, hash = {hash} WHERE chain = {chain})"
    f" INSERT INTO ledger_entries ({', '.join(LEDGER_COLUMNS)})"
    f" VALUES ({', '.join(f'{{{name}}}' for name in LEDGER_COLUMNS)})"
)
_LEDGER_NUMBERED = {
    column.key: f"${number}::{'bytea' if isinstance(column.type, LargeBinary) else 'bigint'}"
    for number, column in enumerate(LedgerEntryRow.__table__.columns, 1)
}
_ADD_LEDGER_ENTRY_NUMBERED = prepared(_ADD_LEDGER_ENTRY.format_map(_LEDGER_NUMBERED).encode())
# The parameters of a chunk, and of its upload. One statement is planned once.
_CHUNK_VALUES = (*CHUNK_COLUMNS, "duration_seconds", "now_ns", "chunks_hash")
_CHUNK_BYTES = ("digest", "record_digests", "chunks_hash")
_ADD_CHUNK = (
    f"WITH changed AS (UPDATE uploads SET {CHANGES_OF_UPLOAD} WHERE id = {{upload_id}})"
    f" INSERT INTO upload_chunks ({', '.join(CHUNK_COLUMNS)})"
    f" VALUES ({', '.join(f'{{{name}}}' for name in CHUNK_COLUMNS)})"
)
_CHUNK_NUMBERED = {
    name: f"${number}::{'bytea' if name in _CHUNK_BYTES else 'bigint'}"
    for number, name in enumerate(_CHUNK_VALUES, 1)
}
_ADD_CHUNK_NUMBERED = prepared(_ADD_CHUNK.format_map(_CHUNK_NUMBERED).encode())
# A COPY needs two round trips of its own, and an INSERT takes longer than a COPY from some hundred
# rows on.
_MOST_INSERTED_ROWS = 100
_CDR_ARRAYS = ", ".join(
    f"${number}::{_COPY_TYPES[type(CdrRow.__table__.c[name].type)]}[]"
    for number, name in enumerate(("id", *ROW_FIELDS), 1)
)
_INSERT_CDRS = prepared(
    f"INSERT INTO cdrs (id, {CDR_COLUMNS}) SELECT * FROM unnest({_CDR_ARRAYS})".encode()
)
# Another transaction may insert the same key, and then need the chain that this one holds. This one
# gives up before the database looks for deadlocks, which it does after a second, and lets go of the
# chain.
_WAIT_BRIEFLY = b"SET LOCAL lock_timeout = '250ms'"


class PostgreSQL(Dialect):
    name = "postgresql"
    has_one_writer = False
    least_poll_seconds = 0.02
    # PostgreSQL would read the rows of all tenants in order and leave out most of them, and all
    # rows if these tenants called long ago or never. With more tenants a statement is planned for
    # longer than it runs.
    most_merged_tenants = 50

    def make_engine(self, url: URL, pool_size: int, wait_seconds: float) -> Engine:
        return postgresql_engine(url, pool_size, wait_seconds)

    def hold_snapshot(self, connection: Connection) -> None:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    def confirm(self, connection: Connection) -> None:
        """The server answers for it."""

    def check_sessions(
        self, engine: Engine, url: URL, session_engine: Engine | None, session_url: URL | None
    ) -> bool:
        return postgresql_sessions.check(engine, url, session_engine, session_url)

    def describe(self, connection: Connection) -> ServerFacts:
        return ServerFacts(
            f"PostgreSQL {_shown(connection, 'server_version').split()[0]}",
            _clock_ahead_seconds(connection),
            int(_shown(connection, "max_connections")),
            tuple(
                setting
                for setting in ("fsync", "full_page_writes", "synchronous_commit")
                if _shown(connection, setting) == "off"
            ),
        )

    def notify(self, connection: Connection, channel: str) -> None:
        connection.exec_driver_sql(f"NOTIFY {channel}")

    def can_wake(self, driver: Any) -> bool:
        return not driver.is_pooled

    def wakeups(self, driver: Any, channel: str) -> Wakeups:
        return Notifications(driver, channel)

    def commits_of_others(self, driver: Any) -> int | None:
        return None

    def take_row_ids(self, connection: Connection, table: str, count: int) -> int:
        # A function of the database: one round trip, and no other transaction comes in between.
        return _scalar(_driver(connection).execute(_TAKE_IDS, (ROW_IDS[table].name, count)))

    def insert_or_ignore(
        self, connection: Connection, table: type[Any], values: Mapping[str, Any]
    ) -> bool:
        new = postgresql.insert(table).values(values).on_conflict_do_nothing()
        key = table.__table__.primary_key.columns
        return connection.execute(new.returning(*key)).first() is not None

    def bulk_insert(
        self,
        connection: Connection,
        table: str,
        columns: Sequence[KeyedColumnElement[Any]],
        rows: Iterable[Sequence[Any]],
    ) -> None:
        with _driver(connection).cursor() as cursor, cursor.copy(_copy_in(table, columns)) as copy:
            copy.set_types([_COPY_TYPES[type(column.type)] for column in columns])
            for row in rows:
                copy.write_row(row)

    def insert_packed(
        self,
        connection: Connection,
        table: str,
        columns: Sequence[KeyedColumnElement[Any]],
        rows: PackedRows,
    ) -> None:
        with _driver(connection).cursor() as cursor, cursor.copy(_copy_in(table, columns)) as copy:
            while part := rows.copy_part():
                copy.write(part)

    def deck_change_seq(self, connection: Connection) -> int:
        (clock,) = run_steps(connection, [(_DECK_CLOCK, [])])
        return int_of(clock.get_value(0, 0))

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
        tenants = int8_array(sorted(tenant_ids))
        steps: list[Step] = [(_HOLD_UPLOAD, [int8(upload_id)])] if upload_id else []
        steps.append((_HOLD_TENANTS, [tenants]))
        if extension_ids:
            owners = tenants if only_theirs else None
            steps.append((_HOLD_EXTENSIONS, [int8_array(sorted(extension_ids)), owners]))
        # Each statement sees what was committed before it begins: the clock is read when the locks
        # are held.
        steps += [
            (_DECK_CLOCK, []),
            (_TAKE_CDR_IDS, [int8(cdr_count)]),
            (_SAVEPOINT.encode(), []),
        ]
        is_small = cdr_count <= _MOST_INSERTED_ROWS
        if is_small:
            steps += [(_WAIT_BRIEFLY, []), (_FREE_LEDGER_HEAD[True], [])]
            if upload_id:
                steps.append((_FREE_LEDGER_HEAD[False], []))
        results = run_steps(connection, steps)
        upload = results.pop(0) if upload_id else None
        of_others = results.pop() if is_small and upload_id else None
        held, *others = results
        extensions = others.pop(0) if extension_ids else None
        clock, ids = others[:2]
        head = others[-1] if is_small else None
        return HeldParties(
            {int_of(held.get_value(row, 0)) for row in range(held.ntuples)},
            [] if extensions is None else _extensions(extensions),
            int_of(clock.get_value(0, 0)),
            int_of(ids.get_value(0, 0)),
            None if head is None or not head.ntuples else _ledger_head(head),
            None if upload is None or not upload.ntuples else _upload(upload),
            None if of_others is None or not of_others.ntuples else _ledger_head(of_others),
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
        """COPY is the fastest way, but one taken key refuses all rows. Few chunks have one."""
        driver = _driver(connection)
        if not is_first:
            driver.execute(_SAVEPOINT)
        try:
            with driver.cursor() as cursor, cursor.copy(_COPY_CDRS) as copy:
                data = memoryview(rows.copy_data(first_id))
                half = len(data) // 2
                copy.write(data[:half])
                if meanwhile is not None:
                    # The server has what the socket holds: some milliseconds of work.
                    meanwhile()
                copy.write(data[half:])
        except psycopg.errors.UniqueViolation as error:
            driver.execute(_TO_SAVEPOINT)
            raise KeyTaken from error
        return len(rows)

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
        steps: list[Step] = [(_INSERT_CDRS, rows.column_arrays(first_id)), _add_entry(entry)]
        if chunk is not None:
            steps.append((_ADD_CHUNK_NUMBERED, _packed(chunk, _CHUNK_VALUES)))
            steps.append(_add_entry(chunk["entry"]))
        try:
            if commits:
                _run_and_commit(connection, steps)
            else:
                run_steps(connection, steps)
        except (psycopg.errors.UniqueViolation, psycopg.errors.LockNotAvailable):
            # The chain was locked after the savepoint.
            _driver(connection).execute(_TO_SAVEPOINT)
            return False
        return True

    def add_upload_chunk(
        self, connection: Connection, chunk: Mapping[str, Any], *, hold_chain: bool
    ) -> tuple[LedgerHead | None, LedgerHead | None]:
        wanted = (True, False) if hold_chain else (False,)
        steps: list[Step] = [(_ADD_CHUNK_NUMBERED, _packed(chunk, _CHUNK_VALUES))]
        steps += [(_FREE_LEDGER_HEAD[of_calls], []) for of_calls in wanted]
        _, *heads = run_steps(connection, steps)
        *of_calls, of_others = (_ledger_head(head) if head.ntuples else None for head in heads)
        return of_calls[0] if of_calls else None, of_others

    def violates(self, error: IntegrityError, constraint: str) -> bool:
        cause = error.orig
        return (
            isinstance(cause, psycopg.errors.UniqueViolation)
            and cause.diag.constraint_name == constraint
        )

    def hold_ledger_chain(self, connection: Connection, *, of_calls: bool) -> LedgerHead:
        (head,) = run_steps(connection, [(_FREE_LEDGER_HEAD[of_calls], [])])
        if not head.ntuples:
            (head,) = run_steps(connection, [(_ANY_LEDGER_HEAD[of_calls], [])])
        assert head.ntuples, "the schema has ledger_heads filled"
        return _ledger_head(head)

    def add_ledger_entries(
        self,
        connection: Connection,
        entries: Sequence[Mapping[str, Any]],
        *,
        commits: bool = False,
    ) -> None:
        add = _run_and_commit if commits else run_steps
        add(connection, [_add_entry(entry) for entry in entries])

    def among(self, column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
        return column == any_(literal(list(values), ARRAY(column.type)))

    def listed(self, numbers: Sequence[int]) -> TableValuedAlias:
        array = literal(list(numbers), ARRAY(BigInteger))
        return func.unnest(array).table_valued("value").render_derived()

    def is_subset(
        self, column: InstrumentedAttribute[str | None], allowed: str
    ) -> ColumnElement[bool]:
        is_subset: ColumnElement[bool] = cast(column, JSONB).contained_by(
            cast(literal(allowed), JSONB)
        )
        return is_subset

    def contains(self, column: TextColumn, term: str) -> ColumnElement[bool]:
        """Replaces the characters whose folded form contains a character of the term."""
        folded = fold(term)
        if not any(other_forms(char) for char in folded):
            return func.strpos(column, folded) > 0
        folding = _folding(column, folded)
        undotted = func.replace(folding, DOTTED_I, "i")
        return or_(
            *(
                func.strpos(undotted if is_undotted else folding, needle) > 0
                for needle, is_undotted in needles(folded)
            )
        )

    def unlikely(self, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        return condition

    def read_rows(self, connection: Connection, query: str, reader: RowReader[T]) -> T:
        return reader.copy(copy_out(_driver(connection), query))

    def undecodable_texts(self, connection: Connection) -> nullcontext[None]:
        # PostgreSQL refuses to store them.
        return nullcontext()

    def driver_rows(
        self, connection: Connection, query: str, values: Sequence[int]
    ) -> list[tuple[Any, ...]]:
        with closing(_driver(connection).cursor(binary=True)) as cursor:
            cursor.execute(query.replace("?", "%s"), values)
            return cursor.fetchall()

    def parts(
        self, connection: Connection, query: str
    ) -> AbstractContextManager[Iterator[RowsPart]]:
        return copy_out_parts(_driver(connection), query)

    def release_memory(self, connection: Connection) -> None:
        """The server holds no rows for a connection, and the driver none after a query."""


def _driver(connection: Connection) -> psycopg.Connection[Any]:
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    return driver


def _run_and_commit(connection: Connection, steps: Sequence[Step]) -> None:
    """Run the last statements of the transaction and commit in one round trip. The server does not
    commit if one of them fails; the transaction can then go on from a savepoint."""
    with committing(connection) as commit:
        try:
            run_steps(connection, [*steps, (_COMMIT, [])])
        except psycopg.Error:
            # In any other state the commit may have been done.
            commit.is_known = (
                _driver(connection).info.transaction_status == TransactionStatus.INERROR
            )
            raise


def _packed(values: Mapping[str, Any], names: Sequence[str]) -> list[bytes | None]:
    """Bytes, integers and NULLs as parameters."""
    return [
        value if value is None or isinstance(value, bytes) else int8(value)
        for value in map(values.__getitem__, names)
    ]


# Of the columns of an upload that are not integers.
_UPLOAD_TYPES: dict[str, Callable[[bytes], Any]] = {
    "scope_tenant_ids": bytes.decode,
    "chunks_hash": bytes,
}


def _upload(found: PGresult) -> tuple[Any, ...]:
    """The row by UPLOAD_COLUMNS."""
    return tuple(
        _UPLOAD_TYPES.get(name, int_of)(value)
        if (value := found.get_value(0, at)) is not None
        else None
        for at, name in enumerate(UPLOAD_COLUMNS)
    )


def _extensions(found: PGresult) -> list[ExtensionTuple]:
    rows = [[found.get_value(row, column) for column in range(4)] for row in range(found.ntuples)]
    return [
        ExtensionTuple(int_of(id_), int_of(tenant_id), _text_of(number), _text_of(name))
        for id_, tenant_id, number, name in rows
    ]


def _text_of(value: bytes | None) -> str:
    assert value is not None
    return value.decode()


def _add_entry(entry: Mapping[str, Any]) -> Step:
    return _ADD_LEDGER_ENTRY_NUMBERED, _packed(entry, LEDGER_COLUMNS)


def _ledger_head(found: PGresult) -> LedgerHead:
    last_hash = found.get_value(0, 2)
    assert last_hash is not None
    return int_of(found.get_value(0, 0)), int_of(found.get_value(0, 1)), last_hash


def _copy_in(table: str, columns: Sequence[KeyedColumnElement[Any]]) -> str:
    names = ", ".join(column.key for column in columns)
    return f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)"


def _scalar(cursor: psycopg.Cursor[Any]) -> int:
    ((value,),) = cursor.fetchall()
    return int(value)


def _folding(column: TextColumn, folded_term: str) -> TextColumn:
    """``fold`` of a column as far as a term needs it: a character whose folded form has none of the
    term's characters cannot be part of a match."""
    forms = sorted({form for char in folded_term for form in other_forms(char)})
    single = [form for form in forms if len(fold(form)) == 1]
    folding = reduce(
        lambda text, form: func.replace(text, form, fold(form)),
        (form for form in forms if len(fold(form)) > 1),
        column,
    )
    return func.translate(folding, "".join(single), "".join(map(fold, single)))


def _clock_ahead_seconds(connection: Connection) -> float:
    before = time.time()
    (there,) = connection.exec_driver_sql(
        "SELECT extract(epoch FROM clock_timestamp())::float8"
    ).one()
    return float(there) - (before + time.time()) / 2


def _shown(connection: Connection, setting: str) -> str:
    return str(connection.exec_driver_sql(f"SHOW {setting}").scalar_one())
