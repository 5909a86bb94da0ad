"""The failed records of an upload: listed with their original content, which can be sent again."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import Any

import psycopg
import pytest

from tests.core.protobuf import framed, varint
from tests.integration.client import (
    NOON_NS,
    Client,
    chunk,
    invalid,
    make_call,
    not_found,
)
from tests.integration.conftest import NewDatabase
from tests.integration.methods import send
from tests.integration.serving import ServerProcess, serving
from tests.integration.uploading import calls_of, counts, stored_call_ids
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types

MAX_ID = 2**63 - 1


def failed(client: Client, upload_id: int, **wanted: Any) -> list[cdr_pb.FailedRecord]:
    """All pages."""
    found: list[cdr_pb.FailedRecord] = []
    token = ""
    while True:
        request = cdr_pb.ListUploadFailuresRequest(upload_id=upload_id, page_token=token, **wanted)
        page = client.cdrs.ListUploadFailures(request)
        found += page.failures
        token = page.next_page_token
        if not token:
            return found


def failing(client: Client, payer: int) -> list[types.Call]:
    """A call for each kind of failure, and some that break a rule in several ways."""
    foreign = client.new_extension(client.new_tenant().id)
    client.create_cdr(make_call(payer, "4420", 7, call_id="old"))
    client.new_rate(payer, "99", "99999999.9999")
    odd_time = make_call(payer, "4420", None, call_id="odd")
    odd_time.ended_at.seconds, odd_time.ended_at.nanos = 2**62, -7
    return [
        make_call(payer, "4421", 7, call_id="old", ended_at=NOON_NS + 1),
        make_call(MAX_ID, "4420", 7, call_id="nobody"),
        make_call(payer, "4420", 7, extension_id=foreign.id),
        make_call(payer, "99", 2_147_483_647, call_id="dear"),
        make_call(payer, "4420", -1, call_id="nul\x00"),
        make_call(payer, "4\x0020" * 100, 7, direction=-3, disposition=99, call_id="x" * 300),
        odd_time,
        types.Call(),
    ]


def test_each_is_kept_as_it_was_sent(client: Client, payer: int) -> None:
    calls = failing(client, payer)
    good = calls_of(payer, 0, 3)
    answers = client.upload(chunk([*good, *calls[:4]]), chunk(calls[4:], 7))
    upload_id = answers[0].upload_id
    answered = [failure for answer in answers for failure in answer.failures]
    for size in (0, 3):
        listed = failed(client, upload_id, page_size=size)
        assert [one.call for one in listed] == calls
        assert [(one.index, one.call_id, one.reason, one.message) for one in listed] == [
            (one.index, one.call_id, one.reason, one.message) for one in answered
        ]
    assert [one.index for one in listed] == list(range(3, 3 + len(calls)))
    assert all(one.created_at.seconds > 0 for one in listed)
    [conflict] = failed(client, upload_id, reason="CDR_CONFLICT")
    assert conflict == listed[0]
    assert failed(client, upload_id, reason="TENANT_NOT_FOUND") == [listed[1]]


def test_a_chunk_that_comes_again_has_the_same_failures(client: Client, payer: int) -> None:
    request = chunk([*failing(client, payer), *calls_of(payer, 0, 2)])
    [first] = client.upload(request)
    request.upload_id = first.upload_id
    listed = failed(client, first.upload_id)
    assert client.upload(request) == [first]
    assert failed(client, first.upload_id) == listed


def test_corrected_records_can_be_sent_again(client: Client, payer: int) -> None:
    [answer] = client.upload(chunk(failing(client, payer)))
    mended = []
    for record in failed(client, answer.upload_id):
        call = make_call(payer, "4420", 7, call_id=f"mended {record.index}")
        record.call.call_id = call.call_id
        record.call.extension_id = 0
        for name in (
            *("tenant_id", "destination_number", "direction", "disposition"),
            *("duration_seconds",),
        ):
            setattr(record.call, name, getattr(call, name))
        record.call.started_at.CopyFrom(call.started_at)
        record.call.ClearField("ended_at")
        mended.append(record.call)
    [again] = client.upload(chunk(mended))
    assert counts(again) == (len(mended), 0, 0, 0, 0)
    assert len(stored_call_ids(client, payer)) == 1 + len(mended)


def test_unknown_fields_do_no_harm(client: Client, payer: int) -> None:
    """A record may be nested as deep as protobuf can read, and longer than any page."""
    deep = varint(20 << 3 | 3) * 98 + varint(20 << 3 | 4) * 98
    long = framed(b"x" * 5 * 2**20, 21 << 3 | 2)
    bad = make_call(payer, "4420", -1, call_id="bad")
    records = [bad.SerializeToString() + extra for extra in (deep, long, b"")]
    request = b"".join(framed(record, 3 << 3 | 2) for record in records)
    [answer] = send(client, "UploadCdrs", request)
    assert counts(answer) == (0, 0, 0, 3, 0)
    assert [one.call for one in failed(client, answer.upload_id)] == [bad] * 3


def test_uploads_are_listed(client: Client, payer: int) -> None:
    made = [client.upload(chunk(calls_of(payer, 2 * n, 2)))[0].upload_id for n in range(3)]
    request = cdr_pb.ListUploadsRequest(page_size=2)
    page = client.cdrs.ListUploads(request)
    newest = [client.get_upload(upload_id) for upload_id in reversed(made)]
    assert list(page.uploads) == newest[:2]
    request.page_token = page.next_page_token
    assert client.cdrs.ListUploads(request).uploads[0] == newest[2]


@pytest.mark.parametrize("upload_id", [0, -1])
def test_lists_that_are_refused(client: Client, upload_id: int) -> None:
    with invalid("upload_id", "reason"):
        failed(client, upload_id, reason="NO_RATE")
    with invalid("page_size"):
        failed(client, 1, page_size=-1)
    with invalid("page_token"):
        client.cdrs.ListUploads(cdr_pb.ListUploadsRequest(page_token="x"))
    with not_found("UPLOAD_NOT_FOUND"):
        failed(client, MAX_ID)


def test_the_server_deletes_old_failed_records(new_database: NewDatabase) -> None:
    url = new_database()
    bad = types.Call(call_id="bad")
    with serving(url) as server, Client(server.address) as client:
        [answer] = client.upload(chunk([bad, bad]))
        upload_id = answer.upload_id
        # As if it were stored long ago; stored rows cannot be changed.
        execute(
            url,
            "INSERT INTO upload_failures (upload_id, record_index, call_id, reason, message,"
            " content, created_at_ns) SELECT upload_id, 2, call_id, reason, message, content, 1"
            " FROM upload_failures WHERE record_index = 1",
        )
        assert [one.index for one in failed(client, upload_id)] == [0, 1, 2]
    with ServerProcess(url, TOLLWIRE_FAILURE_RETENTION_DAYS="1") as server:
        with Client(server.address) as client:
            assert [one.index for one in failed(client, upload_id)] == [0, 1]
        deadline = time.monotonic() + 30
        while execute(url, "SELECT record_index FROM upload_failures ORDER BY 1") != [(0,), (1,)]:
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.05)
        assert server.terminate() == 0, server.log()


def execute(database_url: str, statement: str) -> list[Any]:
    if database_url.startswith("sqlite"):
        connection: Any = sqlite3.connect(
            database_url.removeprefix("sqlite:///"), isolation_level=None
        )
    else:
        url = database_url.replace("postgresql+psycopg:", "postgresql:")
        connection = psycopg.connect(url, autocommit=True)
    with closing(connection):
        cursor = connection.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []
