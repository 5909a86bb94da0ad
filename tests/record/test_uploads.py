"""Uploads: the outcome of each record of a chunk, and of repeated chunks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.world import (
    NOON_NS,
    SECOND_NS,
    World,
    at_once,
    call,
    calls,
    chunk_of,
    in_parts,
)
from tollwire.service.domain.errors import (
    FailedPrecondition,
    InvalidInput,
    NotFound,
    OutOfRange,
    Reason,
)
from tollwire.service.domain.model import BadCall, Call, CdrFilter, Extension, RatingStatus, Tenant
from tollwire.service.domain.record_model import ChunkResult, Upload
from tollwire.service.domain.request import EVERY_TENANT, Caller, Request, Role, Scope
from tollwire.service.domain.thread_context import handling
from tollwire.service.record.recording import Recorder

BAD = BadCall("direction", "is required", call_id="bad")


def counts(answer: ChunkResult | Upload) -> tuple[int, int, int, int, int]:
    """created, duplicates, conflicts, rejected, unrated"""
    return (
        answer.created,
        answer.duplicates,
        answer.conflicts,
        answer.rejected,
        answer.unrated,
    )


def send(worker: World, records: Sequence[Call | BadCall], size: int) -> Upload:
    """A whole upload, chunk by chunk."""
    upload_id = offset = 0
    for part in in_parts(records, size):
        answer = worker.commit(upload_id, offset, part)
        upload_id, offset = answer.upload_id, answer.committed_offset
    return worker.uploads.get(upload_id)


def test_an_upload_in_chunks(world: World, payer: int) -> None:
    records = calls(payer, 0, 25)
    first = world.commit(0, 0, records[:10])
    assert first.upload_id > 0
    assert (first.committed_offset, counts(first), first.failures) == (10, (10, 0, 0, 0, 0), ())
    second = world.commit(first.upload_id, 10, records[10:])
    assert (second.upload_id, second.committed_offset) == (first.upload_id, 25)
    upload = world.uploads.get(first.upload_id)
    assert (upload.id, upload.committed_offset, counts(upload)) == (
        first.upload_id,
        25,
        (25, 0, 0, 0, 0),
    )
    assert NOON_NS < upload.created_at_ns < upload.updated_at_ns
    rows = world.rows()
    assert {row.upload_id for row in rows} == {first.upload_id}
    assert {row.call_id for row in rows} == {record.call_id for record in records}
    assert {(row.cost_units, row.cost_fraction_e8) for row in rows} == {(0, 40_0000)}
    assert world.commit(0, 0, []).upload_id != first.upload_id


def test_an_uploaded_cdr_equals_a_created_one(world: World, payer: int) -> None:
    sent = call(
        payer,
        "+44 20",
        63,
        extension_id=world.extension(payer),
        caller_number="1",
        ended_at_ns=NOON_NS + 64 * SECOND_NS,
        call_id="one",
    )
    created = world.cdrs.create(sent)
    answer = world.commit(0, 0, [replace(sent, call_id="two")])
    [uploaded] = world.cdrs.list(CdrFilter(), 1, "").items
    assert uploaded.upload_id == answer.upload_id
    assert created == replace(
        uploaded,
        id=created.id,
        call=sent,
        upload_id=0,
        created_at_ns=created.created_at_ns,
    )


def test_every_kind_of_outcome_in_one_chunk(world: World, payer: int) -> None:
    foreign = world.extension(world.tenant())
    other = world.tenant()
    world.rate(other, "44", 600, 1)
    world.rate(payer, "99", 99_999_999_9999)
    old = world.cdrs.create(call(payer, call_id="old"))
    dear = call(payer, "99", 2_147_483_647, call_id="dear")
    records: list[Call | BadCall] = [
        call(payer, call_id="new"),
        call(payer, call_id="old"),  # duplicate of a stored one
        call(payer, call_id="old", seconds=8),  # conflict with a stored one
        call(payer, call_id="new"),  # duplicate of one in this chunk
        call(payer, call_id="new", caller_number="1"),  # conflict with one in this chunk
        call(payer, "33", call_id="unrated"),
        BAD,
        call(10**9, call_id="nobody"),
        call(payer, extension_id=foreign, call_id="foreign"),
        dear,
        call(payer, call_id="dear"),  # the first of its id that can be recorded
        dear,
        call(other, call_id="new"),  # another tenant's
        call(payer, extension_id=10**9, call_id="new"),
        call(payer),
        call(payer),  # duplicate by content
    ]
    answer = world.commit(0, 0, records)
    assert answer.committed_offset == len(records)
    assert counts(answer) == (5, 3, 2, 6, 1)
    assert [(failed.index, failed.call_id, failed.reason) for failed in answer.failures] == [
        (2, "old", "CDR_CONFLICT"),
        (4, "new", "CDR_CONFLICT"),
        (6, "bad", "INVALID_FIELD"),
        (7, "nobody", "TENANT_NOT_FOUND"),
        (8, "foreign", "EXTENSION_NOT_FOUND"),
        (9, "dear", "COST_OVERFLOW"),
        (11, "dear", "COST_OVERFLOW"),
        (13, "new", "EXTENSION_NOT_FOUND"),
    ]
    messages = {failed.index: failed.message for failed in answer.failures}
    stored = {(row.tenant_id, row.call_id): row for row in world.rows()}
    assert f"CDR {old.id} " in messages[2]
    assert "duration_seconds" in messages[2]
    assert f"CDR {stored[payer, 'new'].id} " in messages[4]
    assert "caller_number" in messages[4]
    assert messages[6] == "direction: is required"
    assert stored[payer, "dear"].destination_number == "4420"
    assert len(stored) == 6
    assert counts(world.uploads.get(answer.upload_id)) == counts(answer)
    # Again, in an upload of its own: what was recorded is a duplicate now.
    again = world.commit(0, 0, records)
    assert counts(again) == (0, 8, 4, 4, 0)
    assert {row.id for row in world.rows()} == {row.id for row in stored.values()}


def test_failures_count_from_the_start_of_the_upload(world: World, payer: int) -> None:
    first = world.commit(0, 0, calls(payer, 0, 10))
    records = [*calls(payer, 10, 2), BAD, call(10**9, call_id="nobody")]
    second = world.commit(first.upload_id, 10, records)
    assert [failed.index for failed in second.failures] == [12, 13]


def test_a_chunk_of_nothing_but_bad_records_is_settled(world: World, payer: int) -> None:
    answer = world.commit(0, 0, [BAD, BAD, call(10**9)])
    assert (answer.committed_offset, counts(answer)) == (3, (0, 0, 0, 3, 0))
    assert world.rows() == []


# Repeated chunks.


def test_a_settled_chunk_has_the_same_response(world: World, other: World, payer: int) -> None:
    chunks: list[list[Call | BadCall]] = [
        [*calls(payer, 0, 3), BAD, call(payer, "33", call_id="unrated")],
        [*calls(payer, 0, 2), call(payer, seconds=9, call_id="c0"), *calls(payer, 3, 2)],
    ]
    first = world.commit(0, 0, chunks[0])
    second = world.commit(first.upload_id, 5, chunks[1])
    assert counts(second) == (2, 2, 1, 0, 0)
    world.rate(payer, "33")
    upload = world.uploads.get(first.upload_id)
    for worker in (world, other):  # the other worker has only the stored state
        assert worker.commit(first.upload_id, 5, chunks[1]) == second
        assert worker.commit(first.upload_id, 0, chunks[0]) == first
        assert worker.uploads.get(first.upload_id) == upload


CHANGED: list[Any] = [
    {"duration_seconds": 8},
    {"call_id": "other"},
    {"caller_number": "1"},
    {"ended_at_ns": NOON_NS + SECOND_NS},
    {"tenant_id": 10**9},
]


@pytest.mark.parametrize("change", CHANGED)
def test_a_settled_chunk_with_other_content_is_refused(
    world: World, payer: int, change: dict[str, Any]
) -> None:
    records = calls(payer, 0, 3)
    first = world.commit(0, 0, records)
    before = world.rows()
    changed = [records[0], replace(records[1], **change), records[2]]
    for sent, index in [
        (changed, 1),
        (changed[:2], 1),
        ([*changed, *calls(payer, 3, 1)], 1),
        ([BAD, *records[1:]], 0),
    ]:
        with pytest.raises(FailedPrecondition) as failure:
            world.commit(first.upload_id, 0, sent)
        assert failure.value.reason == Reason.UPLOAD_CHUNK_CHANGED
        assert failure.value.metadata["index"] == str(index)
    assert world.rows() == before
    assert counts(world.uploads.get(first.upload_id)) == (3, 0, 0, 0, 0)


def test_chunks_of_other_sizes_continue_at_the_offset(world: World, payer: int) -> None:
    records = calls(payer, 0, 40)
    upload_id = world.commit(0, 0, records[:10]).upload_id
    for offset, end, committed, created in [
        (5, 20, 20, 10),  # over the end of what is settled
        (2, 8, 20, 0),  # within a settled chunk
        (0, 20, 20, 0),  # two settled chunks in one
        (0, 25, 25, 5),  # and five more
        (15, 25, 25, 0),
        (25, 40, 40, 15),
    ]:
        answer = world.commit(upload_id, offset, records[offset:end])
        assert (answer.committed_offset, answer.created) == (committed, created)
        assert answer.created + answer.already_settled == end - offset
    assert counts(world.uploads.get(upload_id)) == (40, 0, 0, 0, 0)
    assert sorted(row.call_id for row in world.rows()) == sorted(one.call_id for one in records)


def test_settled_chunks_within_a_longer_one_are_compared(world: World, payer: int) -> None:
    records = calls(payer, 0, 30)
    upload_id = world.commit(0, 0, records[:10]).upload_id
    world.commit(upload_id, 10, records[10:20])
    changed = [*records[:15], replace(records[15], duration_seconds=9), *records[16:]]
    for offset in (0, 5, 10):
        with pytest.raises(FailedPrecondition):
            world.commit(upload_id, offset, changed[offset:])
    assert world.uploads.get(upload_id).committed_offset == 20


def test_gaps(world: World, payer: int) -> None:
    def expected(upload_id: int, offset: int, records: list[Call | BadCall]) -> str:
        with pytest.raises(OutOfRange) as failure:
            world.commit(upload_id, offset, records)
        assert failure.value.reason == Reason.UPLOAD_GAP
        return failure.value.metadata["expected_offset"]

    assert expected(0, 1, [BAD]) == "0"
    assert expected(0, 2**63 - 1, []) == "0"
    upload_id = world.commit(0, 0, [BAD, BAD, BAD]).upload_id
    assert expected(upload_id, 4, [BAD]) == "3"
    assert expected(upload_id, 4, []) == "3"
    assert expected(upload_id, 2**63 - 1, [BAD]) == "3"


def test_empty_chunks_change_nothing(world: World, payer: int) -> None:
    upload_id = world.commit(0, 0, []).upload_id
    before = world.uploads.get(upload_id)
    assert before.committed_offset == 0
    assert world.commit(upload_id, 0, []).committed_offset == 0
    assert world.uploads.get(upload_id) == before
    assert world.commit(upload_id, 0, calls(payer, 0, 3)).created == 3
    for offset in (0, 1, 3):
        assert counts(world.commit(upload_id, offset, [])) == (0, 0, 0, 0, 0)
    assert world.commit(upload_id, 3, calls(payer, 3, 3)).created == 3


@pytest.mark.parametrize(
    ("upload_id", "offset", "count", "field"),
    [(-1, 0, 1, "upload_id"), (0, -1, 1, "offset"), (0, 0, 10_001, "calls")],
)
def test_chunks_that_are_refused(
    world: World, upload_id: int, offset: int, count: int, field: str
) -> None:
    with pytest.raises(InvalidInput) as failure:
        world.commit(upload_id, offset, [BAD] * count)
    assert [wrong.field for wrong in failure.value.violations] == [field]


def test_durations_that_pass_64_bits_are_refused(world: World, payer: int) -> None:
    upload_id = world.commit(0, 0, []).upload_id
    with world.database.write() as connection:
        connection.exec_driver_sql(f"UPDATE uploads SET duration_seconds = {2**63 - 1 - 14}")
    with pytest.raises(InvalidInput, match="start another upload"):
        world.commit(upload_id, 0, calls(payer, 0, 3))
    assert world.rows() == []
    assert world.commit(upload_id, 0, calls(payer, 0, 2)).created == 2
    assert world.uploads.get(upload_id).duration_seconds == 2**63 - 1


def test_unknown_uploads(world: World) -> None:
    asks: list[Any] = [lambda: world.uploads.get(9), lambda: world.commit(9, 0, [])]
    for ask in asks:
        with pytest.raises(NotFound) as failure:
            ask()
        assert failure.value.reason == Reason.UPLOAD_NOT_FOUND
    for bad in (0, -1):
        with pytest.raises(InvalidInput):
            world.uploads.get(bad)


def test_a_chunk_that_fails_stores_nothing(
    world: World, payer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = world.commit(0, 0, calls(payer, 0, 5)).upload_id
    before = world.uploads.get(upload_id)

    class Broken(Exception):
        pass

    def broken(*_: object, **__: object) -> None:
        raise Broken

    with monkeypatch.context() as patched:
        patched.setattr("tollwire.service.storage.uploads.chunk_values", broken)
        with pytest.raises(Broken):
            world.commit(upload_id, 5, calls(payer, 5, 5))
    assert len(world.rows()) == 5
    assert world.uploads.get(upload_id) == before
    assert world.commit(upload_id, 5, calls(payer, 5, 5)).created == 5


def test_a_full_chunk(world: World, payer: int) -> None:
    records = calls(payer, 0, 10_000)
    random.Random(1).shuffle(records)
    answer = world.commit(0, 0, records)
    assert counts(answer) == (10_000, 0, 0, 0, 0)
    assert counts(world.commit(0, 0, records)) == (0, 10_000, 0, 0, 0)
    half = [*records[:5000], *calls(payer, 10_000, 5000)]
    assert counts(world.commit(0, 0, half)) == (5000, 5000, 0, 0, 0)


# The digest.


def test_a_digest_depends_on_every_field_and_the_order() -> None:
    one = call(1, call_id="a")
    variants: list[list[Call | BadCall]] = [
        [],
        [one],
        [one, one],
        [one, replace(one, call_id="b")],
        [replace(one, call_id="b"), one],
        [replace(one, caller_number="a", call_id="")],
        [replace(one, ended_at_ns=0)],
        [BAD],
        [replace(BAD, call_id="x")],
        [replace(BAD, field="x")],
        [one, BAD],
        [BAD, one],
    ]
    assert len({chunk_of(variant).digest() for variant in variants}) == len(variants)
    assert chunk_of([replace(BAD, message="in other words")]).digest() == chunk_of([BAD]).digest()


def test_a_digest_never_changes() -> None:
    """Databases store it: after a change, repeated chunks would be refused."""
    one = call(7, "+44 é", call_id="a", ended_at_ns=NOON_NS, extension_id=3)
    assert (
        chunk_of([one, BAD, call(7)]).digest().hex()
        == "879902126954707d1b8e0c188555e03ab88a38b6672100afcf23d3e4fac39716"
    )


# Concurrent requests.


def test_the_same_records_in_two_concurrent_uploads(world: World, other: World, payer: int) -> None:
    records = calls(payer, 0, 2000)
    orders = [records, records[::-1], records[1000:] + records[:1000], records]
    uploads = at_once(
        *(
            lambda worker=worker, order=order: send(worker, order, 150)
            for worker, order in zip([world, other, world, other], orders, strict=True)
        )
    )
    assert all(isinstance(upload, Upload) for upload in uploads), uploads
    assert sum(upload.created for upload in uploads) == 2000
    assert all(upload.created + upload.duplicates == 2000 for upload in uploads)
    rows = world.rows()
    assert sorted(row.call_id for row in rows) == sorted(one.call_id for one in records)


def test_other_content_in_two_concurrent_uploads(world: World, other: World, payer: int) -> None:
    mine, theirs = calls(payer, 0, 1000), calls(payer, 0, 1000, seconds=8)
    first, second = at_once(lambda: send(world, mine, 90), lambda: send(other, theirs, 110))
    assert isinstance(first, Upload), first
    assert isinstance(second, Upload), second
    assert (first.created, first.conflicts) == (second.conflicts, second.created)
    assert first.created + second.created == 1000
    won = {upload.id: seconds for upload, seconds in ((first, 7), (second, 8))}
    rows = world.rows()
    assert len(rows) == 1000
    assert all(row.duration_seconds == won[row.upload_id] for row in rows)


def test_create_and_upload_at_once(world: World, other: World, payer: int) -> None:
    records = calls(payer, 0, 200)
    created, upload = at_once(
        lambda: [other.cdrs.create(one) for one in records], lambda: send(world, records, 20)
    )
    assert isinstance(created, list), created
    assert isinstance(upload, Upload), upload
    assert len(world.rows()) == 200
    assert upload.created + upload.duplicates == 200
    assert sum(cdr.upload_id == upload.id for cdr in created) == upload.created


def test_one_upload_by_several_clients_at_once(world: World, other: World, payer: int) -> None:
    upload_id = world.commit(0, 0, []).upload_id
    parts = in_parts(calls(payer, 0, 400), 40)

    def push(worker: World) -> list[ChunkResult]:
        return [worker.commit(upload_id, 40 * index, part) for index, part in enumerate(parts)]

    results = at_once(*(lambda worker=worker: push(worker) for worker in (world, other) * 2))
    assert all(result == results[0] for result in results), results
    assert counts(world.uploads.get(upload_id)) == (400, 0, 0, 0, 0)
    assert len(world.rows()) == 400


def test_a_chunk_that_continues_an_upload_keeps_to_its_scope(world: World, payer: int) -> None:
    """Also if its caller may see more tenants than the caller who has started it."""
    other = world.tenant()
    extension_id = world.extension(other)
    scoped = Caller("one", Role.INGEST, Scope(frozenset({payer})), token_id=7)
    with handling(Request(caller=scoped)):
        upload_id = world.commit(0, 0, calls(payer, 0, 3)).upload_id
    sent = [
        *calls(payer, 3, 2),
        call(other, call_id="outside"),
        call(payer, call_id="not theirs", extension_id=extension_id),
    ]
    answer = world.commit(upload_id, 3, sent)
    assert counts(answer) == (2, 0, 0, 2, 0)
    assert [(one.index, one.reason) for one in answer.failures] == [
        (5, Reason.TENANT_NOT_FOUND),
        (6, Reason.EXTENSION_NOT_FOUND),
    ]
    assert world.commit(upload_id, 3, sent) == answer
    failed = world.uploads.list_failures(upload_id, "", 0, "").items
    assert [one.failure for one in failed] == list(answer.failures)


def test_a_small_chunk_that_continues_an_upload(world: World, payer: int) -> None:
    """With calls of every outcome, it is answered and stored like any other."""
    upload_id = world.commit(0, 0, calls(payer, 0, 3)).upload_id
    sent: list[Call | BadCall] = [*calls(payer, 2, 3), BAD, *calls(payer, 1, 1, seconds=9)]
    answer = world.commit(upload_id, 3, sent)
    assert counts(answer) == (2, 1, 1, 1, 0)
    bad = world.commit(upload_id, 8, [*calls(payer, 5, 2), BAD])
    assert (counts(bad), [one.index for one in bad.failures]) == ((2, 0, 0, 1, 0), [10])
    unrated = replace(call(payer, call_id="far"), destination_number="999")
    assert counts(world.commit(upload_id, 11, [unrated])) == (1, 0, 0, 0, 1)
    upload = world.uploads.get(upload_id)
    assert (upload.committed_offset, counts(upload)) == (12, (8, 1, 1, 2, 1))
    assert len(world.rows()) == 8
    # What is settled already, and more.
    rest = world.commit(upload_id, 8, [*calls(payer, 5, 2), BAD, unrated, *calls(payer, 7, 1)])
    assert (rest.already_settled, counts(rest)) == (4, (1, 0, 0, 0, 0))


@contextmanager
def uncommitted(world: World, sent: Sequence[Call]) -> Iterator[None]:
    """Within the block, these calls are written but not yet committed."""
    with world.database.write() as connection:
        recorder, records = Recorder(world.decks), chunk_of(sent).records
        parties = recorder.hold(connection, records, EVERY_TENANT)
        recording = recorder.write(connection, recorder.rate(connection, records, parties), 0)
        assert recording.created == len(sent)
        yield


def meanwhile(world: World, sent: Sequence[Call], action: Callable[[], Any]) -> Any:
    """The error of ``action``, begun while these calls are written but not yet committed."""
    with ThreadPoolExecutor(1) as thread:
        with uncommitted(world, sent):
            result = thread.submit(action)
            with pytest.raises(TimeoutError):
                result.result(timeout=0.3)  # it waits for the commit
        return result.exception(timeout=30)


def test_objects_that_calls_name_cannot_be_deleted_before_they_are_committed(
    world: World, other: World, payer: int
) -> None:
    extension_id = world.extension(payer)
    sent = calls(payer, 0, 10, extension_id=extension_id)
    failure = meanwhile(world, sent, lambda: other.tenants.delete_extension(extension_id))
    assert isinstance(failure, FailedPrecondition)
    assert failure.reason == Reason.EXTENSION_IN_USE
    new = world.tenant()
    failure = meanwhile(world, calls(new, 0, 10), lambda: other.tenants.delete(new))
    assert isinstance(failure, FailedPrecondition)
    assert failure.reason == Reason.TENANT_IN_USE


def test_the_currency_cannot_change_before_calls_are_committed(
    world: World, other: World, payer: int
) -> None:
    failure = meanwhile(
        world,
        calls(payer, 0, 10),
        lambda: other.tenants.update(Tenant(id=payer, currency="EUR"), frozenset({"currency"})),
    )
    assert isinstance(failure, FailedPrecondition)
    assert failure.reason == Reason.CURRENCY_IN_USE


def test_other_changes_do_not_wait_for_calls(world: World, other: World, payer: int) -> None:
    """Otherwise steady uploads would block them permanently."""
    if world.database.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    extension_id = world.extension(payer)
    with uncommitted(world, calls(payer, 0, 10, extension_id=extension_id)):
        other.tenants.update(Tenant(id=payer, name="New"), frozenset({"name"}))
        extension = Extension(id=extension_id, number="102")
        other.tenants.update_extension(extension, frozenset({"number"}))
        other.rate(payer, "33")
        other.extension(payer)
    rows = world.rows()
    assert {row.rate_revision for row in rows} == {other.decks.deck(payer).revision - 2}
    assert world.cdrs.get(rows[0].id).tenant.name == "Acme"


def test_rows_are_written_in_the_order_of_their_keys(world: World, payer: int) -> None:
    """So two transactions with the same calls cannot deadlock."""
    other = world.tenant()
    records = [*calls(other, 0, 50), *calls(payer, 0, 50)]
    random.Random(2).shuffle(records)
    world.commit(0, 0, records)
    keys = [(row.tenant_id, row.call_id) for row in world.rows()]
    assert keys == sorted(keys)


# A restart in the middle.


def test_a_restart_in_the_middle(world: World, other: World, payer: int) -> None:
    records = calls(payer, 0, 500)
    undisturbed = send(world, calls(world.tenant(), 0, 500), 70)
    upload_id = world.commit(0, 0, records[:70]).upload_id
    world.commit(upload_id, 70, records[70:140])
    world.database.close()
    # The sender did not get the last response: it sends that chunk again, then continues.
    offset = 70
    while offset < 500:
        answer = other.commit(upload_id, offset, records[offset : offset + 70])
        offset = answer.committed_offset
    assert counts(other.uploads.get(upload_id))[:4] == counts(undisturbed)[:4]
    rows = [row for row in other.rows() if row.tenant_id == payer]
    assert sorted(row.call_id for row in rows) == sorted(one.call_id for one in records)
    assert {row.status for row in rows} == {RatingStatus.RATED}
