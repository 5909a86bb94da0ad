"""kill -9 of the server and of ``tollwire cdrs tail`` while CDRs are uploaded and watched.

A client of WatchCdrs and a command that is not killed receive each CDR exactly once. A command that
is killed prints a CDR again only where it was killed before it stored the position.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import grpc

from tests.integration.serving import REPOSITORY
from tests.torture.callfiles import Prices, new_tenant
from tests.torture.counting import exported, verify
from tests.torture.kills import (
    LONGEST_PAUSE_SECONDS,
    await_progress,
    check_senders,
    settle,
    started_senders,
)
from tests.torture.service import PATIENCE_SECONDS, await_, patient, service
from tests.torture.stage import Stage
from tests.torture.tally import Tally
from tollwire.v1 import cdr_service_pb2 as cdr_pb

RETRY_SECONDS = 0.05
# docs/api.md, WatchCdrs: the most CDRs in a response, each of which the command prints before it
# stores the position.
MAX_RESPONSE_CDRS = 1_000
# The codes by which a server that dies may end a stream.
_MAY_PASS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def run(stage: Stage) -> Tally:
    tally = stage.tally("kill -9 under watchers")
    draw = stage.draw("watchers")
    with service(stage.new_database(), stage.workers) as server:
        with patient(server.address) as client:
            tenant = new_tenant(client)
        threads = started_senders(stage, server.address, tenant.id)
        watcher = Watcher(server.address)
        steady = Tail(server.address, stage.folder, "steady")
        killed = Tail(server.address, stage.folder, "killed")
        try:
            for number in range(stage.size.kills):
                await_progress(threads)
                await_progress_of(steady, killed)
                time.sleep(draw.uniform(0, LONGEST_PAUSE_SECONDS))
                killed.kill()
                if number % 2:
                    server.kill_worker(draw)
                else:
                    server.kill_all()
                    server.restart()
                killed.start()
                stage.say(f"{number + 1} kills, {sum(t.sender.sent for t in threads):,} sent")
            for thread in threads:
                thread.finish()
            with patient(server.address) as client:
                check_senders(tally, client, [t.sender for t in threads], tenant.id, Prices(tenant))
                stored = [cdr.id for cdr in exported(client)]
                watcher.finish(len(stored))
                for tail in (steady, killed):
                    tail.finish({*stored})
                verify(tally, client)
        finally:
            watcher.stop()
            steady.kill()
            killed.kill()
        _require_each_once(tally, "WatchCdrs", watcher.ids, stored)
        _require_each_once(tally, "cdrs tail", steady.ids(), stored)
        repeated = len(killed.ids()) - len(stored)
        tally.require({*killed.ids()} == {*stored}, "the killed command left out CDRs")
        tally.require(
            repeated <= stage.size.kills * MAX_RESPONSE_CDRS,
            f"the killed command printed {repeated:,} CDRs again in {stage.size.kills} kills",
        )
        settle(tally, server)
    tally.more["broken streams"] = watcher.breaks
    tally.more["printed again by the killed command"] = repeated
    return tally


def await_progress_of(*tails: Tail) -> None:
    for tail in tails:
        await_(tail.has_moved, "the progress of the command")


def _require_each_once(tally: Tally, who: str, received: list[int], stored: list[int]) -> None:
    times = Counter(received)
    tally.require({*times} == {*stored}, f"{who} left out {len({*stored} - {*times}):,} CDRs")
    again = sum(one - 1 for one in times.values())
    tally.require(again == 0, f"{who} returned {again:,} CDRs again")


class Watcher:
    """A client of WatchCdrs that continues from its last cursor when the stream breaks.

    ``ids`` in the order in which they were received; ``breaks`` counts the broken streams.
    """

    def __init__(self, address: str) -> None:
        self.ids: list[int] = []
        self.breaks = 0
        self._address = address
        self._request = cdr_pb.WatchCdrsRequest(follow=True)
        self._stopped = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                self._watch()
                time.sleep(RETRY_SECONDS)
        except BaseException as failure:
            self._failure = failure

    def _watch(self) -> None:
        with patient(self._address) as client:
            stream = client.cdrs.WatchCdrs(self._request, timeout=PATIENCE_SECONDS * 10)
            try:
                for response in stream:
                    self.ids += [cdr.id for cdr in response.cdrs]
                    self._request.cursor = response.cursor
                    if self._stopped.is_set():
                        stream.cancel()
            except grpc.RpcError as error:
                if error.code() not in _MAY_PASS:
                    raise
                self.breaks += 1

    def finish(self, count: int) -> None:
        """Wait for that many CDRs; raises what ended the thread early."""

        def is_done() -> bool:
            if self._failure is not None:
                raise self._failure
            return len(self.ids) >= count

        await_(is_done, "the end of the feed")

    def stop(self) -> None:
        self._stopped.set()


class Tail:
    """``tollwire cdrs tail --json``, with its output and its cursor in files of ``folder``."""

    def __init__(self, address: str, folder: Path, name: str) -> None:
        self._output = folder / f"{name}.jsonl"
        self._arguments = ["cdrs", "tail", "--json", "--server", address]
        self._arguments += ["--cursor-file", str(folder / f"{name}.cursor")]
        self._seen = 0
        self.start()

    def start(self) -> None:
        with self._output.open("ab+") as output:
            output.seek(max(0, output.tell() - 1))
            if output.read() not in (b"", b"\n"):
                output.write(b"\n")  # the kill left a line unfinished
                output.flush()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tollwire.service.cli.main", *self._arguments],
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                cwd=REPOSITORY,
                stdout=output,
                stderr=subprocess.DEVNULL,
            )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)

    def has_moved(self) -> bool:
        """Whether it has printed something since the last call that returned True."""
        assert self._process.poll() is None, f"the command ended with {self._process.returncode}"
        size = self._output.stat().st_size
        moved = size > self._seen
        if moved:
            self._seen = size
        return moved

    def finish(self, ids: set[int]) -> None:
        """Wait until these ids are printed."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not {*self.ids()} >= ids:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the command did not print all CDRs in {PATIENCE_SECONDS} s")
            time.sleep(0.5)

    def ids(self) -> list[int]:
        """The ids on all whole lines. A kill can leave a line unfinished; it is printed again."""
        found = []
        for line in self._output.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                found.append(int(json.loads(line)["id"]))
        return found
