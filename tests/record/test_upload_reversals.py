"""ReverseUpload: every CDR that an upload created, once, in parts, during concurrent changes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.world import NOON_NS, World, at_once, calls, in_parts
from tollwire.service.domain.errors import FailedPrecondition, InvalidInput, NotFound, Reason
from tollwire.service.domain.model import BadCall, Call, ReversalRequest
from tollwire.service.domain.record_model import UploadReversal
from tollwire.service.record.reversals import Reversals
from tollwire.service.storage import ledger
from tollwire.service.storage.ledger import EntryKind

WHY = ReversalRequest("poured in twice", "anna@noc-1")


def uploaded(world: World, records: Sequence[Call], chunk_calls: int = 3) -> int:
    """The id of an upload of the records in small chunks."""
    upload_id = world.commit(0, 0, []).upload_id
    offset = 0
    for chunk in in_parts(records, chunk_calls):
        world.commit(upload_id, offset, chunk)
        offset += len(chunk)
    return upload_id


def query(world: World, statement: str) -> list[Any]:
    with world.database.read() as connection:
        return list(connection.exec_driver_sql(statement))


def reversed_call_ids(world: World) -> list[str]:
    return [
        call_id
        for (call_id,) in query(
            world,
            "SELECT call_id FROM cdrs JOIN cdr_reversals ON cdrs.id = cdr_id ORDER BY cdrs.id",
        )
    ]


def exactly_the_uploads_are_reversed(world: World, *upload_ids: int) -> None:
    """Each of their CDRs has one reversal that is its opposite, and no other CDR has any."""
    cdrs = {row.id: row for row in world.rows()}
    entries = query(world, "SELECT * FROM cdr_reversals ORDER BY cdr_id")
    assert [entry.cdr_id for entry in entries] == [
        row.id for row in cdrs.values() if row.upload_id in upload_ids
    ]
    for entry in entries:
        cdr = cdrs[entry.cdr_id]
        copied = ("tenant_id", "started_at_ns", "upload_id")
        assert [getattr(entry, name) for name in copied] == [getattr(cdr, name) for name in copied]
        for name in ("cost_units", "cost_fraction_e8"):
            cost = getattr(cdr, name)
            assert getattr(entry, name) == (None if cost is None else -cost)
    # The ledger has all of them, and none twice.
    covered = query(world, "SELECT first_id, row_count FROM ledger_entries WHERE kind = 3")
    ids = [first + place for first, count in covered for place in range(count)]
    assert sorted(ids) == sorted(entry.id for entry in entries)


@pytest.mark.usefixtures("small_parts")
def test_all_cdrs_that_the_upload_created_and_no_others(world: World, payer: int) -> None:
    """Its duplicates and conflicts are CDRs of others; chunks of all sizes, with others' in
    between."""
    stranger = world.tenant()
    before = world.commit(0, 0, calls(payer, 0, 3)).upload_id
    upload_id = world.commit(0, 0, []).upload_id
    offset = 0
    for index, records in enumerate(
        [
            [*calls(payer, 0, 3), *calls(payer, 10, 1)],
            calls(payer, 1, 2, seconds=99),
            calls(payer, 20, 20),
            [*calls(stranger, 0, 2), BadCall("direction", "is required"), *calls(payer, 40, 2)],
            calls(payer, 50, 1),
            calls(payer, 51, 1),
            calls(payer, 52, 1),
            calls(payer, 53, 1),
            calls(payer, 60, 9, number="33"),
        ]
    ):
        world.commit(upload_id, offset, records)
        offset += len(records)
        world.cdrs.create(calls(stranger, 100 + index, 1)[0])
    created = world.uploads.get(upload_id).created
    assert created == 1 + 20 + 4 + 4 + 9
    single = next(row.id for row in world.rows() if row.upload_id == upload_id)
    world.reversals.reverse_cdr(single, ReversalRequest("by itself", "ben"))
    outcome = world.reversals.reverse_upload(upload_id, WHY)
    assert outcome == UploadReversal(created, created - 1, 1)
    exactly_the_uploads_are_reversed(world, upload_id)
    assert world.reversals.reverse_upload(upload_id, WHY) == UploadReversal(created, 0, created)
    exactly_the_uploads_are_reversed(world, upload_id)
    [(reason,)] = query(world, f"SELECT reason FROM cdr_reversals WHERE cdr_id = {single}")
    assert reason == "by itself"
    assert world.reversals.reverse_upload(before, WHY) == UploadReversal(3, 3, 0)
    exactly_the_uploads_are_reversed(world, upload_id, before)


def test_a_reversed_upload_accepts_no_more_chunks(world: World, payer: int) -> None:
    first, again = calls(payer, 0, 5), calls(payer, 5, 5)
    answer = world.commit(0, 0, first)
    upload_id = answer.upload_id
    at_ns = NOON_NS + 7
    Reversals(world.database, lambda: at_ns).reverse_upload(upload_id, WHY)
    assert world.uploads.get(upload_id).reversed_at_ns == at_ns
    # Answered chunks are answered again, with a count of the calls that bill nothing now.
    assert world.commit(upload_id, 0, first) == replace(answer, duplicates_of_reversed=5)
    part = world.commit(upload_id, 1, first[1:3])
    assert (part.created, part.already_settled, part.duplicates_of_reversed) == (0, 2, 2)
    assert world.uploads.get(upload_id).reversed == 5
    assert [upload.reversed for upload in world.uploads.list(0, "").items] == [5]
    assert world.commit(upload_id, 5, []).committed_offset == 5
    for offset, records in ((5, again), (0, first + again), (3, first[3:] + again)):
        with pytest.raises(FailedPrecondition) as failure:
            world.commit(upload_id, offset, records)
        assert failure.value.reason == Reason.UPLOAD_REVERSED
        assert failure.value.metadata == {"upload_id": str(upload_id)}
    assert world.uploads.get(upload_id).committed_offset == 5
    assert len(world.rows()) == 5
    # The time is that of the first request.
    world.reversals.reverse_upload(upload_id, WHY)
    assert world.uploads.get(upload_id).reversed_at_ns == at_ns
    # Another upload of the same calls records them again.
    assert world.commit(0, 0, first).recorded_again == 5


def test_an_upload_without_cdrs(world: World) -> None:
    upload_id = world.commit(0, 0, []).upload_id
    assert world.reversals.reverse_upload(upload_id, WHY) == UploadReversal(0, 0, 0)
    assert world.uploads.get(upload_id).reversed_at_ns is not None


@pytest.mark.parametrize(
    ("upload_id", "request_", "fields"),
    [
        (0, ReversalRequest("", "x"), ["upload_id", "reason"]),
        (-1, ReversalRequest("x", "x" * 201), ["upload_id", "requested_by"]),
    ],
)
def test_requests_that_are_refused(
    world: World, upload_id: int, request_: ReversalRequest, fields: list[str]
) -> None:
    with pytest.raises(InvalidInput) as failure:
        world.reversals.reverse_upload(upload_id, request_)
    assert [wrong.field for wrong in failure.value.violations] == fields


def test_an_unknown_upload(world: World) -> None:
    with pytest.raises(NotFound) as failure:
        world.reversals.reverse_upload(7, WHY)
    assert failure.value.reason == Reason.UPLOAD_NOT_FOUND


@pytest.mark.usefixtures("small_parts")
def test_it_continues_after_an_interruption(
    world: World, payer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = uploaded(world, calls(payer, 0, 40))
    append: Any = ledger.append
    turns = iter([True, True, False])

    def breaks(connection: Any, kind: EntryKind, *arguments: Any, **options: Any) -> None:
        append(connection, kind, *arguments, **options)
        if kind is EntryKind.REVERSED and not next(turns):
            raise RuntimeError("broken off")

    with monkeypatch.context() as patched:
        patched.setattr("tollwire.service.storage.ledger.append", breaks)
        with pytest.raises(RuntimeError):
            world.reversals.reverse_upload(upload_id, WHY)
    assert len(reversed_call_ids(world)) == 12
    with pytest.raises(FailedPrecondition):
        world.commit(upload_id, 40, calls(payer, 40, 1))
    assert world.reversals.reverse_upload(upload_id, WHY) == UploadReversal(40, 28, 12)
    exactly_the_uploads_are_reversed(world, upload_id)


@pytest.mark.usefixtures("small_parts")
def test_concurrent_reversals(world: World, other: World, payer: int) -> None:
    """The whole upload twice, and single CDRs of it, one of them at its beginning and one at its
    end."""
    upload_id = uploaded(world, calls(payer, 0, 90))
    ids = [row.id for row in world.rows()]

    def singly(worker: World, wanted: list[int]) -> int:
        before = len(reversed_call_ids(worker))
        for cdr_id in wanted:
            worker.reversals.reverse_cdr(cdr_id, ReversalRequest("singly", "ben"))
        return before

    outcomes = at_once(
        lambda: world.reversals.reverse_upload(upload_id, WHY),
        lambda: other.reversals.reverse_upload(upload_id, WHY),
        lambda: singly(world, ids[::2]),
        lambda: singly(other, ids[::-1]),
    )
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)], outcomes
    for outcome in outcomes[:2]:
        assert outcome.cdrs == 90 == outcome.reversed + outcome.reversed_before
    exactly_the_uploads_are_reversed(world, upload_id)
    [(uploads,)] = query(world, "SELECT count(*) FROM cdr_reversals WHERE requested_by <> 'ben'")
    assert uploads == outcomes[0].reversed + outcomes[1].reversed


def test_while_its_chunks_are_being_committed(world: World, other: World, payer: int) -> None:
    """A chunk is committed and reversed, or refused, at any time of the reversal."""
    upload_ids = [reversed_on_its_way(world, other, payer, round_) for round_ in range(12)]
    exactly_the_uploads_are_reversed(world, *upload_ids)


def reversed_on_its_way(world: World, other: World, payer: int, round_: int) -> int:
    upload_id = world.commit(0, 0, []).upload_id
    begun = threading.Event()

    def upload() -> int:
        committed = 0
        try:
            for chunk in range(30):
                if chunk == round_ % 4:
                    begun.set()
                records = calls(payer, round_ * 10_000 + committed, 20 + chunk)
                committed = other.commit(upload_id, committed, records).committed_offset
        except FailedPrecondition as error:
            assert error.reason == Reason.UPLOAD_REVERSED
        return committed

    def reverse() -> UploadReversal:
        assert begun.wait(20)
        return world.reversals.reverse_upload(upload_id, WHY)

    committed, outcome = at_once(upload, reverse)
    assert isinstance(outcome, UploadReversal), outcome
    assert (outcome.cdrs, outcome.reversed_before) == (committed, 0)
    assert world.uploads.get(upload_id).committed_offset == committed
    return upload_id


@pytest.mark.usefixtures("small_parts")
def test_against_rate_unrated(world: World, other: World, payer: int) -> None:
    """Both lock UNRATED CDRs, of several tenants and in an order that is not that of their ids."""
    stranger = world.tenant()
    records = [*calls(payer, 0, 60, number="33"), *calls(stranger, 0, 60, number="33")]
    upload_id = uploaded(world, records[::-1], chunk_calls=7)
    for tenant_id in (stranger, payer):
        world.rate(tenant_id, "33", 60, 60)

    def rate() -> int:
        rated = 0
        for first in range(0, 60, 10):
            rated += other.cdrs.rate_unrated(0, NOON_NS + first, NOON_NS + first + 10).rated
        return rated

    outcome, rated = at_once(lambda: world.reversals.reverse_upload(upload_id, WHY), rate)
    assert outcome == UploadReversal(120, 120, 0)
    assert rated == sum(row.status == 1 for row in world.rows())
    exactly_the_uploads_are_reversed(world, upload_id)
