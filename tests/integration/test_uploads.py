"""Uploads: chunks, failures, duplicates, replays, gaps, changed chunks."""

from __future__ import annotations

import grpc

from tests.integration.client import (
    INBOUND,
    NOON_NS,
    UNRATED,
    Client,
    chunk,
    invalid,
    make_call,
    not_found,
    refused,
    timestamp,
)
from tests.integration.uploading import calls_of, counts, stored_call_ids
from tollwire.v1 import types_pb2 as types

OUT_OF_RANGE = grpc.StatusCode.OUT_OF_RANGE
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
MAX_ID = 2**63 - 1


def test_an_upload_of_three_chunks(client: Client, payer: int) -> None:
    calls = calls_of(payer, 0, 25)
    answers = client.upload(chunk(calls[:10], 0), chunk(calls[10:20], 10), chunk(calls[20:], 20))
    assert [answer.committed_offset for answer in answers] == [10, 20, 25]
    assert [counts(answer) for answer in answers] == [
        (10, 0, 0, 0, 0),
        (10, 0, 0, 0, 0),
        (5, 0, 0, 0, 0),
    ]
    [upload_id] = {answer.upload_id for answer in answers}
    assert upload_id > 0
    upload = client.get_upload(upload_id)
    assert (upload.upload_id, upload.committed_offset) == (upload_id, 25)
    assert counts(upload) == (25, 0, 0, 0, 0)
    assert upload.created_at.seconds > 0
    assert upload.updated_at.ToNanoseconds() >= upload.created_at.ToNanoseconds()
    cdrs = client.list_cdrs(tenant_id=payer)
    assert {cdr.upload_id for cdr in cdrs} == {upload_id}
    assert {cdr.cost for cdr in cdrs} == {"0.0040"}
    assert stored_call_ids(client, payer) == [call.call_id for call in calls]


def test_an_uploaded_cdr_equals_a_created_one(client: Client, payer: int) -> None:
    extension = client.new_extension(payer)
    call = make_call(
        payer, "+44 20", 7, extension_id=extension.id, caller_number="1", ended_at=NOON_NS + 1
    )
    other = types.Call()
    other.CopyFrom(call)
    other.call_id = "other"
    created = client.create_cdr(call)
    [answer] = client.upload(chunk([other]))
    [uploaded] = client.list_cdrs(tenant_id=payer, page_size=1)[:1]
    assert uploaded.call_id == "other"
    assert uploaded.upload_id == answer.upload_id
    for cdr in (created, uploaded):
        for name in ("id", "call_id", "upload_id", "created_at"):
            cdr.ClearField(name)
    assert uploaded == created


def test_every_kind_of_outcome_in_one_chunk(client: Client, payer: int) -> None:
    foreign = client.new_extension(client.new_tenant().id)
    client.create_cdr(make_call(payer, "4420", 7, call_id="old"))
    client.new_rate(payer, "99", "99999999.9999")
    calls = [
        make_call(payer, "4420", 7, call_id="new"),
        make_call(payer, "4420", 7, call_id="old"),  # duplicate
        make_call(payer, "4420", 8, call_id="old"),  # conflict with a stored one
        make_call(payer, "4420", 7, call_id="new"),  # duplicate of one in this chunk
        make_call(payer, "4421", 7, call_id="new"),  # conflict with one in this chunk
        make_call(payer, "33", 7, call_id="unrated"),
        make_call(payer, "4420", -1, call_id="negative"),
        make_call(MAX_ID, "4420", 7, call_id="nobody"),
        make_call(payer, "4420", 7, extension_id=foreign.id, call_id="foreign"),
        make_call(payer, "99", 2_147_483_647, call_id="dear"),
        make_call(payer, "4420", 7, direction=0, call_id="where"),
        make_call(payer, "4420", 7, call_id="nul\x00"),
        make_call(payer, "4420", 7, direction=INBOUND, call_id="in"),
        types.Call(),
    ]
    [answer] = client.upload(chunk(calls))
    assert counts(answer) == (3, 2, 2, 7, 1)
    assert answer.committed_offset == len(calls)
    assert [(failure.index, failure.reason) for failure in answer.failures] == [
        (2, "CDR_CONFLICT"),
        (4, "CDR_CONFLICT"),
        (6, "INVALID_FIELD"),
        (7, "TENANT_NOT_FOUND"),
        (8, "EXTENSION_NOT_FOUND"),
        (9, "COST_OVERFLOW"),
        (10, "INVALID_FIELD"),
        (11, "INVALID_FIELD"),
        (13, "INVALID_FIELD"),
    ]
    messages = {failure.index: failure.message for failure in answer.failures}
    assert all(messages.values())
    [old] = [cdr for cdr in client.list_cdrs(tenant_id=payer) if cdr.call_id == "old"]
    assert str(old.id) in messages[2]
    assert "duration_seconds" in messages[2]
    assert "destination_number" in messages[4]
    assert "direction" in messages[10]
    assert [f.call_id for f in answer.failures][:6] == [
        *["old", "new", "negative", "nobody", "foreign", "dear"]
    ]
    assert sorted(stored_call_ids(client, payer)) == ["in", "new", "old", "unrated"]
    assert counts(client.get_upload(answer.upload_id)) == counts(answer)
    [unrated] = client.list_cdrs(tenant_id=payer, status=UNRATED)
    assert (unrated.call_id, unrated.unrated_reason) == ("unrated", types.UNRATED_REASON_NO_RATE)


