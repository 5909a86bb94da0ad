"""Layouts of the table of CDRs, each as its differences from the present one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Column, MetaData, Table
from sqlalchemy.schema import CreateTable

from benchmarks.databases import dialect, index_statements, table_of
from benchmarks.filling import SPAN_SECONDS
from benchmarks.workload import STARTED_AT_S
from tollwire.service.storage.cdr_rows import ROW_FIELDS
from tollwire.service.storage.schema.record_tables import CdrRow

PARTS = 13  # the months of the filled year, and that of later rows
_PART_NS = SPAN_SECONDS // (PARTS - 1) * 10**9
_FIRST_NS = (STARTED_AT_S - SPAN_SECONDS) * 10**9


@dataclass(frozen=True, slots=True)
class Layout:
    """One layout.

    ``without`` and ``indexes`` change a table in place, ``settings`` the connection to it. A layout
    that needs another table has its statements in ``tables``. ``keyed``: a table of keys keeps
    call_ids unique.
    """

    name: str
    without: tuple[str, ...] = ()
    indexes: tuple[tuple[str, str], ...] = ()  # name, definition
    settings: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    keyed: bool = False
    hashed: bool = False

    @property
    def rebuilt(self) -> bool:
        return bool(self.tables)


def table(kind: str, names: Sequence[str] = ()) -> str:
    """The table without checks and secondary indexes; its columns in the order of ``names``."""
    original = table_of(CdrRow)
    columns = [original.c[name] for name in names or original.c.keys()]
    bare = [
        Column(
            one.name,
            one.type,
            primary_key=one.primary_key,
            nullable=one.nullable,
            autoincrement=False,
        )
        for one in columns
    ]
    return str(CreateTable(Table("cdrs", MetaData(), *bare)).compile(dialect=dialect(kind)))


def layouts(kind: str) -> list[Layout]:
    made = index_statements(kind)
    each = [Layout(f"without {name}", without=(name,)) for name in made]
    ends = {name: sql for name, sql in made.items() if "started_at_ns, id)" in sql}
    shorter = Layout(
        "no id at the end of the indexes",
        without=tuple(ends),
        indexes=tuple(
            (f"{name}_other", sql.replace(name, f"{name}_other").replace(", id)", ")"))
            for name, sql in ends.items()
        ),
    )
    return [*each, shorter, *(_sqlite() if kind == "sqlite" else _postgresql())]


def _postgresql() -> list[Layout]:
    call = "CREATE UNIQUE INDEX uq_other ON cdrs"
    started = "ix_cdrs_started"
    return [
        Layout(
            "a hash of call_id as uuid",
            without=("uq_cdrs_call",),
            indexes=(("uq_other", f"{call} (tenant_id, (md5(call_id)::uuid))"),),
        ),
        Layout(
            "BRIN on started_at_ns",
            without=(started,),
            indexes=(("ix_brin", "CREATE INDEX ix_brin ON cdrs USING brin (started_at_ns)"),),
        ),
        Layout(
            "columns in the order of a call", tables=(table("postgresql", ("id", *ROW_FIELDS)),)
        ),
        Layout("months as partitions, a table of keys", tables=_partitioned(), keyed=True),
    ]


def _partitioned() -> tuple[str, ...]:
    head, _, tail = table("postgresql").rpartition("PRIMARY KEY (id)")
    bounds = [_FIRST_NS + n * _PART_NS for n in range(PARTS)]
    limits = [("MINVALUE", str(bounds[1]))]
    limits += [(str(low), str(low + _PART_NS)) for low in bounds[1:-1]]
    limits += [(str(bounds[-1]), "MAXVALUE")]
    return (
        f"{head}PRIMARY KEY (id, started_at_ns){tail.rstrip()} PARTITION BY RANGE (started_at_ns)",
        *(
            f"CREATE TABLE cdrs_{n} PARTITION OF cdrs FOR VALUES FROM ({low}) TO ({high})"
            for n, (low, high) in enumerate(limits)
        ),
        "CREATE TABLE cdr_keys (tenant_id BIGINT NOT NULL, call_id TEXT NOT NULL,"
        " cdr_id BIGINT NOT NULL)",
    )


def _sqlite() -> list[Layout]:
    plain = table("sqlite")
    return [
        *(
            Layout(f"cache of {size} MiB", settings=(f"cache_size = {-1024 * size}",))
            for size in (16, 256, 1024)
        ),
        *(
            Layout(f"checkpoint each {pages} pages", settings=(f"wal_autocheckpoint = {pages}",))
            for pages in (10_000, 100_000)
        ),
        Layout("secure_delete off", settings=("secure_delete = OFF",)),
        *(
            Layout(f"pages of {size} bytes", tables=(f"PRAGMA page_size = {size}", plain))
            for size in (8192, 16384)
        ),
        Layout(
            "a hash of call_id as blob",
            tables=(plain.replace("call_id TEXT", "call_hash BLOB NOT NULL, call_id TEXT"),),
            hashed=True,
        ),
        Layout(
            "WITHOUT ROWID, by tenant and start",
            tables=(
                plain.replace("PRIMARY KEY (id)", "PRIMARY KEY (tenant_id, started_at_ns, id)")
                + " WITHOUT ROWID",
                "CREATE UNIQUE INDEX ix_id ON cdrs (id)",
            ),
            without=("ix_cdrs_tenant_started",),
        ),
    ]
