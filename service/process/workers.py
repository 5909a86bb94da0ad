"""Several worker processes behind one port.

The parent reserves the port, starts the workers (service/process/template.py), reports when all of
them serve, replaces a worker that ends, and forwards the request to stop. It does not serve
requests.

A worker and its parent communicate over the worker's standard input and output. The parent writes
one line of JSON with the settings; they may contain a password, so they are not an argument. The
worker writes one line of JSON when it serves. After that each line of input is a request with one
line of output as its reply. A worker stops at the end of its input: its parent has ended.
"""

from __future__ import annotations

import json
import logging
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any, Literal

from tollwire.service.cache import deck_images, worker_progress
from tollwire.service.process.events import wait_for_event
from tollwire.service.process.template import Launch, WorkerProcess
from tollwire.service.rpc.transports.memory_guard import MEMORY_EXIT

# A worker that ends sooner than this counts as a failed start.
SETTLED_SECONDS = 10.0
# The parent gives up after this number of failed starts in a row, if no other worker serves.
MAX_QUICK_DEATHS = 5
FIRST_BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 10.0

_LOG = logging.getLogger("tollwire.workers")


def _never() -> bool:
    return False


def _nothing() -> None:
    pass


class WorkersFailed(Exception):
    """The workers end soon after their start; their messages are on standard error."""


@dataclass(frozen=True, slots=True)
class WorkerReply:
    """One worker: its last reply (None before the first), whether that answers the last request,
    and how often the worker was started."""

    content: Any
    is_current: bool
    starts: int


@dataclass(frozen=True, slots=True)
class _Event:
    kind: Literal["ready", "dead", "restart", "stop"]
    index: int = -1
    report: Mapping[str, Any] | None = None


class _Worker:
    """One process, and the thread that reads its output and waits for its end."""

    def __init__(
        self,
        index: int,
        process: WorkerProcess,
        settings: str,
        events: queue.SimpleQueue[_Event],
    ) -> None:
        self.started_at = time.monotonic()
        self.serves = False
        self._index = index
        self._replied = threading.Condition()
        self._requests = 0
        self._replies = 0
        self._reply: Any = None
        self._events = events
        self.process = process
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(settings + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the worker has ended already; the thread below reports that
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line.endswith("\n"):
            self._events.put(_Event("ready", self._index, json.loads(line)))
        for line in self.process.stdout:
            with self._replied:
                self._replies += 1
                self._reply = json.loads(line)
                self._replied.notify_all()
        self.process.wait()
        self.process.stdout.close()
        self._events.put(_Event("dead", self._index))

    def query(self, request: str) -> None:
        """Send a request, unless an earlier one has no reply yet: unread requests would fill the
        pipe."""
        with self._replied:
            if self._requests > self._replies or not self.serves:
                return
            self._requests += 1
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # the worker has ended, and will be replaced

    def reply(self, until: float) -> tuple[Any, bool]:
        """The last reply (None before the first), and whether it answers the last request. Waits
        for the reply until ``until``, by time.monotonic()."""
        with self._replied:
            self._replied.wait_for(
                lambda: self._requests == self._replies, max(0.0, until - time.monotonic())
            )
            replied = self._requests == self._replies and self.serves
            return self._reply, replied and self._reply is not None

    def signal(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)


class Supervisor:
    """Keeps ``count`` workers running until a request to stop. Call ``run`` in the main thread."""

    def __init__(
        self,
        launch: Launch,
        settings: Mapping[str, Any],
        count: int,
        *,
        stop_seconds: float,
        on_serving: Callable[[Mapping[str, Any]], None],
        on_stopping: Callable[[], None] = _nothing,
        beat: Callable[[], None] = _nothing,
        first_backoff_seconds: float = FIRST_BACKOFF_SECONDS,
        memory: IO[bytes] | None = None,
        images: deck_images.Exchange | None = None,
    ) -> None:
        """``launch`` starts a worker. ``stop_seconds``: the time that workers have to end after
        SIGTERM. ``on_serving`` is called once, when all workers serve, with the report of one of
        them; ``on_stopping`` before the workers are stopped; ``beat`` regularly in between.
        ``memory``: the shared memory of the workers' progress (service/cache/worker_progress.py).
        ``images``: the decks that the workers share (service/cache/deck_images.py).
        """
        self._memory = memory
        self._images = images
        self._progress = None if memory is None else worker_progress.Progress(memory.fileno())
        self._launch = launch
        self._settings = json.dumps(settings)
        self._stop_seconds = stop_seconds
        self._on_serving: Callable[[Mapping[str, Any]], None] | None = on_serving
        self._on_stopping = on_stopping
        self._beat = beat
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._workers: dict[int, _Worker] = {}
        self._count = count
        self._first_backoff_seconds = first_backoff_seconds
        self._quick_deaths = [0] * count
        self._starts = [0] * count

    def run(self, is_stopped: Callable[[], bool] = _never) -> None:
        """Run the workers until SIGTERM or SIGINT. WorkersFailed if they end again and again.
        ``is_stopped``: whether the caller's handler has already received such a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request_stop)
        if is_stopped():
            return
        try:
            for index in range(self._count):
                self._start(index)
            while (event := wait_for_event(self._events, self._beat)).kind != "stop":
                self._handle(event)
        finally:
            self._on_stopping()
            self._stop_all()

    def query(self, requests: Callable[[int], Any], wait_seconds: float) -> dict[int, WorkerReply]:
        """Send each worker the request for its index, and wait for all replies, at most
        ``wait_seconds``. For one thread at a time."""
        workers = dict(self._workers)
        for index, worker in workers.items():
            worker.query(json.dumps(requests(index)))
        until = time.monotonic() + wait_seconds
        return {
            index: WorkerReply(*worker.reply(until), starts=self._starts[index])
            for index, worker in workers.items()
        }

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second signal kills the process
        self._events.put(_Event("stop"))

    def _start(self, index: int) -> None:
        self._starts[index] += 1
        with ExitStack() as passed_on:
            shared: dict[str, int] = {}
            if self._memory is not None:
                shared[worker_progress.VARIABLE] = self._memory.fileno()
            if self._images is not None:
                theirs = passed_on.enter_context(self._images.connect())
                shared[deck_images.VARIABLE] = theirs.fileno()
            process = self._launch(index, shared)
        self._workers[index] = _Worker(index, process, self._settings, self._events)

    def _handle(self, event: _Event) -> None:
        if event.kind == "ready":
            self._workers[event.index].serves = True
            if self._on_serving and all(worker.serves for worker in self._workers.values()):
                assert event.report is not None
                self._on_serving(event.report)
                self._on_serving = None
        elif event.kind == "dead":
            self._replace_later(event.index)
        elif event.kind == "restart":
            self._start(event.index)

    def _replace_later(self, index: int) -> None:
        dead = self._workers[index]
        if self._progress is not None:
            self._progress.clear(index)
        if self._on_serving and not dead.serves:
            raise WorkersFailed("a worker could not start")
        dead.serves = False
        # Its clients have used too much memory: it can start, and must soon.
        is_full = dead.process.returncode == MEMORY_EXIT
        settled = is_full or time.monotonic() - dead.started_at >= SETTLED_SECONDS
        quick_deaths = 0 if settled else self._quick_deaths[index] + 1
        self._quick_deaths[index] = quick_deaths
        if quick_deaths >= MAX_QUICK_DEATHS and not self._any_serves():
            raise WorkersFailed("the workers end as soon as they are started")
        delay_seconds = 0.0
        if quick_deaths:
            backoff_seconds = self._first_backoff_seconds * 2 ** (quick_deaths - 1)
            delay_seconds = min(backoff_seconds, MAX_BACKOFF_SECONDS)
        _LOG.error(
            "worker %d (pid %d) ended with code %d; a new one starts in %.1f s",
            index,
            dead.process.pid,
            dead.process.returncode,
            delay_seconds,
        )
        timer = threading.Timer(delay_seconds, self._events.put, (_Event("restart", index),))
        timer.daemon = True
        timer.start()

    def _any_serves(self) -> bool:
        return any(worker.serves for worker in self._workers.values())

    def _stop_all(self) -> None:
        for worker in self._workers.values():
            worker.signal(signal.SIGTERM)
        deadline = time.monotonic() + self._stop_seconds
        for worker in self._workers.values():
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
