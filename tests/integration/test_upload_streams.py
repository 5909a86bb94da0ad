"""Uploads as streams: lock-step, pipelined, broken, in parallel."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from tests.integration.client import (
    Client,
    chunk,
)
from tests.integration.uploading import Counts, calls_of, counts, stored_call_ids
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types


def test_each_request_is_answered_before_the_stream_ends(client: Client, payer: int) -> None:
    """Lock-step: the next chunk is sent only after the answer to the one before."""
    turn = threading.Semaphore(0)

    def requests() -> Iterator[cdr_pb.UploadCdrsRequest]:
        for index in range(5):
            assert turn.acquire(timeout=30)
            yield chunk(calls_of(payer, index * 2, 2), index * 2)

    answers = client.cdrs.UploadCdrs(requests())
    for index in range(5):
        turn.release()
        answer = next(answers)
        assert answer.committed_offset == index * 2 + 2
        # An acknowledged record is stored, and another connection sees it.
        with Client(client.address) as other:
            assert len(stored_call_ids(other, payer)) == index * 2 + 2
    assert list(answers) == []


def test_many_requests_in_flight_are_answered_in_order(client: Client, payer: int) -> None:
    answers = client.upload(
        *(chunk(calls_of(payer, index * 50, 50), index * 50) for index in range(40))
    )
    assert [answer.committed_offset for answer in answers] == list(range(50, 2001, 50))
    assert len(stored_call_ids(client, payer)) == 2000


def test_a_broken_stream_loses_no_acknowledged_record(client: Client, payer: int) -> None:
    hold = threading.Event()

    def requests() -> Iterator[cdr_pb.UploadCdrsRequest]:
        yield chunk(calls_of(payer, 0, 10))
        yield chunk(calls_of(payer, 10, 10), 10)
        hold.wait(30)

    with Client(client.address) as breaker:
        answers = breaker.cdrs.UploadCdrs(requests())
        upload_id = next(answers).upload_id
        assert next(answers).committed_offset == 20
        answers.cancel()
        hold.set()
    state = client.get_upload(upload_id)
    assert state.committed_offset == 20
    [rest] = client.upload(chunk(calls_of(payer, 20, 10), state.committed_offset, upload_id))
    assert rest.committed_offset == 30
    assert stored_call_ids(client, payer) == [f"c{index}" for index in range(30)]


def test_two_streams_on_one_upload_store_each_record_once(client: Client, payer: int) -> None:
    [first] = client.upload(chunk([]))
    requests = [
        chunk(calls_of(payer, index * 20, 20), index * 20, first.upload_id) for index in range(10)
    ]
    results: list[list[cdr_pb.UploadCdrsResponse]] = []
    failures: list[BaseException] = []

    def send() -> None:
        try:
            with Client(client.address) as own:
                results.append(own.upload(*requests))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert results[0] == results[1] == results[2]
    assert counts(client.get_upload(first.upload_id)) == (200, 0, 0, 0, 0)
    assert stored_call_ids(client, payer) == [f"c{index}" for index in range(200)]


def test_uploads_that_overlap_do_not_lock_each_other_out(client: Client, payer: int) -> None:
    """The same calls, in opposite orders, at the same time: each is stored once, and neither stream
    fails."""
    calls = calls_of(payer, 0, 300)
    totals: list[Counts] = []
    failures: list[BaseException] = []

    def send(ordered: list[types.Call]) -> None:
        try:
            with Client(client.address) as own:
                parts = [ordered[at : at + 30] for at in range(0, 300, 30)]
                answers = own.upload(*(chunk(part, index * 30) for index, part in enumerate(parts)))
                totals.append(counts(own.get_upload(answers[0].upload_id)))
        except BaseException as error:
            failures.append(error)

    orders = [calls, calls[::-1], calls[150:] + calls[:150], calls]
    threads = [threading.Thread(target=send, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sum(total[0] for total in totals) == 300
    assert all(total[0] + total[1] == 300 for total in totals)
    assert len(stored_call_ids(client, payer)) == 300