def test_calls_without_ids_are_recognised_by_their_content(client: Client, payer: int) -> None:
    calls = [make_call(payer, "4420", 7), make_call(payer, "4420", 7), make_call(payer, "4421", 7)]
    [answer] = client.upload(chunk(calls))
    assert counts(answer) == (2, 1, 0, 0, 0)
    [again] = client.upload(chunk(calls))
    assert counts(again) == (0, 3, 0, 0, 0)
    assert again.upload_id != answer.upload_id


def test_a_chunk_may_be_of_several_tenants(client: Client, payer: int) -> None:
    other = client.new_tenant()
    client.new_rate(other.id, "44", "1.0000", 1)
    calls = [
        make_call(tenant_id, "4420", 60, call_id=str(index))
        for index in range(6)
        for tenant_id in (payer, other.id)
    ]
    [answer] = client.upload(chunk(calls))
    assert counts(answer) == (12, 0, 0, 0, 0)
    assert {cdr.cost for cdr in client.list_cdrs(tenant_id=payer)} == {"0.0200"}
    assert {cdr.cost for cdr in client.list_cdrs(tenant_id=other.id)} == {"1.0000"}


def test_a_failure_counts_from_the_start_of_the_upload(client: Client, payer: int) -> None:
    bad = make_call(payer, "4420", -1, call_id="bad")
    answers = client.upload(
        chunk(calls_of(payer, 0, 10)), chunk([*calls_of(payer, 10, 2), bad], 10)
    )
    assert [failure.index for failure in answers[1].failures] == [12]


def test_a_committed_chunk_is_answered_from_its_stored_result(client: Client, payer: int) -> None:
    bad = make_call(payer, "4420", -1, call_id="bad")
    chunks = [
        chunk([*calls_of(payer, 0, 3), bad, make_call(payer, "33", 1, call_id="unrated")]),
        chunk(calls_of(payer, 3, 3), 5),
    ]
    first = client.upload(*chunks)
    for request in chunks:
        request.upload_id = first[0].upload_id
    assert client.upload(*chunks) == first
    assert client.upload(chunks[1]) == first[1:]
    assert client.upload(chunks[0])[0] == first[0]
    assert counts(client.get_upload(first[0].upload_id)) == (7, 0, 0, 1, 1)


def test_a_committed_chunk_with_other_content_is_refused(client: Client, payer: int) -> None:
    [answer] = client.upload(chunk(calls_of(payer, 0, 3)))
    changed = calls_of(payer, 0, 3)
    changed[1].duration_seconds += 1
    with refused(FAILED_PRECONDITION, "UPLOAD_CHUNK_CHANGED"):
        client.upload(chunk(changed, 0, answer.upload_id))
    assert counts(client.get_upload(answer.upload_id)) == (3, 0, 0, 0, 0)
    assert len(stored_call_ids(client, payer)) == 3


def test_an_upload_in_other_chunks_continues_at_its_offset(client: Client, payer: int) -> None:
    calls = calls_of(payer, 0, 30)
    [first] = client.upload(chunk(calls[:10]))
    upload_id = first.upload_id
    # Across the committed offset: only the records after it are new.
    [second] = client.upload(chunk(calls[5:20], 5, upload_id))
    assert second.committed_offset == 20
    assert counts(second) == (10, 0, 0, 0, 0)
    # Entirely before it: nothing is new.
    [third] = client.upload(chunk(calls[2:8], 2, upload_id))
    assert third.committed_offset == 20
    assert counts(third) == (0, 0, 0, 0, 0)
    [fourth] = client.upload(chunk(calls[20:], 20, upload_id))
    assert counts(client.get_upload(upload_id)) == (30, 0, 0, 0, 0)
    assert fourth.committed_offset == 30
    assert stored_call_ids(client, payer) == [call.call_id for call in calls]


