"""The commands that work on a database: what they create, and what they print beside a server."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.process.processes import Process
from tests.rpc.authority import Authority
from tollwire.service.cli.main import main

COMMAND = ("-m", "tollwire.service.cli.main")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


# --- tokens first ----------------------------------------------------------------------------


def test_tokens_first_creates_no_file(tmp_path: Path) -> None:
    done = run("tokens", "first", "--database", f"sqlite:///{tmp_path}/x.db")
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"the file {tmp_path}/x.db does not exist" in done.stderr
    assert "tollwire migrate" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_tokens_first_sets_up_no_database(empty_database_url: str) -> None:
    if empty_database_url.startswith("sqlite"):
        Path(empty_database_url.removeprefix("sqlite:///")).touch()
    done = run("tokens", "first", "--database", empty_database_url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "is empty" in done.stderr and "tollwire migrate" in done.stderr
    again = run("doctor", "--database", empty_database_url)
    assert "the database is empty" in again.stdout
    assert run("migrate", "--database", empty_database_url).exit_code == 0
    first = run("tokens", "first", "--database", empty_database_url)
    assert first.exit_code == 0
    assert first.stdout.startswith("tw_")
    old = run("tokens", "first", "--database", empty_database_url)
    assert (old.exit_code, old.stdout) == (1, "")


# --- doctor beside a server ------------------------------------------------------------------


def findings(*options: str) -> list[dict[str, str]]:
    done = run("doctor", "--json", *options)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("tls", "workers"),
    [("plain text", "1"), ("plain text", "2"), ("TLS", "1"), ("mutual TLS", "2")],
)
def test_doctor_beside_a_healthy_server_warns_of_nothing(
    database_url: str, tmp_path: Path, tls: str, workers: str
) -> None:
    authority = Authority()
    cert, key = authority.issue("localhost").write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    options = [
        *("--listen", f"127.0.0.1:{free_port()}", "--metrics-listen", f"127.0.0.1:{free_port()}"),
        *("--database", database_url, "--workers", workers, "--access", "open", "--insecure"),
    ]
    if tls != "plain text":
        options += ["--tls-cert-file", str(cert), "--tls-key-file", str(key)]
    if tls == "mutual TLS":
        options += ["--tls-client-ca-file", str(tmp_path / "ca.pem")]
    if tls == "plain text":
        options.remove("--insecure")
    with Process(*COMMAND, "serve", *options) as server:
        assert server.output.next(), server.errors.rest()
        found = findings(*options)
        # The tests' PostgreSQL need not survive a power cut, and SQLite is the machine's.
        others = ("durability", "database version")
        wrong = [one for one in found if one["verdict"] != "ok" and one["part"] not in others]
        assert wrong == []
        ports = [one["text"] for one in found if one["part"] == "port"]
        assert all("a Tollwire server answers on" in text for text in ports) and len(ports) == 2
        assert server.terminate() == 0


def test_doctor_beside_another_program(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        found = findings("--listen", address, "--database", f"sqlite:///{tmp_path}/x.db")
    (port,) = [one for one in found if one["part"] == "port"]
    assert port["verdict"] == "warning"
    assert "no Tollwire server with these settings answers there" in port["text"]
