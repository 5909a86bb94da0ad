"""The findings of tollwire doctor: for a sound installation, and for each part with a defect."""

from __future__ import annotations

import resource
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from tests.rpc.authority import Authority
from tollwire.service.accounts.credentials import Credentials
from tollwire.service.accounts.tokens import Tokens
from tollwire.service.domain.model import Token
from tollwire.service.domain.request import EVERY_TENANT, Role
from tollwire.service.process import doctor
from tollwire.service.process.doctor import Finding, Verdict
from tollwire.service.rpc.error_map import cause_of
from tollwire.service.settings.config import Settings
from tollwire.service.settings.parsing import Listen
from tollwire.service.storage import examination
from tollwire.service.storage.engine import Database
from tollwire.service.storage.examination import Answers
from tollwire.service.storage.schema.migrate import newest, prepare


def free(listen: Listen) -> str:
    return ""


def nobody(listen: Listen) -> None:
    return None


def examined(settings: Settings, port_trouble: str = "") -> dict[str, Finding]:
    """By part."""
    found = list(doctor.examine(settings, lambda listen: port_trouble, cause_of, nobody))
    assert all(bool(one.advice) is (one.verdict is not Verdict.OK) for one in found)
    return {one.part: one for one in found}


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Over a migrated database, on both kinds."""
    return Settings(database=database_url)


def test_no_findings(settings: Settings) -> None:
    found = examined(settings)
    assert {"database", "migrations", "access", "certificates", "open files", "port"} <= set(found)
    # The tests' PostgreSQL need not survive a power cut; its settings say so.
    wrong = {part for part, one in found.items() if one.verdict is Verdict.PROBLEM}
    assert wrong <= {"durability"}
    assert (
        found["migrations"].text == f"the database has schema {newest()}, which this release needs"
    )
    assert "SQLite 3." in found["database"].text or "PostgreSQL " in found["database"].text
    if "PostgreSQL" in found["database"].text:
        assert found["clock"].verdict is Verdict.OK
        assert found["durability"].verdict is Verdict.PROBLEM
        assert "fsync" in found["durability"].text
        assert found["database connections"].verdict is Verdict.OK


def test_more_workers_than_the_database_has_connections(settings: Settings) -> None:
    found = examined(settings.model_copy(update={"workers": 200}))
    if "database connections" in found:
        assert found["database connections"].verdict is Verdict.WARNING


def test_an_empty_database(empty_database_url: str) -> None:
    found = examined(Settings(database=empty_database_url))
    one = found.get("migrations") or found["database"]
    assert one.verdict is Verdict.OK
    assert "sets it up" in one.text or "creates it" in one.text


def test_an_old_schema(database: Database, settings: Settings) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    one = examined(settings)["migrations"]
    assert one.verdict is Verdict.PROBLEM
    assert "0000" in one.text


@pytest.mark.parametrize(
    "version, is_defective",
    [
        *[("3.40.1", True), ("3.51.2", True), ("3.51.3", False), ("3.53.0", False)],
        *[("3.50.6", True), ("3.50.7", False), ("3.51.0", True)],
        *[("3.44.5", True), ("3.44.6", False), ("3.45.0", True), ("4.0.0", False)],
    ],
)
def test_the_version_of_sqlite(tmp_path: Path, version: str, is_defective: bool) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    database = Database(url)

    @event.listens_for(Engine, "connect")
    def _other_version(driver: Any, _record: Any) -> None:
        driver.create_function("sqlite_version", 0, lambda: version)

    try:
        prepare(database)
        found = examined(Settings(database=url))
    finally:
        event.remove(Engine, "connect", _other_version)
        database.close()
    assert found["database"].text == f"SQLite {version} answers"
    assert ("database version" in found) is is_defective
    if is_defective:
        assert found["database version"].verdict is Verdict.WARNING
        assert "3.51.3" in found["database version"].advice


def test_missing_triggers(database: Database, settings: Settings) -> None:
    assert "triggers" not in examined(settings)
    on_table = "" if database.is_sqlite else " ON ledger_entries"
    with database.write() as connection:
        connection.exec_driver_sql(f"DROP TRIGGER tollwire_ledger_entries_update{on_table}")
    one = examined(settings)["triggers"]
    assert one.verdict is Verdict.PROBLEM
    assert "tollwire_ledger_entries_update of ledger_entries" in one.text


def test_a_schema_to_be_migrated() -> None:
    (one,) = doctor._check_answers(Answers("SQLite 3", "0001", "0002"), Settings())
    assert one.verdict is Verdict.PROBLEM
    assert "tollwire migrate" in one.advice


def test_tokens_that_are_demanded(database: Database, settings: Settings) -> None:
    settings = settings.model_copy(update={"access": "tokens"})
    one = examined(settings)["access"]
    assert one.verdict is Verdict.WARNING
    assert "tollwire tokens first" in one.advice
    credentials = Credentials(database)
    Tokens(database, credentials).create(Token("root", Role.ADMIN, EVERY_TENANT))
    assert examined(settings)["access"].verdict is Verdict.OK


def test_a_server_that_is_open_until_the_first_token(
    database: Database, settings: Settings
) -> None:
    assert "without a token" in examined(settings)["access"].text
    tokens = Tokens(database, Credentials(database))
    made, _ = tokens.create(Token("root", Role.ADMIN, EVERY_TENANT))
    assert examined(settings)["access"].text == "requests need a token, and tokens exist"
    tokens.revoke(made.id)
    assert examined(settings)["access"].verdict is Verdict.WARNING
    settings = settings.model_copy(update={"access": "open"})
    assert "without a token" in examined(settings)["access"].text


def test_no_file_is_created(tmp_path: Path) -> None:
    file = tmp_path / "new.db"
    found = examined(Settings(database=f"sqlite:///{file}"))
    assert found["database"].verdict is Verdict.OK
    assert not file.exists()


def test_a_file_that_every_user_can_read(tmp_path: Path) -> None:
    file = tmp_path / "old release.db"
    file.touch(0o600)
    settings = Settings(database=f"sqlite:///{file}")
    assert "file mode" not in examined(settings)
    file.chmod(0o644)
    one = examined(settings)["file mode"]
    assert one.verdict is Verdict.WARNING
    assert one.advice == f"run: chmod o= '{file}'"


def test_a_missing_folder(tmp_path: Path) -> None:
    one = examined(Settings(database=f"sqlite:///{tmp_path}/none/new.db"))["database"]
    assert one.verdict is Verdict.PROBLEM


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database " * 1000)
    one = examined(Settings(database=f"sqlite:///{tmp_path}/x.db"))["database"]
    assert one.verdict is Verdict.PROBLEM


def test_a_database_of_something_else(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.db") as other:
        other.execute("CREATE TABLE songs (id INTEGER)")
    other.close()
    one = examined(Settings(database=f"sqlite:///{tmp_path}/x.db"))["migrations"]
    assert one.verdict is Verdict.PROBLEM
    assert "songs" in one.text


def test_a_database_that_does_not_answer() -> None:
    url = "postgresql+psycopg://user:secret@127.0.0.1:1/name"
    one = examined(Settings(database=url))["database"]
    assert one.verdict is Verdict.PROBLEM
    assert "secret" not in one.text
    assert "port 1 failed" in one.text


def test_a_full_disk() -> None:
    assert doctor._check_disk(doctor.FREE_BYTES_WARNING - 1, "/x").verdict is Verdict.WARNING
    assert doctor._check_disk(doctor.FREE_BYTES_WARNING, "/x").verdict is Verdict.OK


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [
        *((0.9, Verdict.OK), (-0.9, Verdict.OK), (1.0, Verdict.WARNING), (-59.0, Verdict.WARNING)),
        *((60.0, Verdict.PROBLEM), (-3600.0, Verdict.PROBLEM)),
    ],
)
def test_clocks_that_differ(seconds: float, verdict: Verdict) -> None:
    one = doctor._check_clock(seconds)
    assert one.verdict is verdict
    if verdict is not Verdict.OK:
        assert ("ahead of" in one.text) is (seconds > 0)


def test_the_databases_clock_is_compared_with_ours(database: Database) -> None:
    ahead = examination.ask(database).clock_ahead_seconds
    assert ahead is None if database.is_sqlite else abs(ahead or 0) < 60


def test_too_few_files() -> None:
    (one,) = doctor._check_open_files(Settings(max_connections=1))
    assert one.verdict is Verdict.OK
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 < allowed <= 1_000_000:
        (one,) = doctor._check_open_files(Settings(max_connections=allowed))
        assert one.verdict is Verdict.WARNING


def in_use(listen: Listen) -> str:
    return "cannot listen: the port is in use"


def test_ports() -> None:
    settings = Settings(metrics_listen="127.0.0.1:9")
    found = doctor._check_ports(settings, free, nobody)
    assert [one.verdict for one in found] == [Verdict.OK] * 2
    (one, _) = doctor._check_ports(settings, in_use, nobody)
    assert (one.verdict, "127.0.0.1:50051 is in use" in one.text) == (Verdict.WARNING, True)
    (one, _) = doctor._check_ports(settings, in_use, lambda listen: False)
    assert (one.verdict, "NOT_SERVING" in one.text) == (Verdict.WARNING, True)
    found = doctor._check_ports(settings, in_use, lambda listen: True)
    assert [one.verdict for one in found] == [Verdict.OK] * 2
    (_, two) = doctor._check_ports(
        settings, lambda listen: "cannot listen: the host is unknown", nobody
    )
    assert (two.verdict, two.advice) == (Verdict.PROBLEM, "change --metrics-listen")


def with_certificate(folder: Path, *names: str, days: int = 90) -> dict[str, Finding]:
    until = datetime.now(UTC) + timedelta(days=days)
    cert, key = Authority().issue(*names, valid_until=until).write(folder)
    settings = Settings(tls_cert_file=cert, tls_key_file=key, access="open")
    return {one.part: one for one in doctor._check_certificates(settings)}


def test_certificates(tmp_path: Path) -> None:
    one = with_certificate(tmp_path, "rates.example")["certificates"]
    assert one.verdict is Verdict.OK
    assert "rates.example" in one.text
    assert with_certificate(tmp_path, "x", days=29)["certificates"].verdict is Verdict.WARNING
    assert with_certificate(tmp_path)["certificates"].verdict is Verdict.PROBLEM


def test_certificates_that_do_not_match(tmp_path: Path) -> None:
    cert, key = Authority().issue("x").write(tmp_path)
    settings = Settings(tls_cert_file=key, tls_key_file=cert)
    (one,) = doctor._check_certificates(settings)
    assert one.verdict is Verdict.PROBLEM
    assert one.text.startswith("--tls-")


def test_plain_text_that_others_can_read() -> None:
    (one,) = doctor._check_certificates(Settings(insecure=True))
    assert one.verdict is Verdict.WARNING
