"""Settled records of an upload that come again in other chunks: answered from the stored results,
and refused by the first index whose content differs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import grpc
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.integration.client import NOON_NS, Client, chunk, make_call, refused
from tests.integration.uploading import calls_of, counts, stored_call_ids
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types

FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
CHANGED = "UPLOAD_CHUNK_CHANGED"


def total(answer: cdr_pb.UploadCdrsResponse) -> int:
    return sum(counts(answer)[:4]) + answer.already_settled


def test_the_first_half_of_a_settled_chunk_is_answered(client: Client, payer: int) -> None:
    calls = calls_of(payer, 0, 10)
    [first] = client.upload(chunk(calls))
    upload_id = first.upload_id
    answers = client.upload(chunk(calls[:5], 0, upload_id), chunk(calls[5:], 5, upload_id))
    for answer in answers:
        assert (answer.committed_offset, answer.already_settled) == (10, 5)
        assert counts(answer) == (0, 0, 0, 0, 0)
        assert not answer.failures
    assert client.upload(chunk(calls, 0, upload_id)) == [first]
    assert counts(client.get_upload(upload_id)) == (10, 0, 0, 0, 0)
    assert len(stored_call_ids(client, payer)) == 10


def test_other_records_inside_the_settled_part_are_refused(client: Client, payer: int) -> None:
    calls = calls_of(payer, 0, 10)
    [first] = client.upload(chunk(calls))
    others = calls_of(payer, 100, 4)
    for offset, sent, index in [
        (3, others, 3),
        (3, [calls[3], calls[4], *others], 5),
        (0, [calls[1]], 0),
        (8, [calls[8], others[0], *others], 9),  # past the end of the settled part
        (8, [calls[8], types.Call(), *others], 9),
    ]:
        with refused(FAILED_PRECONDITION, CHANGED) as refusal:
            client.upload(chunk(sent, offset, first.upload_id))
        assert refusal.metadata["index"] == str(index)
        assert f"record {index} " in refusal.message
        assert refusal.metadata["upload_id"] == str(first.upload_id)
    assert len(stored_call_ids(client, payer)) == 10
    assert client.get_upload(first.upload_id).committed_offset == 10


def test_bad_records_are_compared_by_their_bytes(client: Client, payer: int) -> None:
    bad = [
        make_call(payer, "4420", -1, call_id="x"),
        make_call(payer, "4420", 7, direction=0, call_id="y"),
        make_call(10**15, "4420", 7, call_id="nobody"),
        types.Call(),
    ]
    [first] = client.upload(chunk([*bad, *calls_of(payer, 0, 2)]))
    assert counts(first) == (2, 0, 0, 4, 0)
    [part] = client.upload(chunk(bad[1:3], 1, first.upload_id))
    assert part.already_settled == 2
    assert list(part.failures) == list(first.failures)[1:3]
    # Wrong in the same field for the same reason, but other records.
    changes: list[dict[str, Any]] = [{"caller_number": "9"}, {"duration_seconds": 8}]
    for at, change in enumerate(changes):
        other = types.Call()
        other.CopyFrom(bad[at])
        for name, value in change.items():
            setattr(other, name, value)
        with refused(FAILED_PRECONDITION, CHANGED) as refusal:
            client.upload(chunk([other], at, first.upload_id))
        assert refusal.metadata["index"] == str(at)
        with refused(FAILED_PRECONDITION, CHANGED):
            whole = [*bad, *calls_of(payer, 0, 2)]
            whole[at] = other
            client.upload(chunk(whole, 0, first.upload_id))


def test_a_chunk_across_the_end_is_counted_by_its_parts(client: Client, payer: int) -> None:
    calls = calls_of(payer, 0, 6)
    bad = make_call(payer, "4420", -1, call_id="bad")
    sent = [calls[0], bad, *calls[1:4], bad, calls[4], calls[0]]
    [first] = client.upload(chunk(sent[:3]))
    [second] = client.upload(chunk(sent[1:], 1, first.upload_id))
    assert (second.already_settled, second.committed_offset) == (2, 8)
    assert counts(second) == (3, 1, 0, 1, 0)
    assert [failure.index for failure in second.failures] == [1, 5]
    assert total(second) == 7
    request = chunk(sent, 0, first.upload_id)
    request.control_totals.calls = 8
    request.control_totals.duration_seconds = 6 * 7
    [third] = client.upload(request)
    assert (third.already_settled, third.control_totals_match) == (8, True)


@dataclass(frozen=True)
class Step:
    """Records sent at an offset before the end, one of them perhaps changed."""

    offset: float  # the settled records
    count: int
    changed: int | None


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from([0.0, 0.0, 1.0, 1.0, 1.0]) | st.floats(0, 1),
        st.integers(0, 9),
        st.none() | st.none() | st.integers(0, 8),
    ),
    min_size=3,
    max_size=12,
)
EXAMPLES = settings(
    max_examples=20,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=[Phase.explicit, Phase.generate],
)


def records(payer: int) -> list[types.Call]:
    """Good, bad and repeated ones, in conflict, without ids, without a price."""
    made = []
    for index in range(0, 60, 6):
        good = make_call(payer, "4420", 7, call_id=f"c{index}", started_at=NOON_NS + index)
        conflict = make_call(payer, "4421", 7, call_id=f"c{index}", started_at=NOON_NS + index)
        derived = make_call(payer, "4420", 7, started_at=NOON_NS + index)
        unrated = make_call(payer, "33", 7, call_id=f"u{index}")
        bad = make_call(payer, "4420", -1, call_id=f"b{index}")
        made += [good, bad, derived, conflict, unrated, [good, derived, bad][index % 3]]
    return made


@EXAMPLES
@given(STEPS)
def test_any_chunks(client: Client, steps: list[Step]) -> None:
    payer = client.new_tenant().id
    client.new_rate(payer, "44", "0.0200", 6)
    calls = records(payer)
    upload_id = client.upload(chunk([]))[0].upload_id
    settled: list[tuple[int, int]] = []
    committed = 0
    for step in steps:
        offset = round(step.offset * committed)
        sent = [types.Call.FromString(one.SerializeToString()) for one in calls[offset:]]
        sent = sent[: step.count]
        changed = None if step.changed is None else offset + step.changed
        if changed is not None and changed < offset + len(sent):
            sent[step.changed or 0].caller_number = f"changed {committed}"
        is_refused = changed is not None and changed < min(committed, offset + len(sent))
        if is_refused:
            with refused(FAILED_PRECONDITION, CHANGED) as refusal:
                client.upload(chunk(sent, offset, upload_id))
            assert refusal.metadata["index"] == str(changed)
            assert client.get_upload(upload_id).committed_offset == committed
            continue
        [answer] = client.upload(chunk(sent, offset, upload_id))
        assert total(answer) == len(sent)
        is_exact = (offset, len(sent)) in settled
        old = min(committed, offset + len(sent)) - offset
        assert answer.already_settled == (0 if is_exact else old)
        failed = [failure.index for failure in answer.failures]
        assert failed == sorted(set(failed))
        assert all(offset <= index < offset + len(sent) for index in failed)
        if offset + len(sent) > committed:
            settled.append((committed, offset + len(sent) - committed))
            calls[offset : offset + len(sent)] = sent
            committed = offset + len(sent)
        assert answer.committed_offset == (offset + len(sent) if is_exact else committed)
        upload = client.get_upload(upload_id)
        assert sum(counts(upload)[:4]) == upload.committed_offset == committed
    # Everything once more, in one piece and one by one.
    whole = client.upload(chunk(calls[:committed], 0, upload_id))[0]
    assert total(whole) == committed
    for index in range(committed):
        [one] = client.upload(chunk([calls[index]], index, upload_id))
        assert total(one) == 1
        assert list(one.failures) == [
            failure for failure in whole.failures if failure.index == index
        ]
    stored = client.list_cdrs(tenant_id=payer, page_size=1000)
    assert len(stored) == client.get_upload(upload_id).created