def test_a_gap_is_refused_and_names_the_offset_expected(client: Client, payer: int) -> None:
    with refused(OUT_OF_RANGE, "UPLOAD_GAP") as refusal:
        client.upload(chunk(calls_of(payer, 0, 1), 1))
    assert refusal.metadata["expected_offset"] == "0"
    [answer] = client.upload(chunk(calls_of(payer, 0, 3)))
    with refused(OUT_OF_RANGE, "UPLOAD_GAP") as refusal:
        client.upload(chunk(calls_of(payer, 4, 1), 4, answer.upload_id))
    assert refusal.metadata["expected_offset"] == "3"
    with refused(OUT_OF_RANGE, "UPLOAD_GAP"):
        client.upload(chunk([], 4, answer.upload_id))
    assert len(stored_call_ids(client, payer)) == 3


def test_offsets_and_ids_that_are_refused(client: Client, payer: int) -> None:
    with invalid("offset"):
        client.upload(chunk([], -1))
    with invalid("upload_id"):
        client.upload(chunk([], 0, -1))
    with not_found("UPLOAD_NOT_FOUND"):
        client.upload(chunk([], 0, MAX_ID))
    with not_found("UPLOAD_NOT_FOUND"):
        client.get_upload(MAX_ID)
    for bad in (0, -1):
        with invalid("upload_id"):
            client.get_upload(bad)


def test_a_later_request_may_not_change_to_another_upload(client: Client, payer: int) -> None:
    """Either is a valid design, but no record may get into the wrong upload."""
    [first] = client.upload(chunk(calls_of(payer, 0, 2)))
    [second] = client.upload(chunk(calls_of(payer, 2, 2)))
    requests = [
        chunk(calls_of(payer, 4, 1), 2, first.upload_id),
        chunk(calls_of(payer, 5, 1), 2, second.upload_id),
    ]
    try:
        answers = client.upload(*requests)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    else:
        assert [answer.upload_id for answer in answers] == [first.upload_id, second.upload_id]


def test_an_empty_chunk_may_start_an_upload(client: Client, payer: int) -> None:
    [answer] = client.upload(chunk([]))
    assert answer.upload_id > 0
    assert answer.committed_offset == 0
    assert counts(client.get_upload(answer.upload_id)) == (0, 0, 0, 0, 0)
    [following] = client.upload(chunk(calls_of(payer, 0, 2), 0, answer.upload_id))
    assert (following.upload_id, following.committed_offset) == (answer.upload_id, 2)
    [empty] = client.upload(chunk([], 2, answer.upload_id))
    assert empty.committed_offset == 2


def test_a_stream_without_requests_starts_no_upload(client: Client) -> None:
    assert client.upload() == []


def test_a_chunk_of_ten_thousand_is_taken_and_one_more_is_refused(
    client: Client, payer: int
) -> None:
    calls = calls_of(payer, 0, 10_001)
    with invalid("calls"):
        client.upload(chunk(calls))
    [answer] = client.upload(chunk(calls[:10_000]))
    assert counts(answer) == (10_000, 0, 0, 0, 0)


def test_a_refused_chunk_ends_the_stream_and_keeps_acknowledged_chunks(
    client: Client, payer: int
) -> None:
    requests = [
        chunk(calls_of(payer, 0, 5)),
        chunk(calls_of(payer, 7, 5), 7),
        chunk(calls_of(payer, 5, 2), 5),
    ]
    answers = []
    with refused(OUT_OF_RANGE, "UPLOAD_GAP"):
        for answer in client.cdrs.UploadCdrs(iter(requests)):
            answers.append(answer)
    assert [answer.committed_offset for answer in answers] == [5]
    assert client.get_upload(answers[0].upload_id).committed_offset == 5
    assert len(stored_call_ids(client, payer)) == 5


def test_a_call_uploaded_twice_and_created_once_is_recorded_once(
    client: Client, payer: int
) -> None:
    call = make_call(payer, "4420", 7, call_id="x", ended_at=NOON_NS + 7_000_000_000)
    created = client.create_cdr(call)
    resolved = types.Call()
    resolved.CopyFrom(call)
    resolved.ClearField("duration_seconds")
    other = types.Call()
    other.CopyFrom(call)
    other.started_at.CopyFrom(timestamp(NOON_NS - 1))
    [answer] = client.upload(chunk([resolved, call, other]))
    assert counts(answer) == (0, 2, 1, 0, 0)
    assert client.list_cdrs(tenant_id=payer) == [created]
