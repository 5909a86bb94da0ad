"""Uploads: the requests, the summary, and that no crash of either side loses or duplicates a
record."""

from __future__ import annotations

import gzip
import json
import stat
from pathlib import Path

import pytest
from google.rpc import code_pb2

from tests.cli.conftest import Tollwire, unused_address
from tests.cli.fake import FakeServer
from tollwire.v1.cdr_service_pb2 import ControlTotals, GetUploadResponse
from tollwire.v1.types_pb2 import Call

HEADER = "tenant_id,direction,disposition,started_at,destination_number,call_id,duration_seconds"
CALLS = 20


def row(number: int, destination: str = "4420") -> str:
    return f"1,OUTBOUND,ANSWERED,2026-03-01T08:30:00Z,{destination},c{number},7"


@pytest.fixture
def calls_csv(tmp_path: Path) -> Path:
    path = tmp_path / "calls.csv"
    path.write_text("\n".join([HEADER, *(row(i) for i in range(CALLS))]) + "\n")
    return path


def stored_ids(fake: FakeServer, upload_id: int = 1) -> list[str]:
    return [call.call_id for call in fake.cdrs.uploads[upload_id]]


ALL_IDS = [f"c{i}" for i in range(CALLS)]


def test_a_file_goes_up_in_chunks_and_ends_with_a_summary(
    tollwire: Tollwire, fake: FakeServer, calls_csv: Path
) -> None:
    result = tollwire("cdrs", "upload", str(calls_csv), "--chunk", "6")
    assert result.exit_code == 0, result.output
    assert stored_ids(fake) == ALL_IDS
    assert fake.cdrs.arrived == 4
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["upload", "1"],
        ["lines", "21"],
        ["records", "20"],
        ["settled", "20"],
        ["created", "20"],
        ["duplicates", "0"],
        ["conflicts", "0"],
        ["rejected", "0"],
        ["unrated", "0"],
        ["seconds", "140"],
    ]
    assert fake.cdrs.stated[1] == ControlTotals(calls=20, duration_seconds=140)


