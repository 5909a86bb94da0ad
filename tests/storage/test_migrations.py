"""The migrations: their head is the schema, and every other state of a database has a name."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from tests.world import at_once
from tollwire.service.storage import ids
from tollwire.service.storage.engine import Database
from tollwire.service.storage.schema import migrate, triggers
from tollwire.service.storage.schema.all_tables import METADATA
from tollwire.service.storage.schema.migrate import SchemaError, prepare, upgrade

_COUNTERS = {"tenants", "extensions", "rate_versions", "uploads", "tokens"}
HEAD = migrate.newest()
NEXT = f"{int(HEAD) + 1:04}"
_GUARDED = (
    *("cdrs", "cdr_pricings", "cdr_reversals", "rate_versions", "tenant_versions"),
    *("upload_chunks", "ledger_entries", "ledger_heads", "tenants", "extensions", "tokens"),
    *("audit_entries", "rate_changes", "uploads"),
)


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Database]:
    database = Database(empty_database_url)
    yield database
    database.close()


@pytest.fixture
def next_release(tmp_path: Path) -> Path:
    """The migrations of a release that has one more."""
    folder = tmp_path / "migrations"
    shutil.copytree(Path(migrate.__file__).with_name("migrations"), folder)
    (folder / "versions" / f"{NEXT}_more.py").write_text(
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        f"revision = '{NEXT}'\n"
        f"down_revision = '{HEAD}'\n"
        "def upgrade():\n"
        "    op.create_table('more', sa.Column('id', sa.Integer(), primary_key=True))\n"
        # The triggers would refuse these deletions.
        "    op.execute('DELETE FROM rate_versions')\n"
        "    op.execute('DELETE FROM cdrs')\n"
    )
    return folder


def test_files_are_named_after_their_revisions_which_rise(next_release: Path) -> None:
    for folder, last in (
        (Path(migrate.__file__).with_name("migrations"), None),
        (next_release, NEXT),
    ):
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.set_main_option("path_separator", "os")
        head = ScriptDirectory.from_config(config).get_current_head()
        assert migrate.newest(folder) == head == (last or head)


def test_a_server_on_an_up_to_date_database_does_not_load_alembic(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/tollwire.db"
    script = (
        "import sys; from tollwire.service.storage.engine import Database\n"
        "from tollwire.service.process import composition as app\n"
        f"with app.build_application(app.Settings(database={url!r})):"
        " print('alembic' in sys.modules)"
    )
    for loads in ("True", "False"):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert (done.stdout.strip(), done.stderr) == (loads, "")


def _run(database: Database, *statements: str) -> None:
    with database.write() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def _tables(database: Database) -> set[str]:
    with database.read() as connection:
        return set(_structure(connection))


def _structure(connection: Connection) -> dict[str, list[str]]:
    """Each table with its complete definition, in the words of the database."""
    if connection.dialect.name == "sqlite":
        query = (
            "SELECT tbl_name, type, name, sql FROM sqlite_master WHERE type IN ('table','index')"
        )
    else:
        query = """
            SELECT relname, 'column', attname, attnum || format_type(atttypid, atttypmod)
                || attnotnull || coalesce(pg_get_expr(adbin, adrelid), '')
            FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0
            LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
            UNION ALL
            SELECT conrelid::regclass::text, 'constraint', conname, pg_get_constraintdef(oid)
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace
            UNION ALL
            SELECT tablename, 'index', indexname, indexdef FROM pg_indexes
            WHERE schemaname = 'public'
        """
    found: dict[str, list[str]] = {}
    for table, kind, name, definition in connection.exec_driver_sql(query):
        # A table that was renamed has its name in quotes.
        words = re.sub(r"\s+", " ", definition or "").replace('"', "").strip()
        if kind == "table":
            words = _in_order(words)
        found.setdefault(table, []).append(f"{kind} {name} {words}")
    found.pop("alembic_version", None)
    return {table: sorted(lines) for table, lines in found.items()}


def _in_order(statement: str) -> str:
    """SQLite keeps the text of the statement.

    The order of its constraints means nothing, nor does their position among the columns: a column
    that was added later stands after them.
    """
    head, _, body = statement.partition("(")
    parts, depth = [""], 0
    for character in body.strip().removesuffix(")"):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    columns = [part.strip() for part in parts if not part.strip().startswith("CONSTRAINT")]
    constraints = sorted(part.strip() for part in parts if part.strip().startswith("CONSTRAINT"))
    return "\n".join([head, *columns, *constraints])


def _sequences(connection: Connection) -> list[tuple[str, int, int]]:
    if connection.dialect.name == "sqlite":
        return []
    query = "SELECT sequencename, start_value, increment_by FROM pg_sequences ORDER BY 1"
    return [(name, start, step) for name, start, step in connection.exec_driver_sql(query)]


def test_head_equals_the_metadata(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, METADATA) == []


def test_head_is_the_schema_of_the_metadata(empty: Database) -> None:
    """Alembic does not compare CHECKs, conditions of indexes and more: the databases' own
    descriptions do."""
    with empty.write() as connection:
        METADATA.create_all(connection)
        created = _structure(connection), _sequences(connection)
        METADATA.drop_all(connection)
    prepare(empty)
    with empty.read() as connection:
        migrated = _structure(connection), _sequences(connection)
    assert migrated == created
    assert migrated[0].keys() == METADATA.tables.keys()


def test_all_triggers_exist(database: Database) -> None:
    kept = (*_GUARDED, "upload_failures")  # of which old ones are deleted
    expected = {(table, event) for table in _GUARDED for event in ("update", "delete")}
    expected |= {("upload_failures", "update")}
    expected |= {(table, "insert" if database.is_sqlite else "truncate") for table in kept}
    expected.add(("cdrs", "update_cdr_reversals"))
    expected.add(("cdrs", "insert"))
    expected.add(("tenants", "update_currency"))
    with database.read() as connection:
        names = triggers.installed(connection)
    assert names == sorted((f"tollwire_{table}_{event}", table) for table, event in expected)


def _switched_off(database: Database) -> list[tuple[str, str]]:
    """Remove or disable some triggers, as a tool that changes the record does."""
    _run(
        database,
        *(
            ["DROP TRIGGER tollwire_cdrs_delete", "DROP TRIGGER tollwire_cdrs_insert"]
            if database.is_sqlite
            else [
                "DROP TRIGGER tollwire_cdrs_delete ON cdrs",
                "ALTER TABLE cdrs DISABLE TRIGGER tollwire_cdrs_insert",
            ]
        ),
    )
    return [("tollwire_cdrs_delete", "cdrs"), ("tollwire_cdrs_insert", "cdrs")]


def test_a_start_logs_missing_triggers_and_a_migration_restores_them(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(database)
    assert not caplog.records
    off = _switched_off(database)
    with database.read() as connection:
        assert triggers.missing(connection) == off
    prepare(database)
    (line,) = caplog.messages
    assert "tollwire_cdrs_delete of cdrs, tollwire_cdrs_insert of cdrs" in line
    assert upgrade(database) == (HEAD, HEAD)
    with database.read() as connection:
        assert triggers.missing(connection) == []


def test_triggers_that_do_not_fire_for_the_role(empty: Database) -> None:
    if empty.is_sqlite:
        pytest.skip("SQLite has no such setting")
    prepare(empty)
    with empty.write() as connection:
        assert triggers.missing(connection) == []
        connection.exec_driver_sql("SET LOCAL session_replication_role = 'replica'")
        assert triggers.missing(connection) == triggers.installed(connection)


def test_an_empty_database_becomes_ready(empty: Database) -> None:
    prepare(empty)
    with empty.read() as connection:
        clock = connection.exec_driver_sql("SELECT id, change_seq FROM deck_clock").all()
        counters = connection.exec_driver_sql("SELECT name, next_id FROM id_counters").all()
    assert clock == [(1, 0)]
    assert set(counters) == {(name, 1) for name in _COUNTERS}


def test_a_ready_database_stays_as_it_is(database: Database) -> None:
    _run(database, "UPDATE deck_clock SET change_seq = 7")
    prepare(database)
    assert upgrade(database) == (HEAD, HEAD)
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT change_seq FROM deck_clock").scalar_one() == 7


def test_servers_that_start_at_once_on_an_empty_database(empty_database_url: str) -> None:
    databases = [Database(empty_database_url) for _ in range(4)]
    try:
        results = at_once(*(lambda one=one: prepare(one) for one in databases))
        assert results == [None] * 4
        assert _tables(databases[0]) == METADATA.tables.keys()
    finally:
        for one in databases:
            one.close()


def test_an_older_schema_needs_the_migration(database: Database, next_release: Path) -> None:
    with pytest.raises(
        SchemaError, match=rf"has schema {HEAD}, .* needs {NEXT}; .*: tollwire migrate"
    ):
        prepare(database, next_release)
    assert "more" not in _tables(database)


def test_a_worker_that_starts_after_an_upgrade_is_refused(
    database: Database, next_release: Path
) -> None:
    migrate.check(database)
    upgrade(database, next_release)
    with pytest.raises(SchemaError, match=rf"has schema {NEXT}, .* needs {HEAD}"):
        migrate.check(database)


def test_the_revision_of_this_release_does_not_change_with_its_files(tmp_path: Path) -> None:
    versions = tmp_path / "versions"
    versions.mkdir()
    (versions / "0001_first.py").touch()
    assert migrate.newest(tmp_path) == "0001"
    (versions / "0002_of_the_next_release.py").touch()
    assert migrate.newest(tmp_path) == "0001"


def test_upgrade_brings_an_older_schema_to_the_head(database: Database, next_release: Path) -> None:
    with database.read() as connection:
        before = triggers.installed(connection)
    assert upgrade(database, next_release) == (HEAD, NEXT)
    assert "more" in _tables(database)
    with database.read() as connection:
        assert triggers.installed(connection) == before
    prepare(database, next_release)


def test_upgrade_creates_the_schema_in_an_empty_database(empty: Database) -> None:
    assert upgrade(empty) == (None, HEAD)
    prepare(empty)


def test_ids_continue_after_every_block_of_a_worker(empty: Database) -> None:
    """Schema 0001 gave each worker a block of a million ids, of which most may still be unused."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    with empty.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        if not empty.is_sqlite:
            for _ in range(3):
                connection.exec_driver_sql("SELECT nextval('cdrs_id_blocks')")
    upgrade(empty)
    with empty.write() as connection:
        first = [ids.take_rows(connection, table, 2) for table in ("cdrs", "cdr_reversals")]
    assert first == [1 if empty.is_sqlite else 3_000_001, 1]


def test_a_newer_schema_is_not_touched(database: Database, next_release: Path) -> None:
    upgrade(database, next_release)
    for start in (prepare, upgrade):
        with pytest.raises(
            SchemaError, match=f"has schema {NEXT}, which this release does not know"
        ):
            start(database)


def test_a_database_of_something_else_is_not_touched(empty: Database) -> None:
    _run(empty, "CREATE TABLE invoices (id INTEGER)")
    for start in (prepare, upgrade):
        with pytest.raises(SchemaError, match=r"something else \(invoices\)"):
            start(empty)
    assert _tables(empty) == {"invoices"}


def test_a_migration_that_fails_leaves_nothing_behind(
    database: Database, next_release: Path
) -> None:
    with database.read() as connection:
        before = triggers.installed(connection)
    with (next_release / "versions" / f"{NEXT}_more.py").open("a") as script:
        script.write("    op.execute('SELECT nothing FROM nowhere')\n")
    with pytest.raises(Exception, match="nowhere"):
        upgrade(database, next_release)
    assert "more" not in _tables(database)
    prepare(database)
    with database.read() as connection:
        assert triggers.installed(connection) == before
