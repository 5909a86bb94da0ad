"""Files of calls, in both formats."""

from __future__ import annotations

import io
import json

import pytest
from google.protobuf.json_format import ParseDict

from service.cli.call_files import CSV, JSON_LINES, CallFile, Record, format_of
from service.cli.lines import MAX_LINE_BYTES, BadFile, BadLine
from tollwire.v1.types_pb2 import Call

CALL = Call(
    tenant_id=7,
    extension_id=3,
    caller_number="101",
    destination_number="+44 20 7946 0000",
    direction="DIRECTION_OUTBOUND",
    disposition="DISPOSITION_NO_ANSWER",
    duration_seconds=0,
    call_id="a-1",
)
CALL.started_at.FromJsonString("2026-03-01T08:30:00.5Z")
CALL.ended_at.FromJsonString("2026-03-01T08:31:00Z")


def read(text: str | bytes, format_name: str, tenant_id: int = 0) -> list[Record]:
    data = text.encode() if isinstance(text, str) else text
    return list(CallFile(io.BytesIO(data), format_name, tenant_id))


def test_csv() -> None:
    text = (
        "tenant_id,extension_id,caller_number,destination_number,direction,disposition,"
        "duration_seconds,started_at,ended_at,call_id\n"
        "7,3,101,+44 20 7946 0000,outbound,No Answer,0,2026-03-01T09:30:00.5+01:00,"
        "2026-03-01T08:31:00Z,a-1\n"
    )
    assert read(text, CSV) == [(2, CALL)]


def test_an_empty_duration_is_none_and_not_zero() -> None:
    header = "tenant_id,direction,disposition,started_at,duration_seconds\n"
    given = [
        row + "\n"
        for row in (
            "7,OUTBOUND,ANSWERED,2026-03-01T08:30:00Z,",
            "7,OUTBOUND,ANSWERED,2026-03-01T08:30:00Z,0",
        )
    ]
    calls = [call for _, call in read(header + "".join(given), CSV)]
    assert [call.HasField("duration_seconds") for call in calls] == [False, True]  # type: ignore[union-attr]


def test_the_tenant_of_rows_that_name_none() -> None:
    header = "direction,disposition,started_at"
    row = "inbound,busy,2026-03-01T08:30:00Z"
    ((_, call),) = read(f"{header}\n{row}\n", CSV, tenant_id=9)
    assert isinstance(call, Call)
    assert call.tenant_id == 9
    both = read(f"{header},tenant_id\n{row},\n{row},5\n", CSV, tenant_id=9)
    assert [call.tenant_id for _, call in both] == [9, 5]  # type: ignore[union-attr]
    with pytest.raises(BadFile, match="lacks tenant_id"):
        read(f"{header}\n{row}\n", CSV)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("outbound,answered,today", "started_at: must be a time with its zone"),
        ("outgoing,answered,2026-03-01T08:30:00Z", "direction: must be one of INBOUND, OUTBOUND"),
        ("outbound,answered", "has 3 fields where the header has 4"),
    ],
)
def test_csv_records_that_cannot_be_read(value: str, message: str) -> None:
    bad, good = read(
        f"tenant_id,direction,disposition,started_at\n1,{value}\n"
        "1,outbound,answered,2026-03-01T08:30:00Z\n",
        CSV,
    )
    assert bad[0] == 2
    assert isinstance(bad[1], BadLine)
    assert message in bad[1].message
    assert bad[1].content == f"1,{value}".encode()
    assert isinstance(good[1], Call)


def test_json_lines() -> None:
    camel = {
        "tenantId": "7",
        "extensionId": 3,
        "callerNumber": "101",
        "destinationNumber": "+44 20 7946 0000",
        "direction": "DIRECTION_OUTBOUND",
        "disposition": 2,
        "durationSeconds": "0",
        "startedAt": "2026-03-01T08:30:00.500Z",
        "endedAt": "2026-03-01T09:31:00+01:00",
        "callId": "a-1",
    }
    snake = {"tenant_id": 7, "call_id": "b"}
    text = f"\ufeff{json.dumps(camel)}\n\n  {json.dumps(snake)}  \r\n"
    assert read(text, JSON_LINES, tenant_id=9) == [(1, CALL), (3, ParseDict(snake, Call()))]
    assert read('{"callId": "c"}', JSON_LINES, tenant_id=9) == [(1, Call(tenant_id=9, call_id="c"))]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b'{"destination": "44"}',
        b'{"direction": "outward"}',
        b'{"tenantId": 1.5}',
        b'{"startedAt": "2026-03-01"}',
        b'{"callId": "\xff"}',
        b'{"callId": "a", "callId": "b"}',
        b"[" * 9999,
    ],
)
def test_json_records_that_cannot_be_read(line: bytes) -> None:
    bad, good = read(line + b'\n{"tenantId": 1}\n', JSON_LINES)
    assert bad[0] == 1
    assert isinstance(bad[1], BadLine)
    assert bad[1].message.startswith("not a call in protobuf JSON: ")
    assert bad[1].content == line
    assert good == (2, Call(tenant_id=1))


def test_a_line_without_end_is_not_read_into_memory() -> None:
    text = b'{"callId": "' + b"x" * (2 * MAX_LINE_BYTES) + b'"}\n{"tenantId": 1}\n'
    bad, good = read(text, JSON_LINES)
    kept = text[:MAX_LINE_BYTES]
    assert bad == (1, BadLine(f"is longer than {MAX_LINE_BYTES:,} bytes", kept))
    assert good == (2, Call(tenant_id=1))


def test_formats_by_name() -> None:
    names = ("calls.csv", "CALLS.CSV", "c.jsonl", "c.ndjson", "c.json", "calls", "calls.csv.gz")
    found = [format_of(name) for name in names]
    assert found == [CSV, CSV, JSON_LINES, JSON_LINES, JSON_LINES, None, CSV]
