"""Files of 5,000 lines with every kind of damage in some lines: no other line is lost."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator

import pytest

from tollwire.service.cli.call_files import CSV, JSON_LINES, CallFile
from tollwire.service.cli.deck_csv import DeckFile
from tollwire.service.cli.lines import BadLine
from tollwire.v1.types_pb2 import Call, Rate

LINES = 5_000
DAMAGE = (b'"', b"\0", b"\xff", b"\n", b"\r", b",", b',"Anna,', b'""', b"\r\n", b"{", b"\xe2\x80")


def csv_line(number: int) -> bytes:
    quoted = f'"Anna, ""{number}"""' if number % 3 == 0 else f"{number}"
    row = f"7,OUTBOUND,ANSWERED,2026-03-01T08:30:00Z,c{number:06},{quoted},4420{number:06},63"
    return row.encode()


def json_line(number: int) -> bytes:
    call = {"tenantId": "7", "callId": f"c{number:06}", "callerNumber": f'Anna, "{number}"'}
    return json.dumps(call).encode()


def deck_line(number: int) -> bytes:
    destination = f'"UK, {number}"' if number % 3 == 0 else f"UK {number}"
    return f"44{number:06},{destination},0.0200,60".encode()


def csv_calls(data: bytes) -> Iterator[tuple[int, str]]:
    return _call_ids(CallFile(io.BytesIO(data), CSV, 0))


def json_calls(data: bytes) -> Iterator[tuple[int, str]]:
    return _call_ids(CallFile(io.BytesIO(data), JSON_LINES, 0))


def _call_ids(records: CallFile) -> Iterator[tuple[int, str]]:
    for line, record in records:
        assert isinstance(record, Call | BadLine)
        yield line, record.call_id if isinstance(record, Call) else ""


def deck_rates(data: bytes) -> Iterator[tuple[int, str]]:
    for line, rate in DeckFile(io.BytesIO(data)):
        yield line, f"c{rate.prefix[2:]}" if isinstance(rate, Rate) else ""


CALL_HEADER = (
    b"tenant_id,direction,disposition,started_at,call_id,caller_number,destination_number,"
    b"duration_seconds"
)
DECK_HEADER = b"prefix,destination,cost_per_minute,billing_increment"

Read = Callable[[bytes], Iterator[tuple[int, str]]]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(
    ("header", "make", "read"),
    [
        (CALL_HEADER, csv_line, csv_calls),
        (b"", json_line, json_calls),
        (DECK_HEADER, deck_line, deck_rates),
    ],
    ids=["CSV", "JSON lines", "deck"],
)
@pytest.mark.parametrize("added", [False, True], ids=["replaced", "added"])
def test_a_broken_line_loses_no_other_line(
    header: bytes, make: Callable[[int], bytes], read: Read, end: bytes, added: bool
) -> None:
    """Each damage replaces each byte of a line once; two broken lines are adjacent, and a good one
    follows them."""
    whole = [make(number) for number in range(LINES)]
    damages = [(at, damage) for at in range(len(whole[0])) for damage in DAMAGE]
    given: list[bytes] = [header] if header else []
    good: dict[bytes, str] = {}
    for number, text in enumerate(whole):
        if number % 3 == 2 or not damages:
            good[text] = f"c{number:06}"
        else:
            at, damage = damages.pop()
            text = text[:at] + damage + text[at if added else at + 1 :]
        given.append(text)
    assert not damages
    data = end.join(given) + end
    expected = {
        number: good[text] for number, text in enumerate(data.splitlines(), 1) if text in good
    }
    assert len(expected) == len(good)
    found = dict(read(data))
    assert {number: found[number] for number in expected} == expected
    assert sum(call_id == "" for call_id in found.values()) > 100


@pytest.mark.parametrize("stray", [b',"Anna,', b'"', b',"'])
def test_a_stray_quote_loses_one_line(stray: bytes) -> None:
    rows = [csv_line(number) for number in range(1, LINES + 1) if number % 3]
    rows[9] = rows[9].replace(b",c", stray + b"c", 1)
    found = list(csv_calls(b"\n".join([CALL_HEADER, *rows]) + b"\n"))
    assert [line for line, call_id in found if not call_id] == [11]
    assert len(found) == len(rows)


def test_two_stray_quotes_do_not_merge_two_calls() -> None:
    rows = [csv_line(1), csv_line(2), csv_line(4)]
    for number in (0, 1):
        rows[number] = rows[number].replace(b",c", b',"c', 1)
    found = list(csv_calls(b"\n".join([CALL_HEADER, *rows]) + b"\n"))
    assert found == [(2, ""), (3, ""), (4, "c000004")]
