"""Calls that are recorded again after a reversal, and derived call_ids, as clients see them."""

from __future__ import annotations

import pytest

from tests.integration.client import NOON_NS, Client, chunk, make_call
from tests.integration.uploading import calls_of, counts
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types


def reverse_upload(client: Client, upload_id: int) -> None:
    request = cdr_pb.ReverseUploadRequest(upload_id=upload_id, reason="wrong", requested_by="ann")
    client.cdrs.ReverseUpload(request)


def test_the_corrected_file_is_billed(client: Client, payer: int) -> None:
    wrong = calls_of(payer, 0, 5)
    [first] = client.upload(chunk(wrong))
    assert (first.recorded_again, list(first.warnings)) == (0, [])
    reverse_upload(client, first.upload_id)
    right = calls_of(payer, 0, 5)
    for call in right:
        call.duration_seconds = 60
    [second] = client.upload(chunk(right))
    assert counts(second) == (5, 0, 0, 0, 0)
    assert second.recorded_again == 5
    assert second.warnings[0].startswith("5 calls were recorded again")
    cdrs = client.list_cdrs(tenant_id=payer)
    standing = [cdr for cdr in cdrs if not cdr.HasField("reversal")]
    assert {(cdr.generation, cdr.cost) for cdr in standing} == {(1, "0.0200")}
    assert len(standing) == 5 and len(cdrs) == 10
    before, after = map(client.get_upload, (first.upload_id, second.upload_id))
    assert (before.reversed, before.recorded_again) == (5, 0)
    assert before.warnings[0].startswith("5 CDRs of this upload are reversed")
    assert (after.reversed, after.recorded_again) == (0, 5)
    # One more client with the same corrected call: a duplicate of the newest.
    created = client.create_cdr(right[0])
    assert created in standing


def test_calls_sent_again_into_the_reversed_upload_bill_nothing(client: Client, payer: int) -> None:
    sent = calls_of(payer, 0, 3)
    [first] = client.upload(chunk(sent))
    reverse_upload(client, first.upload_id)
    [again] = client.upload(chunk(sent, 0, first.upload_id))
    assert counts(again) == counts(first)
    assert again.duplicates_of_reversed == 3
    assert again.warnings[0].startswith("3 calls of this chunk were settled before and reversed")
    [one] = client.upload(chunk(sent[1:2], 1, first.upload_id))
    assert (one.already_settled, one.duplicates_of_reversed) == (1, 1)
    assert one.warnings[0].startswith("1 call of this chunk was settled")


@pytest.mark.parametrize("numbered", [False, True])
def test_calls_of_equal_content_without_a_call_id(
    client: Client, payer: int, numbered: bool
) -> None:
    same = make_call(payer, "4420", 7, caller_number="1")
    second = types.Call()
    second.CopyFrom(same)
    second.occurrence = 2 if numbered else 0
    calls = [same, second, make_call(payer, "4420", 7, call_id="named", started_at=NOON_NS + 1)]
    [answer] = client.upload(chunk(calls))
    assert (answer.created, answer.duplicates) == ((3, 0) if numbered else (2, 1))
    assert answer.derived_call_ids == 2
    assert answer.derived_duplicates == answer.duplicates
    assert len(answer.warnings) == answer.derived_duplicates
    upload = client.get_upload(answer.upload_id)
    assert upload.derived_call_ids == 2
    assert upload.derived_duplicates == answer.derived_duplicates
    # The same file again, in a new upload: nothing is recorded twice.
    [again] = client.upload(chunk(calls))
    assert (again.created, again.duplicates, again.derived_duplicates) == (0, 3, 2)
