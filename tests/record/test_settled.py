"""Parts of chunks that an older release settled with one digest for a whole chunk."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ratingcore.record.record_digest import digest_of_bad
from tests.world import NOON_NS, World
from tollwire.service.domain.errors import FailedPrecondition, Reason
from tollwire.service.domain.record_model import ChunkResult
from tollwire.service.record.upload_chunks import UploadChunk
from tollwire.service.rpc.conversion import uploads as conversion
from tollwire.service.storage.schema import triggers
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import types_pb2


def sent(payer: int, call_ids: str, **fields: object) -> list[types_pb2.Call]:
    made = []
    for index, call_id in enumerate(call_ids):
        one = types_pb2.Call(
            tenant_id=payer,
            destination_number="4420",
            direction=2,
            disposition=1,
            duration_seconds=-1 if call_id == "!" else 7,
            call_id=call_id,
        )
        one.started_at.FromNanoseconds(NOON_NS + index)
        made.append(one)
    return made


def chunk(calls: list[types_pb2.Call]) -> UploadChunk:
    return conversion.chunk(pb.UploadCdrsRequest(calls=calls).SerializeToString())[2]


def of_an_older_release(world: World, settled: UploadChunk) -> None:
    with world.database.write() as connection:
        triggers.drop(connection)
        place = "?" if world.database.is_sqlite else "%s"
        connection.exec_driver_sql(
            f"UPDATE upload_chunks SET record_digests = NULL, digest = {place}", (settled.digest(),)
        )
        triggers.install(connection)


def commit(world: World, upload_id: int, offset: int, calls: list[types_pb2.Call]) -> ChunkResult:
    return world.uploads.commit(upload_id, offset, chunk(calls))


@pytest.fixture
def old(world: World, payer: int) -> tuple[ChunkResult, list[types_pb2.Call]]:
    """Good, bad, duplicate, in conflict."""
    calls = sent(payer, "ab!cadd")
    calls[4] = sent(payer, "a")[0]
    answer = commit(world, 0, 0, calls)
    assert (answer.created, answer.duplicates, answer.conflicts, answer.rejected) == (4, 1, 1, 1)
    of_an_older_release(world, chunk(calls))
    return answer, calls


Old = tuple[ChunkResult, list[types_pb2.Call]]


def test_exactly_the_old_chunk_is_answered_as_it_was(world: World, old: Old) -> None:
    answer, calls = old
    assert commit(world, answer.upload_id, 0, calls) == answer


def test_parts_of_the_old_chunk_are_compared_with_the_stored_rows(
    world: World, payer: int, old: Old
) -> None:
    answer, calls = old
    upload_id = answer.upload_id
    more = sent(payer, "........xyz")[8:]
    for begin, end in [(0, 3), (2, 3), (4, 7), (6, 7), (1, 6)]:
        part = commit(world, upload_id, begin, calls[begin:end])
        assert part.already_settled == end - begin
        assert [failure.index for failure in part.failures] == [
            failure.index for failure in answer.failures if begin <= failure.index < end
        ]
    straddling = commit(world, upload_id, 5, [*calls[5:], *more])
    assert (straddling.already_settled, straddling.created) == (2, 3)


@pytest.mark.parametrize("index", range(7))
def test_other_content_in_a_part_of_it_is_refused(world: World, old: Old, index: int) -> None:
    answer, calls = old
    calls[index].caller_number = "other"
    for begin, end in [(max(0, index - 1), index + 1), (0, 7), (index, index + 1)]:
        with pytest.raises(FailedPrecondition) as failure:
            commit(world, answer.upload_id, begin, calls[begin:end])
        assert failure.value.reason == Reason.UPLOAD_CHUNK_CHANGED
        assert failure.value.metadata["index"] == str(index)


def test_a_part_that_cannot_be_compared_names_the_whole_chunk(world: World, old: Old) -> None:
    answer, calls = old
    with world.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM upload_failures")
    with pytest.raises(FailedPrecondition, match=r"record 2 .*records 0 to 6 as one chunk"):
        commit(world, answer.upload_id, 1, calls[1:4])
    again = commit(world, answer.upload_id, 0, calls)
    assert replace(again, failures=answer.failures) == answer
    assert commit(world, answer.upload_id, 0, calls[:2]).already_settled == 2


def test_a_record_that_an_older_release_refused_is_recognised(world: World, payer: int) -> None:
    """Its bytes are the same, whatever the rules are now."""
    calls = sent(payer, "ab")
    whole = chunk(calls)
    bad = conversion.chunk(pb.UploadCdrsRequest(calls=sent(payer, "!")).SerializeToString())[2]
    answer = commit(world, 0, 0, [calls[0], *sent(payer, "!")])
    stored = whole.record_digests()[:8] + digest_of_bad(calls[1].SerializeToString())
    with world.database.write() as connection:
        triggers.drop(connection)
        place = "?" if world.database.is_sqlite else "%s"
        connection.exec_driver_sql(f"UPDATE upload_chunks SET record_digests = {place}", (stored,))
        triggers.install(connection)
    assert commit(world, answer.upload_id, 1, [calls[1]]).already_settled == 1
    with pytest.raises(FailedPrecondition):
        world.uploads.commit(answer.upload_id, 1, bad)
