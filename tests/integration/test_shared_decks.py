"""Workers that share their decks, while any of them may be killed at any moment."""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time
from pathlib import Path

import grpc
import psutil
import pytest

from benchmarks.serving import worker_processes
from tests.integration.client import Client, make_call, make_rate
from tests.integration.conftest import NewDatabase
from tests.integration.serving import ServerProcess, serving
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1 import types_pb2 as types

WORKERS = 3
RATES = 12_000
KILLS = 8
PATIENCE_SECONDS = 30


def import_at(client: Client, tenant_id: int, price: int) -> int:
    """Import the large deck at this price. Returns its revision."""
    rates = [make_rate(f"1{index:05}", str(price), 60) for index in range(RATES)]
    requests = [
        pb.ImportRatesRequest(
            tenant_id=tenant_id, mode=types.IMPORT_MODE_REPLACE, rates=rates[at : at + 4000]
        )
        for at in range(0, RATES, 4000)
    ]
    return client.rating.ImportRates(iter(requests), timeout=60).rate_revision


def images_of(process: psutil.Process) -> set[str]:
    """The images that a process has mapped, by the numbers of their files."""
    text = Path(f"/proc/{process.pid}/maps").read_text()
    return set(re.findall(r" (\d+) +/memfd:tollwire-decks", text))


def await_workers(server: ServerProcess) -> list[psutil.Process]:
    """All workers, once they serve."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = worker_processes(server.process.pid)
        with contextlib.suppress(psutil.NoSuchProcess):
            if len(found) == WORKERS and all(map(_listens, found)):
                return found
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.02)


def _listens(process: psutil.Process) -> bool:
    return any(one.status == psutil.CONN_LISTEN for one in process.net_connections("tcp"))


def answers(server: ServerProcess, call: types.Call) -> set[tuple[str, int]]:
    """The costs and revisions on many new connections, which reach all workers."""
    found = set()
    for _ in range(16):
        with Client(server.address) as client:
            rated = client.rate(call)
            found.add((rated.cost, rated.rate_revision))
    return found


def test_an_imported_deck_is_in_memory_once(new_database: NewDatabase) -> None:
    with serving(new_database(), workers=WORKERS) as server, Client(server.address) as client:
        tenant = client.new_tenant()
        call = make_call(tenant.id, "10099999", 60)
        revision = import_at(client, tenant.id, 1)
        images = [images_of(worker) for worker in await_workers(server)]
        assert images[0] and all(one == images[0] for one in images)
        assert answers(server, call) == {("1.0000", revision)}
        # A worker that is restarted maps the same image.
        victim = await_workers(server)[0]
        victim.kill()
        victim.wait(PATIENCE_SECONDS)
        for worker in await_workers(server):
            assert images[0] <= images_of(worker)
        assert answers(server, call) == {("1.0000", revision)}
        # After a changed rate as well, once the deck is quiet.
        client.new_rate(tenant.id, "1009999", "2", 60)
        assert answers(server, call) == {("2.0000", revision + 1)}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            after = [images_of(worker) for worker in await_workers(server)]
            if all(one == after[0] and one != images[0] for one in after) and after[0]:
                break
            assert time.monotonic() < deadline, after
            time.sleep(0.05)
        assert answers(server, call) == {("2.0000", revision + 1)}
        assert "not shared" not in server.log()


@pytest.mark.timeout(300)
def test_workers_that_are_killed_while_decks_change(new_database: NewDatabase) -> None:
    """Kills hit workers that import, publish, map or start. No worker ever rates wrongly, and all
    rate with the last deck in the end."""
    draw = random.Random(3)
    with serving(new_database(), workers=WORKERS) as server:
        with Client(server.address) as client:
            tenant = client.new_tenant()
            import_at(client, tenant.id, 1)
        call = make_call(tenant.id, "10099999", 60)
        stop = threading.Event()
        wrong: list[object] = []

        def change() -> None:
            price = 1
            while not stop.is_set():
                price += 1
                with contextlib.suppress(grpc.RpcError), Client(server.address) as client:
                    import_at(client, tenant.id, price)

        def rate() -> None:
            while not stop.wait(0.01):
                with contextlib.suppress(grpc.RpcError), Client(server.address) as client:
                    rated = client.rate(call)
                    # An import that fails keeps no revision, so both rise together.
                    if rated.rate_revision - float(rated.cost) not in offsets:
                        wrong.append(rated)

        with Client(server.address) as client:
            first = client.rate(call)
        offsets = {first.rate_revision - float(first.cost) - lost for lost in range(-50, 51)}
        threads = [threading.Thread(target=change), threading.Thread(target=rate)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(KILLS):
                time.sleep(draw.uniform(0.05, 0.8))
                draw.choice(await_workers(server)).kill()
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE_SECONDS)
        assert not any(thread.is_alive() for thread in threads)
        assert wrong == []
        await_workers(server)
        with Client(server.address) as client:
            revision = import_at(client, tenant.id, 1000)
        assert answers(server, call) == {("1000.0000", revision)}
        images = [images_of(worker) for worker in await_workers(server)]
        assert all(one == images[0] for one in images)
