"""Files of calls, in both formats."""

from __future__ import annotations

import io
import json

import pytest
from google.protobuf.json_format import MessageToJson, ParseDict

from tollwire.service.cli.call_files import (
    CDR_COLUMNS,
    CSV,
    JSON_LINES,
    OPTIONAL,
    REQUIRED,
    CallFile,
    Record,
    format_of,
)
from tollwire.service.cli.cdrs import EXPORT_COLUMNS
from tollwire.service.cli.lines import MAX_LINE_BYTES, BadFile, BadLine
from tollwire.v1.types_pb2 import Call, Cdr

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


def test_an_empty_duration_is_unset_and_not_zero() -> None:
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


def test_the_tenant_of_rows_without_a_tenant() -> None:
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
        ("outbound,answered", "has 3 fields, but the header has 4"),
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


def test_an_export_can_be_read() -> None:
    """Each column of an export is a field of a call, or is known to be of a CDR only."""
    of_a_call = {"tenant_id", *REQUIRED, *OPTIONAL}
    assert set(EXPORT_COLUMNS) - of_a_call == set(CDR_COLUMNS)
    # An exported CDR has a call_id, so it needs no occurrence.
    assert of_a_call - {"occurrence"} <= set(EXPORT_COLUMNS)
    header = ",".join(EXPORT_COLUMNS)
    row = dict.fromkeys(EXPORT_COLUMNS, "")
    row |= {"tenant_id": "7", "direction": "OUTBOUND", "disposition": "ANSWERED"}
    row |= {"started_at": "2026-03-01T00:00:00.000000001Z", "call_id": "a", "duration_seconds": "7"}
    row |= {"cost": "x", "status": "not a status", "id": "12"}
    text = f"{header}\n{','.join(row.values())}\n"
    file = CallFile(io.BytesIO(text.encode()), CSV, 0)
    assert file.ignored == [name for name in EXPORT_COLUMNS if name in CDR_COLUMNS]
    [(line, call)] = file
    assert line == 2
    assert isinstance(call, Call)
    assert (call.tenant_id, call.call_id, call.duration_seconds) == (7, "a", 7)
    assert call.started_at.nanos == 1


@pytest.mark.parametrize("names", [True, False])
def test_json_lines_of_cdrs_are_read_as_their_calls(names: bool) -> None:
    cdr = Cdr(
        id=1, tenant_id=7, direction=1, disposition=2, call_id="a", cost="0.1", duration_seconds=0,
        status=1, upload_id=3, matched_prefix="4",
    )  # fmt: skip
    cdr.started_at.FromJsonString("2026-03-01T00:00:00.000000001Z")
    cdr.rate.prefix = "4"
    text = MessageToJson(cdr, indent=None, preserving_proto_field_name=names)
    [(_, call)] = CallFile(io.BytesIO(text.encode()), JSON_LINES, 0)
    expected = Call(tenant_id=7, direction=1, disposition=2, call_id="a", duration_seconds=0)
    expected.started_at.CopyFrom(cdr.started_at)
    assert call == expected


def test_a_mistyped_field_of_a_cdr_is_still_refused() -> None:
    text = '{"cost": "1", "direktion": "INBOUND"}'
    [(_, wrong)] = CallFile(io.BytesIO(text.encode()), JSON_LINES, 0)
    assert not isinstance(wrong, Call)
    assert "direktion" in wrong.message
    with pytest.raises(BadFile, match="costs"):
        CallFile(io.BytesIO(b"tenant_id,direction,disposition,started_at,costs\n"), CSV, 0)
