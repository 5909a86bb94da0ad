"""kill -9 of the server at random moments, during four uploads.

Parent and workers at once, a single worker, or the parent alone. Afterwards every acknowledged
record is stored exactly once at the right cost, and each upload's totals are those of an
undisturbed upload of the same file.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator

from tests.integration.client import Client
from tests.torture.callfiles import CallFile, Prices, Totals, mixed_file, new_tenant
from tests.torture.counting import count, noted_root, verify
from tests.torture.sending import Notes, Sender, SenderThread
from tests.torture.service import Service, await_, patient, service
from tests.torture.stage import Stage
from tests.torture.tally import Tally

# The number of chunks that each sender sends ahead of the responses.
WINDOWS = (1, 1, 3, 6)
LONGEST_PAUSE_SECONDS = 0.4


def run(stage: Stage) -> Tally:
    tally = stage.tally("kill -9 of the server")
    draw = stage.draw("kills")
    with service(stage.new_database(), stage.workers) as server:
        with patient(server.address) as client:
            tenant = new_tenant(client)
            undisturbed = new_tenant(client)
        prices = Prices(tenant)
        threads = started_senders(stage, server.address, tenant.id)
        root = ""
        for number in range(stage.size.kills):
            await_progress(threads)
            if number == stage.size.kills // 2:
                with patient(server.address) as client:
                    root = noted_root(client)
            time.sleep(draw.uniform(0, LONGEST_PAUSE_SECONDS))
            kill(server, draw, number)
            stage.say(f"{number + 1} kills, {sum(t.sender.sent for t in threads):,} records sent")
        for thread in threads:
            thread.finish()
        with patient(server.address) as client:
            check_senders(tally, client, [t.sender for t in threads], tenant.id, prices)
            _compare_with_undisturbed(tally, client, threads, stage, undisturbed.id)
            verify(tally, client, root)
        settle(tally, server)
    tally.more["broken streams"] = sum(thread.sender.breaks for thread in threads)
    return tally


def settle(tally: Tally, server: Service) -> None:
    """The common end of every scenario with a server."""
    tally.kills += server.kills
    tally.restarts += server.restarts
    for defect in server.defects():
        tally.problem(f"the server logged: {defect}")


def started_senders(
    stage: Stage, address: str, tenant_id: int, files: int | None = None
) -> list[SenderThread]:
    """Four senders, each of which sends one file after the other; at most this number of files
    each."""
    return [
        SenderThread(
            Sender(address, Notes(stage.folder / f"notes-{n}"), window, stage.draw(f"sender {n}")),
            itertools.islice(_files(stage, f"{n}", tenant_id), files),
        )
        for n, window in enumerate(WINDOWS)
    ]


def _files(stage: Stage, sender: str, tenant_id: int) -> Iterator[CallFile]:
    for number in itertools.count():
        name = f"{sender}.{number}"
        yield mixed_file(f"{stage.seed}/{stage.kind}", name, tenant_id, stage.size.file_calls)


def await_progress(threads: list[SenderThread]) -> None:
    """Wait until each sender has a new response; raises the error of a sender that failed."""
    before = [thread.sender.ticks for thread in threads]

    def goes_on() -> bool:
        for thread in threads:
            thread.check()
        return all(
            thread.sender.ticks > ticks for thread, ticks in zip(threads, before, strict=True)
        )

    await_(goes_on, "the progress of all senders")


def kill(server: Service, draw: random.Random, number: int) -> None:
    """Kill the whole server, a worker, or the parent alone; ``number`` counts the kills."""
    # The first kills in turn, so that a few kills cover every kind.
    way = number if number < 3 else draw.choices((0, 1, 2), (10, 10, 1))[0]
    if way == 0:
        server.kill_all()
        server.restart()
    elif way == 1:
        server.kill_worker(draw)
    else:
        server.kill_parent()
        server.restart()


def check_senders(
    tally: Tally, client: Client, senders: list[Sender], tenant_id: int, prices: Prices
) -> None:
    """All files of the senders are stored, exactly once, and their uploads say so."""
    sent = {}
    acknowledged = []
    for sender in senders:
        ends: dict[str, int] = {}
        for note in sender.notes.read():
            ends[note.file] = max(note.end, ends.get(note.file, 0))
        for file, upload_id in sender.finished:
            sent |= {call.caller_number: call for call in file.recorded()}
            acknowledged += [call.caller_number for call in file.recorded(ends[file.name])]
            tally.acknowledged += ends[file.name]
            _compare(tally, client, upload_id, file.totals(prices), file.name)
        for text in sender.lost:
            tally.problem(text)
        tally.sent += sender.sent
        sender.notes.close()
    count(tally, client, tenant_id, sent, acknowledged, prices)


def _compare(tally: Tally, client: Client, upload_id: int, expected: Totals, name: str) -> None:
    found = Totals.of(client.get_upload(upload_id))
    tally.require(found == expected, f"the upload of {name} has {found}; expected {expected}")


def _compare_with_undisturbed(
    tally: Tally, client: Client, threads: list[SenderThread], stage: Stage, tenant_id: int
) -> None:
    """The first file of each sender again, undisturbed, into a tenant of its own."""
    for n, thread in enumerate(threads):
        [file] = itertools.islice(_files(stage, f"{n}", tenant_id), 1)
        notes = Notes(stage.folder / f"notes-undisturbed-{n}")
        sender = Sender(client.address, notes, 4, random.Random(n))
        sender.send(file)
        notes.close()
        [(_, upload_id)] = sender.finished
        _, disturbed_id = thread.sender.finished[0]
        totals = Totals.of(client.get_upload(upload_id))
        _compare(tally, client, disturbed_id, totals, f"{file.name}, against an undisturbed one")
        tally.require(sender.breaks == 0, "the undisturbed upload was disturbed")
