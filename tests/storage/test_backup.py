"""Copies of an SQLite database: complete, private, and never over an existing file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tollwire.service.cli.main import main
from tollwire.service.storage.backup import BackupError, copy


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source.db"


@pytest.fixture
def writer(source: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(source, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE kept (id INTEGER PRIMARY KEY)")
    connection.execute("INSERT INTO kept VALUES (1)")
    return connection


def rows(path: Path) -> list[int]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM kept ORDER BY id")]


def test_only_committed_rows_are_copied(
    source: Path, writer: sqlite3.Connection, tmp_path: Path
) -> None:
    target = tmp_path / "copy.db"
    with contextlib.closing(writer):
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO kept VALUES (2)")
        size_bytes = copy(f"sqlite:///{source}", target)
        writer.execute("COMMIT")
    assert rows(target) == [1]
    assert rows(source) == [1, 2]
    assert target.stat().st_size == size_bytes
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"source.db", "copy.db"}, "one file, and no other beside it"


def test_no_file_is_overwritten(source: Path, writer: sqlite3.Connection, tmp_path: Path) -> None:
    writer.close()
    target = tmp_path / "copy.db"
    target.write_text("of yesterday")
    with pytest.raises(BackupError, match="is there already"):
        copy(f"sqlite:///{source}", target)
    assert target.read_text() == "of yesterday"
    target.rename(tmp_path / "copy.db.partial")
    with pytest.raises(BackupError, match="another backup"):
        copy(f"sqlite:///{source}", target)
    assert (tmp_path / "copy.db.partial").read_text() == "of yesterday"


@pytest.mark.parametrize("what", ["absent", "rubbish"])
def test_a_failed_copy_of_no_database_leaves_no_file(
    source: Path, tmp_path: Path, what: str
) -> None:
    if what == "rubbish":
        source.write_bytes(b"no database" * 1000)
    target = tmp_path / "copy.db"
    words = "cannot be copied" if what == "rubbish" else f"the file {source} does not exist"
    with pytest.raises(BackupError, match=words):
        copy(f"sqlite:///{source}", target)
    assert not target.exists()
    assert not list(tmp_path.glob("*.partial*"))
    assert source.exists() is (what == "rubbish"), "an empty database must not be created"


def test_a_missing_folder(source: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="cannot write"):
        copy(f"sqlite:///{source}", tmp_path / "nowhere" / "copy.db")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["backup", *arguments], env=dict(os.environ))


def test_the_command(source: Path, writer: sqlite3.Connection, tmp_path: Path) -> None:
    writer.close()
    target = tmp_path / "copy.db"
    done = run(str(target), "--database", f"sqlite:///{source}")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"tollwire: the database was copied to {target} (")
    again = run(str(target), "--database", f"sqlite:///{source}")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "is there already" in again.stderr
    other = run(str(tmp_path / "x"), "--database", "postgresql+psycopg://localhost/tollwire")
    assert other.exit_code == 1
    assert "pg_dump" in other.stderr
