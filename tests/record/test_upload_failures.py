"""The failed records of an upload: stored with their chunk, listed page by page."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from ratingcore.record.records import records_of
from tests.world import World, call, calls
from tollwire.service.domain.errors import InvalidInput, NotFound, Reason
from tollwire.service.domain.model import BadCall, Call, Page
from tollwire.service.domain.paging import MAX_PAGE_BYTES
from tollwire.service.domain.record_model import FailedRecord, Upload
from tollwire.service.record.upload_chunks import UploadChunk
from tollwire.service.record.uploads import FAILURE_REASONS
from tollwire.service.storage import upload_failures

BAD = BadCall("direction", "is required", call_id="bad")
Fetch = Callable[[int, str], Page[Any]]


def everything(fetch: Fetch, page_size: int = 0) -> list[Any]:
    """All pages; only the last may be short, unless its items are long."""
    token, found = "", []
    while True:
        page = fetch(page_size, token)
        found += page.items
        token = page.next_page_token
        if not token:
            return found
        assert page.items


def failed(world: World, upload_id: int, reason: str = "", size: int = 0) -> list[FailedRecord]:
    return everything(lambda *page: world.uploads.list_failures(upload_id, reason, *page), size)


def test_failed_records_are_listed_as_they_were_answered(world: World, payer: int) -> None:
    chunks: list[list[Call | BadCall]] = [
        [call(payer, call_id="a"), BAD, call(payer, call_id="a", seconds=8), call(10**9)],
        [BAD, *calls(payer, 0, 3), call(payer, call_id="a", seconds=9)],
    ]
    upload_id = world.commit(0, 0, chunks[0]).upload_id
    second = world.commit(upload_id, 4, chunks[1])
    world.commit(0, 0, [BAD])  # of another upload
    answered = [*world.commit(upload_id, 0, chunks[0]).failures, *second.failures]
    assert [one.index for one in answered] == [1, 2, 3, 4, 8]
    for size in (0, 1, 2, 5, 1000):
        assert [one.failure for one in failed(world, upload_id, size=size)] == answered
    for reason in FAILURE_REASONS:
        expected = [one for one in answered if one.reason == reason]
        assert [one.failure for one in failed(world, upload_id, reason, 1)] == expected
    upload = world.uploads.get(upload_id)
    times = [one.created_at_ns for one in failed(world, upload_id)]
    assert times == sorted(times)
    assert upload.created_at_ns < times[0] < times[-1] == upload.updated_at_ns


def test_lists_that_are_refused(world: World) -> None:
    upload_id = world.commit(0, 0, [BAD, BAD]).upload_id
    with pytest.raises(NotFound) as missing:
        world.uploads.list_failures(upload_id + 1, "", 0, "")
    assert missing.value.reason == Reason.UPLOAD_NOT_FOUND
    with pytest.raises(InvalidInput) as wrong:
        world.uploads.list_failures(0, "NO_RATE", 0, "")
    assert [one.field for one in wrong.value.violations] == ["upload_id", "reason"]
    token = world.uploads.list_failures(upload_id, "", 1, "").next_page_token
    for other in ((upload_id, "INVALID_FIELD", 1, token), (upload_id, "", -1, ""), (1, "", 0, "x")):
        with pytest.raises(InvalidInput):
            world.uploads.list_failures(*other)


def test_an_upload_without_failed_records(world: World, payer: int) -> None:
    upload_id = world.commit(0, 0, calls(payer, 0, 3)).upload_id
    assert world.uploads.list_failures(upload_id, "", 0, "") == Page([])


def test_texts_that_a_database_cannot_keep_do_not_stop_a_chunk(world: World, payer: int) -> None:
    bad = BadCall("call_id", "has a NUL: \0", call_id="a\0b")
    answer = world.commit(0, 0, [bad, *calls(payer, 0, 2)])
    assert (answer.created, answer.rejected) == (2, 1)
    [kept] = failed(world, answer.upload_id)
    assert (kept.failure,) == answer.failures
    assert kept.failure.message == "call_id: has a NUL: "


def test_ten_thousand_failed_records_of_the_greatest_length(world: World, payer: int) -> None:
    """The longest call_ids, with the characters that are longest when quoted: a chunk has a limited
    size, and so does each page."""
    number = "\U0001f4de" * 256
    wide = "\U000e0001" * 250
    world.commit(0, 0, [call(payer, call_id=f"{wide}{n}") for n in range(10_000)])
    changed = [
        call(payer, number, 8, call_id=f"{wide}{n}", caller_number=number) for n in range(10_000)
    ]
    answer = world.commit(0, 0, changed)
    assert answer.conflicts == len(answer.failures) == 10_000
    sizes = [len((one.message + one.call_id).encode()) for one in answer.failures]
    assert max(sizes) < 4_000  # docs/api.md says so
    page = world.uploads.list_failures(answer.upload_id, "", 1000, "")
    shown = [one.failure for one in page.items]
    page = world.uploads.list_failures(answer.upload_id, "", 1000, page.next_page_token)
    shown += [one.failure for one in page.items]
    assert tuple(shown) == answer.failures[: len(shown)]
    assert 2 * MAX_PAGE_BYTES / 20_000 < len(shown) < 2 * MAX_PAGE_BYTES / 2_500


def test_a_page_ends_where_the_content_is_long(world: World) -> None:
    """Content is a client's bytes, and may be as long as a message."""
    sizes = [10, MAX_PAGE_BYTES + 1, 10, 10, MAX_PAGE_BYTES // 2, MAX_PAGE_BYTES // 2, 10]
    upload_id = world.commit(0, 0, []).upload_id
    chunk = UploadChunk(records_of([None] * len(sizes)), dict.fromkeys(range(len(sizes)), BAD))
    answer = world.uploads.commit(upload_id, 0, chunk)
    with world.database.write() as connection:
        upload_failures.delete_before(connection, 2**63 - 1, 100)
        made = (
            FailedRecord(failure, random.Random(size).randbytes(size), 1)
            for failure, size in zip(answer.failures, sizes, strict=True)
        )
        upload_failures.add(connection, upload_id, made)
    pages: list[list[int]] = []

    def fetch(size: int, token: str) -> Page[FailedRecord]:
        page = world.uploads.list_failures(upload_id, "", size, token)
        pages.append([one.failure.index for one in page.items])
        return page

    shown = everything(fetch)
    assert [len(one.content) for one in shown] == sizes
    assert pages == [[0], [1], [2, 3, 4], [5, 6]]


def test_uploads_are_listed_newest_first(world: World, payer: int) -> None:
    def fetch(size: int, token: str) -> Page[Upload]:
        return world.uploads.list(size, token)

    assert everything(fetch) == []
    made = [world.commit(0, 0, [BAD, *calls(payer, n, 1)]).upload_id for n in range(5)]
    for size in (0, 1, 2, 4, 5, 6):
        shown = everything(fetch, size)
        assert shown == [world.uploads.get(upload_id) for upload_id in reversed(made)]
    first = world.uploads.list(2, "")
    world.commit(0, 0, [])
    [older] = world.uploads.list(1, first.next_page_token).items
    assert older.id == made[2]
    with pytest.raises(InvalidInput):
        world.uploads.list(-1, "")