def test_bad_records_are_reported_by_line_and_the_others_are_stored(
    tollwire: Tollwire, fake: FakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "calls.csv"
    path.write_text(f"{HEADER}\n{row(0)}\n{row(1)},x\n{row(2, '')}\n{row(3)}\n")
    everything = tmp_path / "failures.jsonl"
    result = tollwire("cdrs", "upload", str(path), "--failures", str(everything))
    assert result.exit_code == 1
    assert stored_ids(fake) == ["c0", "", "c2", "c3"]
    assert "created     2" in result.stdout
    assert "rejected    2" in result.stdout
    assert "line 3: UNREADABLE_RECORD: has 8 fields, but the header has 7" in result.stdout
    assert "line 4: INVALID_FIELD: no destination" in result.stdout
    assert result.stderr == "tollwire: 2 records were not stored\n"
    written = [json.loads(line) for line in everything.read_text().splitlines()]
    assert [(f["line"], f["reason"]) for f in written] == [
        *((3, "UNREADABLE_RECORD"), (4, "INVALID_FIELD"))
    ]
    (sent,) = [call.unreadable for call in fake.cdrs.uploads[1] if call.HasField("unreadable")]
    assert (sent.line, sent.text, sent.header) == (3, f"{row(1)},x".encode(), HEADER.encode())
    assert fake.cdrs.stated[1] == ControlTotals(calls=4, duration_seconds=21)


def test_json_output(tollwire: Tollwire, tmp_path: Path) -> None:
    path = tmp_path / "calls.csv"
    path.write_text(f"{HEADER}\n{row(0)}\n{row(1)},x\n{row(2, '')}\n")
    result = tollwire("cdrs", "upload", str(path), "--json")
    document = json.loads(result.stdout)
    assert document["upload_id"] == "1"
    assert document["created"] == "1"
    counts = ("lines", "records", "settled", "created", "rejected", "unreadable")
    assert [document[name] for name in counts] == ["4", "3", "3", "1", "2", "1"]
    assert document["control_totals"] == {"calls": "3", "duration_seconds": "14"}
    assert document["control_totals_match"] is True
    table = tollwire("cdrs", "upload", str(path)).stdout
    rows = dict(line.rsplit(maxsplit=1) for line in table.splitlines()[:14])
    assert [rows[name] for name in counts] == ["4", "3", "3", "1", "2", "1"]
    assert [f["line"] for f in document["failures"]] == [3, 4]


def test_only_the_first_reasons_are_shown(tollwire: Tollwire, tmp_path: Path) -> None:
    path = tmp_path / "calls.csv"
    path.write_text("\n".join([HEADER, *(row(i, "") for i in range(25))]) + "\n")
    result = tollwire("cdrs", "upload", str(path))
    assert result.stdout.count("\nline ") == 10
    assert "and 15 more (25 INVALID_FIELD)" in result.stdout


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("where", [1, 2, 4])
@pytest.mark.parametrize("code", [code_pb2.UNAVAILABLE, code_pb2.RESOURCE_EXHAUSTED])
def test_a_broken_stream_is_resumed(
    tollwire: Tollwire, fake: FakeServer, calls_csv: Path, how: str, where: int, code: int
) -> None:
    fake.cdrs.breaks = {where: how}
    fake.cdrs.code = code
    result = tollwire("cdrs", "upload", str(calls_csv), "--chunk", "6")
    assert result.exit_code == 0, result.output
    assert stored_ids(fake) == ALL_IDS
    assert "created     20" in result.stdout
    assert "SHUTTING_DOWN" in result.stderr
    assert "trying again" in result.stderr


def test_standard_input_is_resumed_too(
    tollwire: Tollwire, fake: FakeServer, calls_csv: Path
) -> None:
    fake.cdrs.breaks = {2: "after", 4: "before"}
    arguments = ("cdrs", "upload", "-", "--format", "csv", "--chunk", "3")
    result = tollwire(*arguments, input=calls_csv.read_bytes())
    assert result.exit_code == 0, result.output
    assert stored_ids(fake) == ALL_IDS


def test_permanent_errors_are_not_retried(
    tollwire: Tollwire, fake: FakeServer, calls_csv: Path
) -> None:
    fake.cdrs.breaks = {2: "before"}
    fake.cdrs.code = code_pb2.FAILED_PRECONDITION
    result = tollwire("cdrs", "upload", str(calls_csv), "--chunk", "6")
    assert result.exit_code == 1
    assert fake.cdrs.streams == 2  # the stream that began the upload, and one more
    assert "repeat the command to resume" in result.stderr


def test_a_failed_run_is_resumed_by_the_same_command(
    tollwire: Tollwire, fake: FakeServer, calls_csv: Path, own_state: Path
) -> None:
    arguments = ("cdrs", "upload", str(calls_csv), "--chunk", "6", "--retries", "0")
    fake.cdrs.breaks = {3: "before"}
    first = tollwire(*arguments)
    assert first.exit_code == 3
    assert "upload 1" in first.stderr
    assert stored_ids(fake) == ALL_IDS[:12]
    (note,) = own_state.rglob("*.json")
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    second = tollwire(*arguments)
    assert second.exit_code == 0, second.output
    assert "resuming upload 1, which has 12 committed calls" in second.stderr
    assert stored_ids(fake) == ALL_IDS
    assert "created     20" in second.stdout
    assert not list(own_state.rglob("*.json"))
    # It is finished: the same command begins a new upload.
    assert tollwire(*arguments).exit_code == 0
    assert set(fake.cdrs.uploads) == {1, 2}


@pytest.mark.parametrize("change", ["content", "tenant", "no_resume", "server forgot"])
def test_another_upload_is_not_continued(
    tollwire: Tollwire, fake: FakeServer, calls_csv: Path, change: str
) -> None:
    arguments = ["cdrs", "upload", str(calls_csv), "--chunk", "6", "--retries", "0"]
    fake.cdrs.breaks = {3: "before"}
    assert tollwire(*arguments).exit_code == 3
    if change == "content":
        calls_csv.write_text(calls_csv.read_text() + row(20) + "\n")
    elif change == "tenant":
        arguments += ["--tenant", "5"]
    elif change == "no_resume":
        arguments += ["--no-resume"]
    else:
        fake.cdrs.uploads.clear()
        fake.cdrs.answers.clear()
    result = tollwire(*arguments)
    assert result.exit_code == 0, result.output
    upload_id = 1 if change == "server forgot" else 2
    assert stored_ids(fake, upload_id)[:CALLS] == ALL_IDS


@pytest.mark.parametrize("retries", ["0", "5"])
def test_failures_before_a_broken_stream_are_reported_too(
    tollwire: Tollwire, fake: FakeServer, tmp_path: Path, retries: str
) -> None:
    """The response was lost on the way, or with the process that waited for it."""
    path = tmp_path / "calls.csv"
    rows = [row(i, "" if i in (1, 4, 7, 10) else "4420") for i in range(CALLS)]
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    fake.cdrs.breaks = {2: "after", 3: "before"}
    everything = tmp_path / "failures.jsonl"
    arguments = [*("cdrs", "upload", str(path), "--chunk", "3", "--retries", retries)]
    arguments += ["--failures", str(everything)]
    result = tollwire(*arguments)
    while result.exit_code == 3:
        result = tollwire(*arguments)
    assert result.exit_code == 1, result.output
    assert "rejected    4" in result.stdout
    assert stored_ids(fake) == ALL_IDS
    written = [json.loads(line) for line in everything.read_text().splitlines()]
    assert [(f["line"], f["index"]) for f in written] == [
        *((3, "1"), (6, "4"), (9, "7"), (12, "10"))
    ]
    assert result.stdout.count("line 6: INVALID_FIELD: no destination") == 1


def test_totals_that_do_not_match_are_reported(
    tollwire: Tollwire, fake: FakeServer, calls_csv: Path
) -> None:
    fake.cdrs.lost_calls = 1
    result = tollwire("cdrs", "upload", str(calls_csv))
    assert result.exit_code == 1
    assert result.stderr == (
        "tollwire: 20 records of 140 s were sent, but upload 1 has 19 of 140 s; check that"
        " it is an upload of this file\n"
    )


def test_an_upload_of_another_file_is_reported(
    tollwire: Tollwire, fake: FakeServer, calls_csv: Path
) -> None:
    fake.cdrs.uploads[7] = [Call(destination_number="1") for _ in range(CALLS + 5)]
    result = tollwire("cdrs", "upload", str(calls_csv), "--upload-id", "7")
    assert result.exit_code == 1
    assert "20 records of 140 s were sent, but upload 7 has 25 of 0 s" in result.stderr


def test_an_upload_is_continued_by_hand(
    tollwire: Tollwire, fake: FakeServer, calls_csv: Path
) -> None:
    fake.cdrs.uploads[7] = [
        Call(call_id=i, destination_number="1", duration_seconds=7) for i in ALL_IDS[:5]
    ]
    result = tollwire("cdrs", "upload", str(calls_csv), "--upload-id", "7")
    assert result.exit_code == 0, result.output
    assert stored_ids(fake, 7) == ALL_IDS
    unknown = tollwire("cdrs", "upload", str(calls_csv), "--upload-id", "8")
    assert unknown.exit_code == 1
    assert "NOT_FOUND (UPLOAD_NOT_FOUND)" in unknown.stderr


def test_records_that_cannot_be_read_do_not_shift_the_offset(
    tollwire: Tollwire, fake: FakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "calls.csv"
    rows = [row(i) + (",x" if i % 3 == 0 else "") for i in range(CALLS)]
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    arguments = ("cdrs", "upload", str(path), "--chunk", "4", "--retries", "0")
    fake.cdrs.breaks = {2: "before"}
    assert tollwire(*arguments).exit_code == 3
    result = tollwire(*arguments)
    assert result.exit_code == 1
    assert stored_ids(fake) == [i if n % 3 else "" for n, i in enumerate(ALL_IDS)]
    assert "rejected    7" in result.stdout


def test_a_server_that_does_not_answer(tollwire: Tollwire, calls_csv: Path) -> None:
    result = tollwire("cdrs", "upload", str(calls_csv), server=unused_address())
    assert result.exit_code == 3
    assert result.stderr.startswith("tollwire: UNAVAILABLE: no answer from 127.0.0.1:")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("calls.csv", f"{HEADER},price\n", "'price'"),
        ("calls.csv", "tenant_id\n", "lacks direction, disposition, started_at"),
        ("calls.txt", "", "--format is required"),
    ],
)
def test_files_that_are_refused_as_a_whole(
    tollwire: Tollwire, fake: FakeServer, tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    result = tollwire("cdrs", "upload", str(path))
    assert result.exit_code == 2
    assert message in result.stderr
    assert not fake.cdrs.uploads


def test_a_gzip_file_is_read_and_a_damaged_one_named(
    tollwire: Tollwire, fake: FakeServer, calls_csv: Path
) -> None:
    packed = calls_csv.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(calls_csv.read_bytes()))
    assert tollwire("cdrs", "upload", str(packed)).exit_code == 0
    assert stored_ids(fake) == ALL_IDS
    packed.write_bytes(packed.read_bytes()[:-4])
    damaged = tollwire("cdrs", "upload", str(packed))
    assert damaged.exit_code == 2
    assert "the gzip file ends early: a part of it is missing; correct the file" in damaged.stderr


