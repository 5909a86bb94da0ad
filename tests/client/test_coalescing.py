"""``rate`` and ``record``: concurrent calls share RPCs, and each gets its own outcome."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.client import Client as StubClient
from tests.integration.client import make_call
from tests.integration.serving import ServerProcess
from tollwire.client import (
    AlreadyExistsError,
    AsyncClient,
    Client,
    InvalidArgumentError,
    NotFoundError,
    TollwireError,
    UnavailableError,
)
from tollwire.client.coalescing import LARGE_CALL_BYTES, Coalescer
from tollwire.v1.types_pb2 import RATING_STATUS_UNRATED, UNRATED_REASON_NO_RATE, Call

CALLERS = 24


def by_threads(address: str, method: str, calls: Sequence[Call], first: int = 0) -> list[Any]:
    """The result or the error of each call, from a thread of its own. The first calls are made one
    after the other."""
    found: list[Any] = [None] * len(calls)
    together = threading.Barrier(len(calls) - first)

    with Client(address, environment={}) as client:

        def work(index: int) -> None:
            if index >= first:
                together.wait()
            try:
                found[index] = getattr(client, method)(calls[index])
            except TollwireError as error:
                found[index] = error

        for index in range(first):
            work(index)
        threads = [threading.Thread(target=work, args=(i,)) for i in range(first, len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return found


def by_tasks(address: str, method: str, calls: Sequence[Call], first: int = 0) -> list[Any]:
    async def run() -> list[Any]:
        async with AsyncClient(address, environment={}) as client:
            made = getattr(client, method)
            found = [
                *[
                    (await asyncio.gather(made(call), return_exceptions=True))[0]
                    for call in calls[:first]
                ],
                *await asyncio.gather(*map(made, calls[first:]), return_exceptions=True),
            ]
        assert all(one is None or not isinstance(one, asyncio.CancelledError) for one in found)
        return found

    return asyncio.run(run())


Make = Callable[..., list[Any]]
both = pytest.mark.parametrize("make", [by_threads, by_tasks])


@pytest.fixture
def tenant_id(server: ServerProcess) -> Iterator[int]:
    with StubClient(server.address) as stubs:
        made = stubs.new_tenant().id
        stubs.new_rate(made, "44", "0.0200", 6)
        yield made


@both
def test_each_caller_gets_the_result_of_its_call(
    server: ServerProcess, tenant_id: int, make: Make
) -> None:
    calls = [make_call(tenant_id, f"44{i:06}", i, call_id=f"c{i}") for i in range(CALLERS)]
    with Client(server.address, environment={}) as client:
        expected = [client.rate_call(call=call).rated for call in calls]
    assert make(server.address, "rate", calls) == expected


@both
def test_errors_are_those_of_the_call_alone(
    server: ServerProcess, tenant_id: int, make: Make
) -> None:
    good = make_call(tenant_id, "4420", 7)
    calls = [good, make_call(10**9, "4420", 7), make_call(tenant_id, "33", 7), Call(), good]
    first, absent, unrated, empty, last = make(server.address, "rate", calls)
    assert first.cost == last.cost == "0.0040"
    assert isinstance(absent, NotFoundError)
    assert absent.reason == "TENANT_NOT_FOUND"
    assert (unrated.status, unrated.unrated_reason) == (
        RATING_STATUS_UNRATED,
        UNRATED_REASON_NO_RATE,
    )
    assert isinstance(empty, InvalidArgumentError)
    assert "call.tenant_id" in {one.field for one in empty.fields}


@both
def test_a_call_is_durable_when_record_returns(
    server: ServerProcess, tenant_id: int, make: Make
) -> None:
    calls = [make_call(tenant_id, "4420", 7, call_id=f"c{i}") for i in range(CALLERS)]
    conflict = make_call(tenant_id, "4420", 8, call_id="c0")
    outcomes = make(server.address, "record", [*calls, calls[0], conflict, Call()], first=1)
    assert outcomes[: CALLERS + 1] == [None] * (CALLERS + 1)
    assert isinstance(outcomes[-2], AlreadyExistsError)
    assert outcomes[-2].reason == "CDR_CONFLICT"
    assert isinstance(outcomes[-1], InvalidArgumentError)
    with Client(server.address, environment={}) as client:
        found = {cdr.call_id: cdr for cdr in client.list_cdrs(tenant_id=tenant_id)}
    assert set(found) == {call.call_id for call in calls}
    assert {cdr.cost for cdr in found.values()} == {"0.0040"}


def test_calls_that_wait_share_one_rpc(server: ServerProcess, tenant_id: int) -> None:
    groups: list[int] = []
    with Client(server.address, environment={}) as client:
        arrived = threading.Semaphore(0)
        send = client._rating._send

        def spied(calls: list[Call]) -> Any:
            groups.append(len(calls))
            if len(groups) == 1:  # on its way, until all others wait
                for _ in range(CALLERS - 1):
                    arrived.acquire()
                while len(client._rating._waiting) < CALLERS - 1:
                    pass
            return send(calls)

        client._rating._send = spied

        def work() -> None:
            arrived.release()
            client.rate(make_call(tenant_id, "4420", 7))

        threads = [threading.Thread(target=work) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert groups == [1, CALLERS - 1]


def test_a_large_call_goes_alone(server: ServerProcess, tenant_id: int) -> None:
    large = make_call(tenant_id, "4420", 7, caller_number="1" * LARGE_CALL_BYTES)
    with Client(server.address, environment={}) as client:
        client._rating._send = client._recording._send = None  # type: ignore[assignment]
        for method in (client.rate, client.record):
            with pytest.raises(InvalidArgumentError, match="caller_number"):
                method(large)


@both
def test_without_a_server_every_caller_gets_the_error(make: Make) -> None:
    found = make("127.0.0.1:1", "rate", [Call()] * 3)
    assert [type(one) for one in found] == [UnavailableError] * 3
    assert len({id(one) for one in found}) == 3


def test_a_reversed_upload_is_replaced(server: ServerProcess, tenant_id: int) -> None:
    def calls(begin: int) -> list[Call]:
        return [make_call(tenant_id, "4420", 7, call_id=f"r{begin + i}") for i in range(3)]

    with Client(server.address, environment={}) as client:
        assert client._record_group(calls(0)) == [True] * 3
        position = client._position
        first = position.upload_id
        assert position.offset == 3
        assert client._record_group(calls(3)) == [True] * 3
        assert (position.upload_id, position.offset) == (first, 6)
        client.reverse_upload(upload_id=first, reason="a test", requested_by="tests")
        assert client._record_group(calls(6)) == [True] * 3
        assert position.upload_id not in (0, first)
        assert len(list(client.list_cdrs(tenant_id=tenant_id, reversed=False))) == 3


def test_an_interrupted_thread_does_not_stop_the_others() -> None:
    sent: list[int] = []
    started, go_on = threading.Event(), threading.Event()

    def send(calls: list[Call]) -> list[str]:
        sent.append(len(calls))
        if len(sent) == 1:
            started.set()
            go_on.wait()
            return ["first"]
        if len(sent) == 2:
            raise KeyboardInterrupt
        return [call.call_id for call in calls]

    coalescer = Coalescer(send)
    results: list[Any] = []

    def work(name: str) -> None:
        try:
            results.append(coalescer(Call(call_id=name)))
        except KeyboardInterrupt:
            results.append("interrupted")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    threads[0].start()
    started.wait()
    for thread in threads[1:]:
        thread.start()
    while len(coalescer._waiting) < 3:
        pass
    go_on.set()
    for thread in threads:
        thread.join()
    assert "first" in results
    assert results.count("interrupted") == 1
    assert len(results) == 4
    assert not coalescer._is_busy


def test_a_cancelled_task_does_not_stop_the_others(server: ServerProcess, tenant_id: int) -> None:
    call = make_call(tenant_id, "4420", 7)

    async def run() -> None:
        async with AsyncClient(server.address, environment={}) as client:
            tasks = [asyncio.create_task(client.rate(call)) for _ in range(3)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            assert [(await one).cost for one in tasks[1:]] == ["0.0040"] * 2
            with pytest.raises(asyncio.CancelledError):
                await tasks[0]
            waiting = asyncio.create_task(client.rate(call))
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(run())


def test_calls_are_recorded_once_while_the_server_is_killed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tollwire.db'}"
    with ExitStack() as servers:
        running = servers.enter_context(ServerProcess(url))
        address = running.address
        with StubClient(address) as stubs:
            tenant_id = stubs.new_tenant().id
        outcomes: list[list[Any]] = []
        calls = [make_call(tenant_id, "4420", 7, call_id=f"c{i}") for i in range(400)]
        progress = threading.Semaphore(0)

        with Client(address, environment={}) as client:

            def work(mine: list[Call]) -> None:
                for call in mine:
                    client.record(call)
                    progress.release()
                outcomes.append(mine)

            threads = [threading.Thread(target=work, args=(calls[i::8],)) for i in range(8)]
            for thread in threads:
                thread.start()
            for _ in range(100):
                progress.acquire()
            running.kill()
            servers.enter_context(ServerProcess(url, listen=address))
            for thread in threads:
                thread.join()
            assert len(outcomes) == 8
            found = sorted(cdr.call_id for cdr in client.list_cdrs(tenant_id=tenant_id))
        assert found == sorted(call.call_id for call in calls)
