"""A server and a command that start before their database, or with a URL that cannot work."""

from __future__ import annotations

import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks.postgres_server import PostgresServer
from tests.faults.proxy import Proxy
from tests.process.processes import Process
from tollwire.service.cli.main import main

COMMAND = ("-m", "tollwire.service.cli.main")
PASSWORD = "correct-horse"


def serve(url: str, *options: str) -> Process:
    return Process(*COMMAND, "serve", "--listen", "127.0.0.1:0", "--database", url, *options)


def waits(server: Process) -> str:
    """The first line that says that the server waits."""
    while (line := server.errors.next()) is not None:
        if "waiting for the database" in line:
            return line
    raise AssertionError("it does not wait")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_waits_for_its_database(proxy: Proxy, name: str, workers: int) -> None:
    proxy.drop()
    url = f"postgresql+psycopg://postgres:{PASSWORD}@127.0.0.1:{proxy.port}/{name}"
    with serve(url, "--workers", str(workers)) as server:
        line = waits(server)
        assert f"127.0.0.1:{proxy.port}, database '{name}'" in line
        assert "gives up after 300 s" in line
        assert PASSWORD not in line
        time.sleep(1)
        assert server.process.poll() is None
        proxy.restore()
        assert (server.output.next() or "").startswith("tollwire: serving on 127.0.0.1:")
        assert server.terminate() == 0
        rest = "\n".join(server.errors.rest())
        assert "the database answers after" in rest
        assert "Traceback" not in rest and PASSWORD not in rest


def test_a_worker_that_is_replaced_waits_too(
    proxy: Proxy, postgres: PostgresServer, name: str
) -> None:
    """Otherwise a server with an unreachable database would lose its workers one by one."""
    with serve(postgres.url(name, proxy.port), "--workers", "2") as server:
        assert server.output.next()
        proxy.drop()
        for worker in server.workers():
            worker.send_signal(signal.SIGKILL)
        waits(server)
        time.sleep(2)
        assert server.process.poll() is None
        proxy.restore()
        answered = 0
        while answered < 2:
            answered += "the database answers after" in (server.errors.next() or "never")
        assert server.terminate() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_ends_the_wait(workers: str) -> None:
    url = f"postgresql+psycopg://postgres@127.0.0.1:{free_port()}/x"
    with serve(url, "--workers", workers, "--database-start-wait-seconds", "0") as server:
        assert "no time limit" in waits(server)
        began = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - began < 10
        assert server.output.rest() == []
        assert "Traceback" not in "\n".join(server.errors.rest())


def test_the_wait_is_limited() -> None:
    port = free_port()
    url = f"postgresql+psycopg://postgres:{PASSWORD}@127.0.0.1:{port}/x"
    with serve(url, "--database-start-wait-seconds", "1") as server:
        assert server.wait() == 1
        said = server.errors.rest()[-1]
    assert said.startswith(f"tollwire: the database at 127.0.0.1:{port}, database 'x' did not")
    assert "within 1 s" in said and "Connection refused" in said
    assert "--database-start-wait-seconds" in said and PASSWORD not in said


