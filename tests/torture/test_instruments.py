"""The torture's own instruments find the errors that they are made for."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.integration.wire_oracle import Outcome
from tests.torture.badline import BadLine
from tests.torture.callfiles import Fate, Prices, Totals, mixed_file, plain_call
from tests.torture.counting import count
from tests.torture.sending import Note, Notes
from tests.torture.tally import Tally, table, totals
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types

TENANT = types.Tenant(id=7)
PRICES = Prices(TENANT)


def cdrs_of(calls: list[types.Call]) -> list[types.Cdr]:
    """The CDRs of a server without errors."""
    return [cdr_of(cdr_id, call, PRICES.outcome(call)) for cdr_id, call in enumerate(calls, 1)]


def cdr_of(cdr_id: int, call: types.Call, outcome: Outcome) -> types.Cdr:
    status, reason, bill_seconds, cost = outcome
    cdr = types.Cdr(
        id=cdr_id,
        status=f"RATING_STATUS_{status}",
        unrated_reason=f"UNRATED_REASON_{reason or 'UNSPECIFIED'}",
        bill_seconds=bill_seconds,
        cost=cost,
    )
    for field, value in call.ListFields():
        if isinstance(value, int | str):
            setattr(cdr, field.name, value)
        else:
            getattr(cdr, field.name).CopyFrom(value)
    return cdr


def counted(sent: list[types.Call], shown: list[types.Cdr], **changed: types.Cdr) -> Tally:
    """The tally of a server that returns these CDRs; ``changed``: how GetCdr returns one."""

    def export(request: cdr_pb.ExportCdrsRequest, timeout: float) -> Iterator[Any]:
        yield cdr_pb.ExportCdrsResponse(cdrs=shown)

    by_id = {cdr.id: cdr for cdr in shown}
    client: Any = SimpleNamespace(
        cdrs=SimpleNamespace(ExportCdrs=export),
        get_cdr=lambda cdr_id: changed.get(f"cdr_{cdr_id}", by_id[cdr_id]),
    )
    tally = Tally("a scenario", "a database")
    by_marker = {call.caller_number: call for call in sent}
    count(tally, client, TENANT.id, by_marker, by_marker, PRICES)
    return tally


CALLS = [plain_call(TENANT.id, f"{n}", random.Random(n)) for n in range(300)]


def test_correct_cdrs_pass() -> None:
    tally = counted(CALLS, cdrs_of(CALLS))
    assert tally.passed
    assert (tally.stored, tally.lost, tally.doubled, tally.wrong) == (300, 0, 0, 0)


def test_lost_cdrs_are_found() -> None:
    tally = counted(CALLS, cdrs_of(CALLS)[1:])
    assert (tally.stored, tally.lost, tally.doubled, tally.wrong) == (299, 1, 0, 0)
    assert not tally.passed
    assert "0 was acknowledged and is missing" in tally.problems[0]


def test_doubled_cdrs_are_found() -> None:
    shown = cdrs_of(CALLS)
    again = types.Cdr()
    again.CopyFrom(shown[5])
    again.id, again.call_id = 301, CALLS[5].call_id
    tally = counted(CALLS, [*shown, again])
    assert (tally.stored, tally.lost, tally.doubled, tally.wrong) == (301, 0, 1, 0)
    assert not tally.passed


@pytest.mark.parametrize(
    "spoil",
    [
        lambda cdr: setattr(cdr, "cost", "9.0000"),
        lambda cdr: setattr(cdr, "bill_seconds", cdr.bill_seconds + 6),
        lambda cdr: setattr(cdr, "status", types.RATING_STATUS_UNRATED),
        lambda cdr: setattr(cdr, "duration_seconds", cdr.duration_seconds + 1),
        lambda cdr: setattr(cdr, "call_id", "another"),
        lambda cdr: setattr(cdr, "tenant_id", 8),
        lambda cdr: setattr(cdr.started_at, "nanos", 1),
    ],
)
def test_wrong_cdrs_are_found(spoil: Callable[[types.Cdr], None]) -> None:
    shown = cdrs_of(CALLS)
    rated = next(cdr for cdr in shown if cdr.cost not in ("", "0.0000"))
    spoil(rated)
    tally = counted(CALLS, shown)
    assert (tally.lost, tally.doubled, tally.wrong) == (0, 0, 1)
    assert not tally.passed


def test_cdrs_that_were_not_sent_are_found() -> None:
    tally = counted(CALLS[1:], cdrs_of(CALLS))
    assert (tally.lost, tally.wrong) == (0, 1)


def test_two_ways_of_reading_that_differ_are_found() -> None:
    shown = cdrs_of(CALLS[:50])
    tally = counted(CALLS[:50], shown, cdr_7=shown[7])
    assert tally.problems == ["GetCdr and ExportCdrs differ on 7"]
    assert not tally.passed


def test_a_file_is_the_same_each_time_and_has_its_totals() -> None:
    file = mixed_file("seed", "name", TENANT.id, 2_000)
    again = mixed_file("seed", "name", TENANT.id, 2_000)
    assert (file.calls, file.fates) == (again.calls, again.fates)
    assert mixed_file("other", "name", TENANT.id, 2_000).calls != file.calls
    totals = file.totals(PRICES)
    assert sum(file.fates.count(fate) for fate in Fate) == 2_000
    assert totals.created == len(list(file.recorded()))
    assert min(totals.duplicates, totals.conflicts, totals.rejected, totals.unrated) > 10
    assert len({call.caller_number for call in file.recorded()}) == totals.created


def test_notes_are_read_from_the_file(tmp_path: Any) -> None:
    notes = Notes(tmp_path / "notes")
    written = [Note("a", 1, 0, 10, Totals(created=9, duplicates=1)), Note("a", 1, 10, 12, Totals())]
    for note in written:
        notes.write(note)
    assert list(notes.read()) == written
    notes.close()


def test_the_table_shows_each_scenario_the_sums_and_the_problems() -> None:
    tallies = [
        Tally("kills", "sqlite", kills=3, sent=1_500, acknowledged=1_000, stored=900),
        Tally("kills", "postgresql", kills=2, sent=600, lost=1, problems=["one is gone"]),
    ]
    tallies[0].more["bytes"] = 12_345
    lines = table(tallies).splitlines()
    names = "scenario", "database", "kills", "restarts", "sent", "acknowledged", "stored", "lost"
    assert lines[0].split() == [*names, "doubled", "wrong"]
    assert lines[5].split() == ["all", "5", "0", "2,100", "1,000", "900", "1", "0", "0"]
    assert lines[6] == "kills, sqlite: bytes 12,345"
    assert lines[7] == "FAILED kills, postgresql: one is gone"
    assert [tally.passed for tally in tallies] == [True, False]
    assert totals(tallies[1]) == (
        "kills, postgresql, kills 2, restarts 0, sent 600, acknowledged 0, stored 0, lost 1,"
        " doubled 0, wrong 0"
    )


@pytest.fixture
def echo() -> Iterator[str]:
    """The address of a server that sends back what it gets, and counts it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                while data := connection.recv(65_536):
                    connection.sendall(data)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_a_connection_works_until_it_is_spoiled(echo: str) -> None:
    line = BadLine(echo)
    host, _, port = line.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(b"good" * 100_000)
        received = b""
        while len(received) < 400_000:
            received += client.recv(65_536)
        assert received == b"good" * 100_000
        line.spoil("gone")
        client.settimeout(0.5)
        client.sendall(b"nothing")
        with pytest.raises(TimeoutError):
            client.recv(1)
        line.spoil("trickle")
        client.settimeout(20)
        assert client.recv(10) == b"n"
        line.spoil("deaf")
        client.settimeout(0.5)
        heard = b""
        with pytest.raises(TimeoutError):
            while True:
                heard += client.recv(10)
        assert len(heard) < 3  # the bytes in transit
    line.close()
