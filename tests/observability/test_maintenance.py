"""The metrics of certificates, backups and the database's size."""

from __future__ import annotations

import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.databases import FreshDatabases
from tests.integration.serving import ServerProcess
from tests.observability.scraping import Scrape, metrics_address, wait_until
from tests.rpc.authority import Authority
from tollwire.service.cli.main import main
from tollwire.service.observability.metrics.database_size import (
    DatabaseSize,
    Size,
    last_backup_seconds,
)
from tollwire.service.settings.certificates import load, valid_until
from tollwire.service.settings.config import Settings
from tollwire.service.settings.pem_files import server_files
from tollwire.service.storage.engine import Database


def test_certificates_and_backups_of_a_server(
    secured: ServerProcess, observed: ServerProcess
) -> None:
    address = metrics_address(secured)
    wait_until(lambda: Scrape(address).all("tollwire_database_bytes") != [])
    found = Scrape(address)
    day = 86_400
    name = "tollwire_certificate_expiry_time_seconds"
    ((_, server),) = found.all(name, certificate="server")
    ((_, client_ca),) = found.all(name, certificate="client_ca")
    assert 58 * day < server - time.time() < 61 * day
    assert 88 * day < client_ca - time.time() < 91 * day
    ((_, backed_up),) = found.all("tollwire_backup_last_success_time_seconds")
    assert 0 <= time.time() - backed_up < 600
    assert found.sum("tollwire_database_bytes", part="main") >= 4096
    assert found.sum("tollwire_database_bytes") > 50_000, "the last commit is in the log"
    assert found.sum("tollwire_database_disk_free_bytes") > 0
    plain = Scrape(metrics_address(observed))
    assert plain.all(name) == []
    assert plain.sum("tollwire_backup_last_success_time_seconds") == 0


def test_the_size_is_the_databases_own(database: Database, database_url: str) -> None:
    size = DatabaseSize(database, database_url)
    found: list[Size] = []

    def looked() -> bool:
        found[:] = filter(None, [size.latest()])
        return bool(found)

    wait_until(looked)
    if database.is_sqlite:
        file = Path(database_url.removeprefix("sqlite:///"))
        assert found[0].bytes_by_part["main"] == file.stat().st_size
        assert set(found[0].bytes_by_part) == {"main", "wal"}
        assert (found[0].disk_free_bytes or 0) > 0
    else:
        with database.read() as connection:
            asked = connection.exec_driver_sql("SELECT pg_database_size(current_database())")
            assert abs(found[0].bytes_by_part["main"] - asked.scalar_one()) < 2**24
        assert found[0].disk_free_bytes is None


def test_the_first_authority_to_expire_counts(tmp_path: Path) -> None:
    first, second = Authority(), Authority()
    now = datetime.now(UTC)
    cert, key = first.issue("x", valid_until=now + timedelta(days=10)).write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(first.pem + second.pem)
    settings = Settings(
        tls_cert_file=cert, tls_key_file=key, tls_client_ca_file=tmp_path / "ca.pem"
    )
    found = valid_until(load(server_files(settings)))
    assert set(found) == {"server", "client_ca"}
    assert timedelta(days=9) < found["server"] - now < timedelta(days=11)


@pytest.fixture
def url(databases: FreshDatabases, tmp_path: Path) -> str:
    copy = tmp_path / "x.db"
    shutil.copy(databases.create("sqlite").removeprefix("sqlite:///"), copy)
    return f"sqlite:///{copy}"


def backup(url: str, *arguments: str) -> int:
    return CliRunner().invoke(main, ["backup", "--database", url, *arguments]).exit_code


def test_a_backup_is_recorded_when_it_is_complete(url: str, tmp_path: Path) -> None:
    record = tmp_path / "x.db.last-backup"
    assert last_backup_seconds(record) == 0
    assert backup(url, str(tmp_path / "none" / "copy.db")) == 1
    assert not record.exists()
    assert backup(url, str(tmp_path / "copy.db")) == 0
    assert abs(time.time() - last_backup_seconds(record)) < 60
    assert str(tmp_path / "copy.db") in record.read_text()
    os.utime(record, (1000, 1000))
    assert backup(url, str(tmp_path / "copy.db")) == 1  # it exists
    assert last_backup_seconds(record) == 1000


def test_a_backup_into_a_folder_gets_a_name_of_its_own(url: str, tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    record = tmp_path / "record"
    assert backup(url, str(tmp_path / "backups"), "--backup-record-file", str(record)) == 0
    (copy,) = (tmp_path / "backups").iterdir()
    assert copy.name.startswith("tollwire-") and copy.suffix == ".db"
    assert str(copy) in record.read_text()
    assert not (tmp_path / "x.db.last-backup").exists()


def test_where_backups_are_recorded() -> None:
    assert Settings(database="sqlite:////a/b.db").backup_record == Path("/a/b.db.last-backup")
    assert Settings(database="postgresql+psycopg://x@y/z").backup_record is None
    other = Settings(database="postgresql+psycopg://x@y/z", backup_record_file="/a/c")
    assert other.backup_record == Path("/a/c")