def test_line_breaks_within_quotes_need_an_option(
    tollwire: Tollwire, fake: FakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "calls.csv"
    path.write_text(f"{HEADER}\n{row(0, chr(34) + '44' + chr(10) + '20' + chr(34))}\n{row(1)}\n")
    assert tollwire("cdrs", "upload", str(path)).exit_code == 1
    assert stored_ids(fake) == ["", "", "c1"]
    result = tollwire("cdrs", "upload", str(path), "--multiline")
    assert result.exit_code == 0, result.output
    assert stored_ids(fake, 2) == ["c0", "c1"]


def test_equal_records_are_numbered_on_request(
    tollwire: Tollwire, fake: FakeServer, tmp_path: Path
) -> None:
    """In their order in the file, in any notation; those with a call_id are not numbered."""
    header = (
        "tenant_id,direction,disposition,started_at,duration_seconds,destination_number,call_id"
    )
    same = "1,OUTBOUND,ANSWERED,2026-03-01T08:30:00Z,60,4420,"
    zoned = "1,outbound,answered,2026-03-01T09:30:00+01:00,60,4420,"
    path = tmp_path / "calls.csv"
    path.write_text("\n".join([header, same, f"{same}x", zoned, same[:-2] + "1,", same, ""]))
    arguments = ("cdrs", "upload", str(path), "--occurrence", "--chunk", "2", "--retries", "0")
    fake.cdrs.breaks = {2: "before"}
    assert tollwire(*arguments).exit_code == 3
    assert tollwire(*arguments).exit_code == 0
    assert [call.occurrence for call in fake.cdrs.uploads[1]] == [0, 0, 2, 0, 3]
    assert tollwire("cdrs", "upload", str(path)).exit_code == 0
    assert {call.occurrence for call in fake.cdrs.uploads[2]} == {0}


def test_reversed_calls_are_reported(tollwire: Tollwire, fake: FakeServer, calls_csv: Path) -> None:
    fake.cdrs.extra = GetUploadResponse(
        derived_call_ids=5, derived_duplicates=2, recorded_again=1, warnings=["1 call was reversed"]
    )
    result = tollwire("cdrs", "upload", str(calls_csv))
    assert result.exit_code == 0
    for line in ("recorded again      1", "derived call ids    5", "derived duplicates  2"):
        assert line in result.stdout
    assert "tollwire: warning: 1 call was reversed\n" in result.stderr
    assert "--occurrence" in result.stderr


def test_an_empty_file_is_an_empty_upload(tollwire: Tollwire, tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_text("")
    result = tollwire("cdrs", "upload", str(path))
    assert result.exit_code == 0, result.output
    assert "created     0" in result.stdout
