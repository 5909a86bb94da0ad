"""Calls that are recorded again after their CDR was reversed: generations of one call_id."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from tests.world import World, at_once, call, calls, in_parts
from tollwire.service.domain.errors import AlreadyExists, InvalidInput
from tollwire.service.domain.model import BadCall, Call, Cdr, CdrFilter, ReversalRequest, UsageQuery
from tollwire.service.domain.record_model import ChunkResult, UploadReversal, VerificationFilter
from tollwire.service.record.ledger import Ledger
from tollwire.service.record.verification import Verification
from tollwire.service.storage.schema import triggers

WHY = ReversalRequest("wrong rate", "billing")
BAD = BadCall("direction", "is required", call_id="bad")


def outcome(answer: ChunkResult) -> tuple[int, int, int, int, int]:
    """created, recorded_again, duplicates, conflicts, rejected"""
    return (
        answer.created,
        answer.recorded_again,
        answer.duplicates,
        answer.conflicts,
        answer.rejected,
    )


def cdrs_of(world: World, tenant_id: int) -> list[Cdr]:
    """By rising generation. At most one of a call_id is not reversed, and generations have no
    gap."""
    listed = world.cdrs.list(CdrFilter(tenant_id=tenant_id), 1000, "").items
    found = sorted(listed, key=lambda cdr: cdr.generation)
    generations: dict[str, list[Cdr]] = {}
    for cdr in found:
        generations.setdefault(cdr.call.call_id, []).append(cdr)
    for same in generations.values():
        assert [cdr.generation for cdr in same] == list(range(len(same)))
        assert all(cdr.reversal is not None for cdr in same[:-1])
    return found


def is_whole(world: World) -> None:
    """Every cost and every entry of the ledger verifies."""
    *_, checked = Verification(world.database).verify(VerificationFilter())
    assert (checked.done, checked.different) == (True, 0)
    *_, entries = Ledger(world.database).verify("")
    assert (entries.done, entries.differences) == (True, ())


def test_an_upload_is_billed_again_after_its_reversal(world: World, payer: int) -> None:
    records = calls(payer, 0, 5)
    first = world.commit(0, 0, records)
    assert first.recorded_again == 0
    world.reversals.reverse_upload(first.upload_id, WHY)
    second = world.commit(0, 0, records)
    assert outcome(second) == (5, 5, 0, 0, 0)
    assert world.uploads.get(second.upload_id).recorded_again == 5
    assert world.commit(second.upload_id, 0, records) == second
    corrected = [replace(one, duration_seconds=60) for one in records]
    world.reversals.reverse_upload(second.upload_id, WHY)
    third = world.commit(0, 0, corrected)
    assert outcome(third) == (5, 5, 0, 0, 0)
    found = cdrs_of(world, payer)
    assert [cdr.generation for cdr in found] == [0] * 5 + [1] * 5 + [2] * 5
    assert {cdr.upload_id for cdr in found if cdr.reversal is None} == {third.upload_id}
    assert {cdr.cost_e8 for cdr in found if cdr.generation == 2} == {200_0000}
    [row] = world.usage.summarize(UsageQuery(tenant_id=payer))
    assert (row.billed.calls, row.corrected.calls) == (15, 5)
    assert row.corrected.cost_e8 == 5 * 200_0000
    is_whole(world)


def test_chunks_of_the_reversed_upload_have_the_same_responses(world: World, payer: int) -> None:
    records = calls(payer, 0, 5)
    first = world.commit(0, 0, records)
    upload_id = first.upload_id
    world.reversals.reverse_upload(upload_id, WHY)
    again = world.commit(upload_id, 0, records)
    assert again == replace(first, duplicates_of_reversed=5)
    assert world.uploads.get(upload_id).reversed == 5
    world.commit(0, 0, records[:2])
    again = world.commit(upload_id, 1, records[1:])
    assert (again.already_settled, again.duplicates_of_reversed) == (4, 3)
    assert len(cdrs_of(world, payer)) == 7


def test_a_single_call_is_recorded_again(world: World, payer: int) -> None:
    sent = call(payer, call_id="a")
    first = world.cdrs.create(sent)
    world.reversals.reverse_cdr(first.id, WHY)
    second = world.cdrs.create(sent)
    assert (second.generation, second.call, second.cost_e8) == (1, sent, first.cost_e8)
    assert second.reversal is None and second.id > first.id
    assert world.cdrs.create(sent) == second
    changed = replace(sent, duration_seconds=60)
    with pytest.raises(AlreadyExists) as conflict:
        world.cdrs.create(changed)
    assert conflict.value.metadata["cdr_id"] == str(second.id)
    assert world.reversals.reverse_cdr(first.id, WHY).reversal is not None  # the first, once more
    assert world.cdrs.get(second.id).reversal is None
    world.reversals.reverse_cdr(second.id, WHY)
    third = world.cdrs.create(changed)
    assert (third.generation, third.cost_e8) == (2, 200_0000)
    # The content that was recorded first is in conflict with the present one.
    with pytest.raises(AlreadyExists):
        world.cdrs.create(sent)
    assert len(cdrs_of(world, payer)) == 3
    is_whole(world)


def test_a_derived_call_id_is_recorded_again(world: World, payer: int) -> None:
    sent = call(payer)
    first = world.cdrs.create(sent)
    world.reversals.reverse_cdr(first.id, WHY)
    answer = world.commit(0, 0, [sent, sent, call(payer, "33")])
    assert outcome(answer) == (2, 1, 1, 0, 0)
    assert (answer.derived_call_ids, answer.derived_duplicates) == (3, 1)
    newest = cdrs_of(world, payer)[-1]
    assert (newest.generation, newest.call.call_id) == (1, first.call.call_id)


def test_every_kind_of_outcome_beside_those_recorded_again(world: World, payer: int) -> None:
    world.rate(payer, "99", 99_999_999_9999)
    for call_id in ("back", "twice", "changed", "dear", "stands"):
        cdr = world.cdrs.create(call(payer, call_id=call_id))
        if call_id != "stands":
            world.reversals.reverse_cdr(cdr.id, WHY)
    records: list[Call | BadCall] = [
        call(payer, call_id="z-new"),
        call(payer, call_id="back"),
        call(payer, call_id="twice"),
        call(payer, call_id="twice"),  # duplicate
        call(payer, call_id="twice", seconds=8),  # conflict
        call(payer, "4421", call_id="changed"),
        call(payer, "4420", call_id="changed"),  # conflict with the line before
        call(payer, "99", 2_147_483_647, call_id="dear"),  # rejected, although it was recorded
        call(payer, call_id="stands"),  # duplicate
        call(payer, call_id="stands", seconds=9),  # conflict
        BAD,
        call(payer, call_id="a-new"),
    ]
    answer = world.commit(0, 0, records)
    assert outcome(answer) == (5, 3, 2, 3, 2)
    assert [(one.index, one.reason) for one in answer.failures] == [
        (4, "CDR_CONFLICT"),
        (6, "CDR_CONFLICT"),
        (7, "COST_OVERFLOW"),
        (9, "CDR_CONFLICT"),
        (10, "INVALID_FIELD"),
    ]
    found = cdrs_of(world, payer)
    mine = {cdr.call.call_id: cdr.generation for cdr in found if cdr.upload_id == answer.upload_id}
    assert mine == {"a-new": 0, "z-new": 0, "back": 1, "twice": 1, "changed": 1}
    is_whole(world)
    # The reversal of the upload takes back the CDRs that it created, and no others.
    assert world.reversals.reverse_upload(answer.upload_id, WHY) == UploadReversal(5, 5, 0)
    standing = {cdr.call.call_id for cdr in cdrs_of(world, payer) if cdr.reversal is None}
    assert standing == {"stands"}
    is_whole(world)


def test_an_unrated_call_is_recorded_again_and_priced(world: World, payer: int) -> None:
    sent = call(payer, "33", call_id="a")
    first = world.cdrs.create(sent)
    world.reversals.reverse_cdr(first.id, WHY)
    second = world.cdrs.create(sent)
    world.rate(payer, "33", 600, 60)
    outcome = world.cdrs.rate_unrated(payer, None, None)
    assert (outcome.examined, outcome.rated) == (1, 1)
    assert world.cdrs.get(first.id).cost_e8 is None
    assert world.cdrs.get(second.id).cost_e8 == 600_0000
    assert world.cdrs.create(sent).id == second.id
    is_whole(world)


def test_one_of_two_that_record_again_at_once_wins(world: World, other: World, payer: int) -> None:
    for turn in range(5):
        sent = [replace(one, call_id=f"t{turn}-{one.call_id}") for one in calls(payer, 0, 40)]
        upload = world.commit(0, 0, sent)
        world.reversals.reverse_upload(upload.upload_id, WHY)
        mixed = [*sent[20:], *sent[:20]]
        changed = [replace(one, caller_number="1") for one in sent]
        answers = at_once(
            lambda sent=sent: world.commit(0, 0, sent),
            lambda mixed=mixed: other.commit(0, 0, mixed),
            lambda changed=changed: other.commit(0, 0, changed),
            lambda sent=sent: world.cdrs.create(sent[7]),
        )
        chunks: list[Any] = answers[:3]
        assert all(isinstance(answer, ChunkResult) for answer in chunks), answers
        created = sum(answer.created for answer in chunks)
        by_itself = answers[3]
        assert isinstance(by_itself, Cdr | AlreadyExists)
        assert sum(answer.recorded_again for answer in chunks) == created
        assert created in (39, 40)
        for answer in chunks:
            assert answer.created + answer.duplicates + answer.conflicts == 40
        found = [cdr for cdr in cdrs_of(world, payer) if cdr.call.call_id.startswith(f"t{turn}-")]
        assert Counter(cdr.generation for cdr in found) == {0: 40, 1: 40}
    is_whole(world)


def test_a_reversal_and_a_record_at_once(world: World, other: World, payer: int) -> None:
    sent = call(payer, call_id="a")
    cdr = world.cdrs.create(sent)
    for _ in range(10):
        done = at_once(
            lambda cdr=cdr: world.reversals.reverse_cdr(cdr.id, WHY),
            lambda: other.commit(0, 0, [sent]),
        )
        assert isinstance(done[1], ChunkResult), done
        assert done[1].created + done[1].duplicates == 1
        assert done[1].recorded_again == done[1].created
        cdr = world.cdrs.create(sent)
    cdrs_of(world, payer)
    is_whole(world)


def insert_again(world: World, cdr_id: int, generation: int) -> None:
    """A copy of a CDR as another generation, without the service."""
    with world.database.write() as connection:
        columns = connection.exec_driver_sql("SELECT * FROM cdrs").keys()
        changed = {"id": f"{10**6 + generation}", "generation": str(generation)}
        values = ", ".join(changed.get(name, name) for name in columns)
        connection.exec_driver_sql(
            f"INSERT INTO cdrs ({', '.join(columns)}) SELECT {values} FROM cdrs WHERE id = {cdr_id}"
        )


def test_the_database_refuses_a_second_cdr_that_is_not_reversed(world: World, payer: int) -> None:
    cdr = world.cdrs.create(call(payer, call_id="a"))
    other = world.cdrs.create(call(payer, call_id="b"))
    world.reversals.reverse_cdr(other.id, WHY)
    for generation in (1, 2):
        with pytest.raises(IntegrityError):
            insert_again(world, cdr.id, generation)
    world.reversals.reverse_cdr(cdr.id, WHY)
    with pytest.raises(IntegrityError):
        insert_again(world, cdr.id, 2)
    insert_again(world, cdr.id, 1)
    with pytest.raises(IntegrityError):
        insert_again(world, cdr.id, 2)
    assert [cdr.generation for cdr in cdrs_of(world, payer) if cdr.call.call_id == "a"] == [0, 1]


def test_after_the_last_generation_a_call_is_refused(world: World, payer: int) -> None:
    sent = call(payer, call_id="a")
    for _ in range(2):
        world.reversals.reverse_cdr(world.cdrs.create(sent).id, WHY)
    with world.database.write() as connection:
        triggers.drop(connection)
        connection.exec_driver_sql("UPDATE cdrs SET generation = 32767 WHERE generation = 1")
        triggers.install(connection)
    with pytest.raises(AlreadyExists, match="another call_id"):
        world.cdrs.create(sent)
    answer = world.commit(0, 0, [sent, sent, call(payer, call_id="b")])
    assert outcome(answer) == (1, 0, 0, 2, 0)


def test_a_large_upload_is_recorded_again(world: World, payer: int) -> None:
    records = calls(payer, 0, 3000)
    first = world.commit(0, 0, records)
    world.reversals.reverse_upload(first.upload_id, WHY)
    upload_id = offset = 0
    for part in in_parts([*records[::2], *calls(payer, 5000, 500)], 700):
        answer = world.commit(upload_id, offset, part)
        upload_id, offset = answer.upload_id, answer.committed_offset
    upload = world.uploads.get(upload_id)
    assert (upload.created, upload.recorded_again) == (2000, 1500)
    with pytest.raises(InvalidInput):
        world.uploads.get(0)
    is_whole(world)
