"""Backups made during uploads, and a server on a restored one: docs/operations.md, "Backup and
restore", step by step.

The senders keep notes of acknowledged records. A restored database must have all records that were
acknowledged before the backup began, match an auditor's root of that time, continue the uploads at
their offsets, and reach the totals of the lost database.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.postgres_server import PostgresServer
from tests.databases import KINDS
from tests.faults.serving import CHUNK_CALLS, Sender
from tests.integration.client import Client, make_call
from tests.integration.serving import serving
from tollwire.v1 import cdr_service_pb2 as cdr_pb

SENDERS = 2
# The limit of each sender, and the number that it sends after the backup.
MAX_CHUNKS = 30
LATER_CHUNKS = 5
PATIENCE_SECONDS = 60


def done(*command: str | Path) -> str:
    finished = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


def tollwire(*arguments: str | Path) -> str:
    return done(sys.executable, "-m", "tollwire.service.cli.main", *arguments)


class Busy(Sender):
    """Sends during the whole backup, and a little more after it."""

    def __init__(self, client: Client, tenant_id: int, name: str) -> None:
        super().__init__(client, tenant_id, name, MAX_CHUNKS)
        self.backed_up = threading.Event()

    def _rest(self) -> Iterator[cdr_pb.UploadCdrsRequest]:
        later = self.total - LATER_CHUNKS * CHUNK_CALLS
        for request in super()._rest():
            if request.offset == later:
                assert self.backed_up.wait(PATIENCE_SECONDS)
            elif self.backed_up.is_set() and request.offset < later:
                later = request.offset
                self.total = later + LATER_CHUNKS * CHUNK_CALLS
            if request.offset == self.total:
                return
            yield request


class SqliteBackups:
    """With ``tollwire backup``; the copy is the restored database."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"sqlite:///{folder / 'tollwire.db'}"

    def back_up(self) -> None:
        tollwire("backup", self._folder / "backup.db", "--database", self.url)

    def restore(self) -> str:
        """The URL of a new database restored from the backup."""
        (self._folder / "backup.db").rename(self._folder / "restored.db")
        return f"sqlite:///{self._folder / 'restored.db'}"

    def close(self) -> None:
        pass


class PostgresqlBackups:
    """With ``pg_dump`` and ``pg_restore``."""

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        self._server = server
        self._dump = folder / "tollwire.dump"
        self._name = server.create()
        self._restored = server.create()
        self.url = server.url(self._name)

    def back_up(self) -> None:
        done(
            *(self._server.programs / "pg_dump", "--format", "custom", "--file", self._dump),
            *("--dbname", _plain(self.url)),
        )

    def restore(self) -> str:
        url = self._server.url(self._restored)
        done(
            *(self._server.programs / "pg_restore", "--exit-on-error", "--single-transaction"),
            *("--no-owner", "--dbname", _plain(url), self._dump),
        )
        return url

    def close(self) -> None:
        self._server.drop(self._name)
        self._server.drop(self._restored)


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg:", "postgresql:")


Backups = SqliteBackups | PostgresqlBackups


@pytest.fixture(params=KINDS)
def backups(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backups]:
    made: Backups
    if request.param == "sqlite":
        made = SqliteBackups(tmp_path)
    else:
        made = PostgresqlBackups(tmp_path, request.getfixturevalue("postgres"))
    yield made
    made.close()


@contextmanager
def sending(senders: list[Sender]) -> Iterator[None]:
    """Every sender in a thread of its own; at the end of the block all have sent everything."""
    threads = [threading.Thread(target=sender.run) for sender in senders]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert not any(thread.is_alive() for thread in threads)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def root(client: Client) -> str:
    return str(client.cdrs.GetLedgerRoot(cdr_pb.GetLedgerRootRequest()).root)


def ledger_differences(client: Client, noted: str) -> list[Any]:
    request = cdr_pb.VerifyLedgerRequest(root=noted)
    return [one for answer in client.cdrs.VerifyLedger(request) for one in answer.differences]


def totals(client: Client) -> dict[str, Any]:
    request = cdr_pb.SummarizeUsageRequest(group_by=["USAGE_DIMENSION_TENANT"])
    (row,) = client.cdrs.SummarizeUsage(request).rows
    return {name: getattr(row, name) for name in ("calls", "bill_seconds", "cost", "unrated")}


def stored(client: Client) -> dict[str, int]:
    """The ids of all CDRs by call_id."""
    return {one.call_id: one.id for one in client.list_cdrs(page_size=1000)}


def continued(lost: Sender, client: Client, tenant_id: int, name: str) -> Sender:
    """The same upload, from the offset of the restored server."""
    again = Sender(client, tenant_id, name, lost.total // CHUNK_CALLS)
    again.upload_id = lost.upload_id
    again.acknowledged = client.get_upload(lost.upload_id).committed_offset
    return again


def test_a_backup_made_during_uploads_replaces_the_lost_database(backups: Backups) -> None:
    with serving(backups.url) as server, Client(server.address) as client:
        tenant_id = client.new_tenant().id
        client.new_rate(tenant_id, "44", "0.0200", 6)
        senders = [Busy(client, tenant_id, f"s{n}") for n in range(SENDERS)]
        with sending(senders):
            wait_until(lambda: all(sender.acknowledged >= CHUNK_CALLS for sender in senders))
            noted_before = root(client)
            acknowledged = [sender.acknowledged for sender in senders]
            backups.back_up()
            for sender in senders:
                sender.backed_up.set()
        complete, noted_after = totals(client), root(client)
        ids = stored(client)
        assert ledger_differences(client, noted_before) == []
    assert complete["calls"] == sum(sender.total for sender in senders) == len(ids)

    with serving(backups.restore(), workers=2) as server, Client(server.address) as client:
        # All records that were acknowledged before exist, with the ids that they were given.
        there = stored(client)
        for sender, count in zip(senders, acknowledged, strict=True):
            assert {call.call_id for call in sender.calls(0, count)} <= there.keys()
        assert there.items() <= ids.items()
        assert len(there) < len(ids), "the backup is not older than the end: the test shows nothing"
        # The record is one complete state of the past, and the auditor's root of that time matches.
        assert client.verify().different == 0
        assert ledger_differences(client, noted_before) == []
        missing = ledger_differences(client, noted_after)
        assert missing, "a later root must report that something is missing"
        assert all("entries in the given root, and has" in one.message for one in missing)
        settled = [client.get_upload(sender.upload_id).created for sender in senders]
        assert sum(settled) == len(there)

        # New ids are unused, and the senders send the missing records.
        again = [continued(lost, client, tenant_id, f"s{n}") for n, lost in enumerate(senders)]
        with sending(again):
            fresh = client.create_cdr(make_call(tenant_id, "4420", 7, call_id="fresh"))
        for one in again:
            one.check()
        assert fresh.id not in there.values()
        assert len(set(stored(client).values())) == complete["calls"] + 1
        reversal = cdr_pb.ReverseCdrRequest(id=fresh.id, reason="fresh", requested_by="nobody")
        client.cdrs.ReverseCdr(reversal)
        assert client.verify().different == 0
        assert ledger_differences(client, noted_before) == []
        assert ledger_differences(client, noted_after), "another history is not the lost one"
        found = totals(client)
        assert ": defect" not in server.log()
    assert found["calls"] == complete["calls"] + 1
    assert (found["bill_seconds"], found["unrated"]) == (
        complete["bill_seconds"] + fresh.bill_seconds,
        complete["unrated"],
    )
