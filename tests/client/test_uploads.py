"""Uploads, decks and bulk rating: broken streams, servers that die, bounded memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2

from tests.cli.fake import FakeServer
from tests.integration.client import Client as StubClient
from tests.integration.client import make_call
from tests.integration.serving import ServerProcess
from tollwire.client import (
    AsyncClient,
    Client,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    TollwireError,
    UnavailableError,
    UploadResult,
)
from tollwire.client.uploads import MAX_CHUNK_BYTES, chunked
from tollwire.v1.cdr_service_pb2 import ControlTotals
from tollwire.v1.types_pb2 import IMPORT_MODE_MERGE, RATING_STATUS_RATED, Call, Rate

CALLS = 20
ALL_IDS = [f"c{i}" for i in range(CALLS)]


def calls(count: int = CALLS) -> Iterator[Call]:
    for i in range(count):
        yield Call(call_id=f"c{i}", destination_number="4420", duration_seconds=7)


def upload_by_threads(address: str, source: Iterator[Call], **options: Any) -> UploadResult:
    with Client(address, environment={}) as client:
        return client.upload(source, **options).result()


def upload_by_asyncio(address: str, source: Iterator[Call], **options: Any) -> UploadResult:
    async def run() -> UploadResult:
        async with AsyncClient(address, environment={}) as client:
            return await client.upload(source, **options).result()

    return asyncio.run(run())


Send = Callable[..., UploadResult]
both = pytest.mark.parametrize("send", [upload_by_threads, upload_by_asyncio])


def stored_ids(fake: FakeServer, upload_id: int = 1) -> list[str]:
    return [call.call_id for call in fake.cdrs.uploads[upload_id]]


@both
@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("where", [1, 2, 4])
@pytest.mark.parametrize("code", [code_pb2.UNAVAILABLE, code_pb2.RESOURCE_EXHAUSTED])
def test_a_broken_stream_is_resumed(
    fake: FakeServer, send: Send, how: str, where: int, code: int
) -> None:
    fake.cdrs.breaks, fake.cdrs.code = {where: how}, code
    interruptions: list[tuple[TollwireError, float]] = []
    result = send(
        fake.address,
        calls(),
        chunk_calls=6,
        on_interrupted=lambda error, delay: interruptions.append((error, delay)),
    )
    assert stored_ids(fake) == ALL_IDS
    assert len(fake.cdrs.uploads) == 1
    assert (result.totals.upload_id, result.totals.created) == (1, CALLS)
    assert [error.reason for error, _ in interruptions] == ["SHUTTING_DOWN"]


@both
def test_it_gives_up_after_the_retries(fake: FakeServer, send: Send) -> None:
    fake.cdrs.breaks = dict.fromkeys(range(1, 100), "before")
    with pytest.raises(UnavailableError):
        send(fake.address, calls(), retries=3, window=1)
    assert fake.cdrs.arrived == 4


@both
def test_an_error_that_a_retry_cannot_help_is_raised(fake: FakeServer, send: Send) -> None:
    fake.cdrs.breaks, fake.cdrs.code = {2: "before"}, code_pb2.INVALID_ARGUMENT
    with pytest.raises(InvalidArgumentError):
        send(fake.address, calls(), chunk_calls=6)
    assert fake.cdrs.arrived in (2, 3, 4)


@both
def test_the_failures_are_in_the_result(fake: FakeServer, send: Send) -> None:
    def some() -> Iterator[Call]:
        for i, call in enumerate(calls()):
            yield Call(call_id="bad") if i % 2 else call

    result = send(fake.address, some(), chunk_calls=7)
    assert [failure.index for failure in result.failures] == list(range(1, CALLS, 2))
    assert (result.totals.rejected, result.failures_omitted) == (10, 0)
    with Client(fake.address, environment={}) as client:
        limited = client.upload(some(), chunk_calls=7).result(max_failures=3)
        assert [failure.index for failure in limited.failures] == [1, 3, 5]
        assert limited.failures_omitted == 7
        again = client.upload([], upload_id=1)
        assert [one.index for one in again.failures()] == list(range(1, CALLS, 2))


@both
def test_an_upload_without_calls(fake: FakeServer, send: Send) -> None:
    result = send(fake.address, iter(()))
    assert (result.totals.upload_id, result.totals.committed_offset) == (1, 0)


@both
def test_an_upload_is_continued_by_its_id(fake: FakeServer, send: Send) -> None:
    fake.cdrs.breaks, fake.cdrs.code = {3: "before"}, code_pb2.INVALID_ARGUMENT
    with pytest.raises(InvalidArgumentError):
        send(fake.address, calls(), chunk_calls=6, window=1)
    assert stored_ids(fake) == ALL_IDS[:12]
    assert send(fake.address, calls(), chunk_calls=6, upload_id=1).totals.created == CALLS
    assert stored_ids(fake) == ALL_IDS
    # With an offset nothing is skipped.
    send(fake.address, iter([Call(call_id="last")]), upload_id=1, offset=CALLS)
    assert stored_ids(fake) == [*ALL_IDS, "last"]


@both
def test_the_control_totals_are_sent_at_the_end(fake: FakeServer, send: Send) -> None:
    totals = ControlTotals(calls=CALLS, duration_seconds=7 * CALLS)
    result = send(fake.address, calls(), chunk_calls=6, control_totals=lambda: totals)
    assert fake.cdrs.stated[1] == totals
    assert result.totals.control_totals_match


@both
def test_an_error_of_the_source_ends_the_upload(fake: FakeServer, send: Send) -> None:
    def source() -> Iterator[Call]:
        yield from calls(10)
        raise NotFoundError(grpc.StatusCode.NOT_FOUND, "of the source")

    with pytest.raises(NotFoundError, match="of the source"):
        send(fake.address, source(), chunk_calls=5)


def test_the_source_is_read_by_the_thread_of_the_caller(fake: FakeServer) -> None:
    threads = set()

    def source() -> Iterator[Call]:
        for call in calls():
            threads.add(threading.get_ident())
            yield call

    with Client(fake.address, environment={}) as client:
        client.upload(source(), chunk_calls=3).result()
        list(client.rate_calls(calls(0)))
        rates = (Rate(prefix=call.call_id) for call in source())
        client.import_rates(rates, tenant_id=1, mode=IMPORT_MODE_MERGE)
    assert threads == {threading.get_ident()}


def test_memory_contains_only_the_window(fake: FakeServer) -> None:
    read = 0

    def source() -> Iterator[Call]:
        nonlocal read
        for call in calls(200):
            read += 1
            yield call

    with (
        Client(fake.address, environment={}) as client,
        client.upload(source(), chunk_calls=5, window=3) as upload,
    ):
        assert upload.id == 0
        for number, chunk in enumerate(upload):
            assert (chunk.offset, len(chunk.calls)) == (5 * number, 5)
            assert chunk.response.committed_offset == chunk.end
            assert read <= 5 * (number + 3)
        assert upload.id == 1
    assert number == 39


def test_an_upload_that_is_left_is_cancelled(fake: FakeServer) -> None:
    with Client(fake.address, environment={}) as client:
        with client.upload(calls(1000), chunk_calls=5) as upload:
            next(upload)
        assert list(upload) == []
    assert len(fake.cdrs.uploads[1]) < 1000


def test_the_id_before_the_first_call(fake: FakeServer) -> None:
    with Client(fake.address, environment={}) as client:
        upload = client.upload(calls())
        assert upload.begin() == upload.begin() == upload.id == 1
        assert fake.cdrs.arrived == 0
        assert upload.state().committed_offset == 0
        assert upload.result().totals.created == CALLS
    assert len(fake.cdrs.uploads) == 1


@pytest.mark.parametrize("options", [{"chunk_calls": 0}, {"chunk_calls": 10_001}, {"window": 0}])
def test_impossible_options(fake: FakeServer, options: dict[str, int]) -> None:
    with Client(fake.address, environment={}) as client, pytest.raises(ValueError, match="must be"):
        client.upload([], **options)


def test_chunks_are_bounded_in_bytes() -> None:
    large = Call(caller_number="1" * (MAX_CHUNK_BYTES // 4))
    found = list(chunked([large] * 10, 1000))
    assert [(chunk.offset, len(chunk.calls)) for chunk in found] == [(0, 4), (4, 4), (8, 2)]


def test_a_deck_states_its_number_of_rates(fake: FakeServer) -> None:
    rates = [Rate(prefix=str(i)) for i in range(2500)]
    with Client(fake.address, environment={}) as client:
        response = client.import_rates(iter(rates), tenant_id=1, mode=IMPORT_MODE_MERGE)
        assert response.created == 2500
        first, *others = fake.rating.requests
        assert (first.tenant_id, first.mode, len(first.rates)) == (1, IMPORT_MODE_MERGE, 1000)
        assert [(one.tenant_id, len(one.rates)) for one in others] == [(0, 1000), (0, 500)]
        with pytest.raises(FailedPreconditionError):
            client.import_rates(rates, tenant_id=1, mode=IMPORT_MODE_MERGE, rate_count=3)

    async def run() -> None:
        async with AsyncClient(fake.address, environment={}) as client:
            assert (await client.import_rates(rates, tenant_id=1, mode=1)).created == 2500

    asyncio.run(run())


def test_a_deck_whose_source_fails_is_not_imported(fake: FakeServer) -> None:
    def source() -> Iterator[Rate]:
        yield Rate()
        raise OSError("the disk")

    with Client(fake.address, environment={}) as client, pytest.raises(OSError, match="the disk"):
        client.import_rates(source(), tenant_id=1, mode=IMPORT_MODE_MERGE)

    async def run() -> None:
        async with AsyncClient(fake.address, environment={}) as client:
            with pytest.raises(OSError, match="the disk"):
                await client.import_rates(source(), tenant_id=1, mode=IMPORT_MODE_MERGE)

    asyncio.run(run())
    assert fake.rating.taken == []


def test_a_stream_whose_requests_fail_raises_their_error(server: ServerProcess) -> None:
    def source() -> Iterator[Any]:
        raise OSError("the disk")
        yield

    async def async_source() -> AsyncIterator[Any]:
        raise OSError("the disk")
        yield

    with Client(server.address, environment={}) as client, pytest.raises(OSError, match="the disk"):
        next(client.stream_rate_calls(source()))

    async def run() -> None:
        async with AsyncClient(server.address, environment={}) as client:
            for broken in (source(), async_source()):
                with pytest.raises(OSError, match="the disk"):
                    await anext(client.stream_rate_calls(broken))

    asyncio.run(run())


def test_a_deck_that_is_refused_at_once(server: ServerProcess) -> None:
    rates = [Rate(prefix="1", cost_per_minute="1", billing_increment=1)] * 50_000
    with Client(server.address, environment={}) as client, pytest.raises(NotFoundError):
        client.import_rates(rates, tenant_id=10**9, mode=IMPORT_MODE_MERGE)

    async def run() -> None:
        async with AsyncClient(server.address, environment={}) as client:
            with pytest.raises(NotFoundError):
                await client.import_rates(rates, tenant_id=10**9, mode=IMPORT_MODE_MERGE)

    asyncio.run(run())


def test_many_calls_are_rated_in_order(server: ServerProcess) -> None:
    with StubClient(server.address) as stubs:
        tenant_id = stubs.new_tenant().id
        stubs.new_rate(tenant_id, "44", "0.0200", 6)

    def source() -> Iterator[Call]:
        for i in range(12_000):
            yield make_call(tenant_id, f"44{i:08}", 7, call_id=f"c{i}")

    with Client(server.address, environment={}) as client:
        rated = list(client.rate_calls(source()))

    async def run() -> list[Any]:
        async with AsyncClient(server.address, environment={}) as client:
            return [one async for one in client.rate_calls(source())]

    for found in (rated, asyncio.run(run())):
        assert [one.call_id for one in found] == [f"c{i}" for i in range(12_000)]
        assert {(one.status, one.cost) for one in found} == {(RATING_STATUS_RATED, "0.0040")}


@both
def test_a_server_that_is_killed_and_comes_back(tmp_path: Path, send: Send) -> None:
    """Each call is recorded once, whatever the server was doing."""
    url = f"sqlite:///{tmp_path / 'tollwire.db'}"
    with ExitStack() as servers:
        running = servers.enter_context(ServerProcess(url))
        address = running.address
        with StubClient(address) as stubs:
            tenant_id = stubs.new_tenant().id

        def source() -> Iterator[Call]:
            nonlocal running
            for i in range(3000):
                if i in (1000, 2000):
                    running.kill()
                    running = servers.enter_context(ServerProcess(url, listen=address))
                yield make_call(tenant_id, "4420", 7, call_id=f"c{i}")

        interruptions: list[TollwireError] = []
        result = send(
            address,
            source(),
            chunk_calls=100,
            on_interrupted=lambda error, delay: interruptions.append(error),
        )
        assert interruptions
        assert (result.totals.created, result.totals.duplicates) == (3000, 0)
        with Client(address, environment={}) as client:
            found = {cdr.call_id for cdr in client.list_cdrs(tenant_id=tenant_id)}
        assert found == {f"c{i}" for i in range(3000)}