@pytest.fixture(scope="module")
def guarded(postgres: PostgresServer) -> Iterator[int]:
    """The port of a proxy to a server that demands a password of the role "guest"."""
    with postgres.connect("postgres") as admin:
        admin.execute(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'".encode())
        admin.execute(b"CREATE ROLE nologin_role NOLOGIN")
        admin.execute(b"CREATE DATABASE closed ALLOW_CONNECTIONS false")
        admin.execute(b"CREATE DATABASE rightless OWNER postgres")
        (file,) = admin.execute("SHOW hba_file").fetchone() or ("",)
        hba = Path(file)
        before = hba.read_text("utf-8")
        rules = "local all guest scram-sha-256\nlocal banned all reject\n"
        hba.write_text(rules + before, "utf-8")
        admin.execute("SELECT pg_reload_conf()")
    with Proxy(str(postgres.socket)) as proxy:
        try:
            yield proxy.port
        finally:
            hba.write_text(before, "utf-8")
            with postgres.connect("postgres") as admin:
                admin.execute("SELECT pg_reload_conf()")
                admin.execute("DROP DATABASE closed")
                admin.execute("DROP DATABASE rightless WITH (FORCE)")
                admin.execute("DROP ROLE guest")
                admin.execute("DROP ROLE nologin_role")


def test_a_password_that_changes_under_a_server_is_named_in_its_log(
    postgres: PostgresServer, guarded: int
) -> None:
    with postgres.connect("postgres") as admin:
        admin.execute(b"CREATE DATABASE owned OWNER guest")
    try:
        url = f"postgresql+psycopg://guest:{PASSWORD}@127.0.0.1:{guarded}/owned"
        with serve(url) as server:
            assert server.output.next(), server.errors.rest()
            with postgres.connect("postgres") as admin:
                admin.execute(b"ALTER ROLE guest PASSWORD 'another'")
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'owned'"
                )
            line = ""
            while "the database is unavailable" not in line:
                found = server.errors.next()
                assert found is not None, "it has ended"
                line = found
            assert "the password or the user name is wrong" in line and PASSWORD not in line
            assert server.terminate() == 0
    finally:
        with postgres.connect("postgres") as admin:
            admin.execute(f"ALTER ROLE guest PASSWORD '{PASSWORD}'".encode())
            admin.execute(b"DROP DATABASE owned WITH (FORCE)")


CASES = {
    "wrong password": (
        "guest:battery-staple@{}/postgres",
        "the password or the user name is wrong",
    ),
    "no password": ("guest@{}/postgres", "the password or the user name is wrong"),
    "no such database": ("postgres:battery-staple@{}/nowhere", "the database does not exist"),
    "no such role": ("nobody_here:battery-staple@{}/postgres", "the user (role) does not exist"),
    "no login": ("nologin_role:battery-staple@{}/postgres", "may not log in"),
    "closed": ("postgres:battery-staple@{}/closed", "does not accept connections"),
    "pg_hba.conf": ("postgres:battery-staple@{}/banned", "pg_hba.conf does not allow"),
    "no right": (f"guest:{PASSWORD}@{{}}/rightless", "the user (role) lacks a right"),
    "option": ("postgres:battery-staple@{}/postgres?bogus=1", 'invalid connection option "bogus"'),
    "value": ("postgres:battery-staple@{}/postgres?sslmode=bogus", "the URL is wrong"),
    "parameter": (
        "postgres:battery-staple@{}/postgres?options=-c%20bogus%3D1",
        "the URL is wrong",
    ),
    "tls": ("postgres:battery-staple@{}/postgres?sslmode=require", "the TLS parameters"),
}


def run(arguments: list[str]) -> Result:
    result = CliRunner().invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("command", ["serve", "migrate", "tokens first", "doctor"])
def test_permanent_errors_are_refused_at_once(guarded: int, case: str, command: str) -> None:
    user, words = CASES[case]
    if case == "no right" and command in ("tokens first", "doctor"):
        pytest.skip("they only read, which the role may")
    url = f"postgresql+psycopg://{user.format(f'127.0.0.1:{guarded}')}"
    options = ["--listen", "127.0.0.1:0"] if command == "serve" else []
    done = run([*command.split(), "--database", url, *options])
    output = done.output
    assert done.exit_code == 1, output
    assert words in output, output
    assert "Traceback" not in output and "waiting" not in output
    assert "battery-staple" not in output and PASSWORD not in output
    if command != "doctor":
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("tollwire: --database: ")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///{}/none/x.db", "the folder {}/none does not exist"),
        ("sqlite:///{}/x.db?bogus=1", "SQLite has no parameter 'bogus'"),
        ("sqlite:///{}", "the file {} cannot be opened"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_file_that_cannot_be_used(tmp_path: Path, url: str, words: str, command: str) -> None:
    options = ["--listen", "127.0.0.1:0"] if command == "serve" else []
    done = run([command, "--database", url.format(tmp_path), *options])
    assert (done.exit_code, done.stdout) == (1, "")
    assert words.format(tmp_path) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_server_waits_for_a_file_that_is_locked(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    with sqlite3.connect(file, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        url = f"sqlite:///{file}"
        with serve(url, "--database-wait-seconds", "0.5") as server:
            assert str(file) in waits(server)
            other.execute("ROLLBACK")
            assert (server.output.next() or "").startswith("tollwire: serving on")
            assert server.terminate() == 0
    other.close()
