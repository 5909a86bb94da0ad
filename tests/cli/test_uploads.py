"""``cdrs uploads``, ``cdrs upload-status`` and ``cdrs failures``: their requests and output."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Tollwire
from tests.cli.fake import FakeServer
from tollwire.service.cli.call_files import CSV, JSON_LINES, CallFile
from tollwire.v1.cdr_service_pb2 import ControlTotals
from tollwire.v1.types_pb2 import Call, UnreadableRecord


@pytest.fixture
def failed(fake: FakeServer) -> list[Call]:
    """Of upload 3: calls that every server refuses, and some that no text format can represent."""
    odd_time = Call(call_id="odd", duration_seconds=-1, direction=99)
    odd_time.started_at.nanos = -1
    odd_time.ended_at.seconds = 5
    calls = [Call(call_id="é\0\x1b[31m", tenant_id=7), odd_time, Call()]
    fake.cdrs.uploads[3] = [Call(destination_number="1"), *calls]
    return calls


def test_uploads_are_listed(tollwire: Tollwire, fake: FakeServer) -> None:
    fake.cdrs.uploads = {1: [Call(destination_number="1", duration_seconds=5)], 2: [], 3: [Call()]}
    fake.cdrs.stated = {
        1: ControlTotals(calls=1, duration_seconds=5),
        3: ControlTotals(calls=2, duration_seconds=0),
    }
    result = tollwire("cdrs", "uploads")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0][:3] == ["upload", "settled", "created"]
    assert [row[:2] for row in rows[1:]] == [["3", "1"], ["2", "0"], ["1", "1"]]
    assert [("yes" in row, "no" in row) for row in rows[1:]] == [
        (False, True),
        (False, False),
        (True, False),
    ]
    lines = tollwire("cdrs", "uploads", "--json").stdout.splitlines()
    assert [json.loads(line)["upload_id"] for line in lines] == ["3", "2", "1"]


def test_the_status_of_one(tollwire: Tollwire, fake: FakeServer) -> None:
    fake.cdrs.uploads[1] = [Call(destination_number="1", duration_seconds=5)]
    assert "stated" not in tollwire("cdrs", "upload-status", "1").stdout
    fake.cdrs.stated[1] = ControlTotals(calls=2, duration_seconds=7)
    lines = [
        line.split(maxsplit=1)
        for line in tollwire("cdrs", "upload-status", "1").stdout.splitlines()
    ]
    assert ["seconds", "5"] in lines
    assert ["stated", "2 of 7 s"] in lines
    assert ["complete", "no"] in lines


def test_failures_as_a_table(tollwire: Tollwire, fake: FakeServer, failed: list[Call]) -> None:
    result = tollwire("cdrs", "failures", "3", "--reason", "invalid-field", "--limit", "0")
    assert result.exit_code == 0, result.output
    rows = result.stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["index", "1", "2", "3"]
    assert "\x1b" not in result.stdout
    assert {request.reason for request in fake.cdrs.listed} == {"INVALID_FIELD"}
    few = tollwire("cdrs", "failures", "3", "--limit", "2")
    assert len(few.stdout.splitlines()) == 3
    assert "there are more" in few.stderr


def test_failures_as_json(tollwire: Tollwire, failed: list[Call]) -> None:
    result = tollwire("cdrs", "failures", "3", "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["index"], one["reason"]) for one in records] == [
        (str(index), "INVALID_FIELD") for index in (1, 2, 3)
    ]
    assert records[1]["call"]["direction"] == 99


def test_a_file_of_failures_is_one_of_calls(
    tollwire: Tollwire, failed: list[Call], tmp_path: Path
) -> None:
    path = tmp_path / "failed.jsonl"
    result = tollwire("cdrs", "failures", "3", "--output", str(path), "--limit", "1")
    assert result.exit_code == 0, result.output
    assert "record 2: started_at is not a valid time and is left out" in result.stderr
    assert "3 records written" in result.stderr
    read = [call for _, call in CallFile(io.BytesIO(path.read_bytes()), JSON_LINES, 0)]
    failed[1].ClearField("started_at")
    assert read == failed


HEADER = b"tenant_id,destination_number,call_id"


def unreadable(text: bytes, header: bytes = HEADER) -> Call:
    return Call(unreadable=UnreadableRecord(line=2, text=text, header=header, message="odd"))


def test_unreadable_csv_lines_are_exported_unchanged(
    tollwire: Tollwire, fake: FakeServer, tmp_path: Path
) -> None:
    fake.cdrs.uploads[3] = [
        unreadable(b'7,"Anna,\xff\0'),
        Call(tenant_id=7, call_id='a "b"'),
        unreadable(b"1,2,3,4"),
    ]
    as_csv, as_json = tmp_path / "failed.csv", tmp_path / "failed.jsonl"
    assert tollwire("cdrs", "failures", "3", "-o", str(as_csv)).exit_code == 0
    assert as_csv.read_bytes() == (
        HEADER + b'\n7,"Anna,\xff\0\n' + b'7,,"a ""b"""\n' + b"1,2,3,4\n"
    )
    result = tollwire("cdrs", "failures", "3", "-o", str(as_json))
    assert result.exit_code == 0, result.output
    (call,) = [record for _, record in CallFile(io.BytesIO(as_json.read_bytes()), JSON_LINES, 0)]
    assert call == Call(tenant_id=7, call_id='a "b"')
    beside = tmp_path / "failed.unreadable.csv"
    assert beside.read_bytes() == HEADER + b'\n7,"Anna,\xff\0\n1,2,3,4\n'
    assert "2 records written to" in result.stderr


def test_unreadable_json_lines(tollwire: Tollwire, fake: FakeServer, tmp_path: Path) -> None:
    fake.cdrs.uploads[3] = [unreadable(b'{"tenantId": ', b""), Call(tenant_id=7)]
    path = tmp_path / "failed.jsonl"
    assert tollwire("cdrs", "failures", "3", "-o", str(path)).exit_code == 0
    assert path.read_bytes().startswith(b'{"tenantId": \n{"tenant_id":"7"'.replace(b'":"', b'": "'))
    assert list(tmp_path.iterdir()) == [path]
    refused = tollwire("cdrs", "failures", "3", "-o", str(tmp_path / "failed.csv"))
    assert refused.exit_code == 1
    assert "record 0 cannot be written to this CSV file" in refused.stderr


def test_calls_alone_as_csv(tollwire: Tollwire, fake: FakeServer, tmp_path: Path) -> None:
    call = Call(tenant_id=7, direction="DIRECTION_OUTBOUND", duration_seconds=0, occurrence=2)
    call.started_at.seconds = 5
    fake.cdrs.uploads[3] = [call]
    path = tmp_path / "failed.csv"
    assert tollwire("cdrs", "failures", "3", "-o", str(path)).exit_code == 0
    assert [record for _, record in CallFile(io.BytesIO(path.read_bytes()), CSV, 0)] == [call]
