"""A stand-in for a worker: it reports, waits and ends according to its settings.

As a program with arguments it is the supervisor of such workers: ``python -m
tests.process.fake_worker COUNT [NAME=VALUE]...``
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

from tollwire.service.process.template import launch_with
from tollwire.service.process.workers import Supervisor, WorkersFailed

# The time to wait for a worker that does not respond.
REPLY_SECONDS = 0.5


def work() -> int:
    with open(0, "rb", buffering=0, closefd=False) as parent:
        settings = json.loads(parent.readline())
    if settings.get("fail") == "at_start":
        sys.stderr.write("cannot start\n")
        return 1
    if settings.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.stderr.write(f"worker {os.getpid()}\n")
    print(json.dumps({"settings": settings}), flush=True)
    if settings.get("fail") == "soon":
        return 3
    with open(0, "rb", buffering=0, closefd=False) as parent:
        for question in parent:
            if settings.get("deaf"):
                time.sleep(1000)
            print(json.dumps({"pid": os.getpid(), "asked": json.loads(question)}), flush=True)
    return 0


def ask(supervisor: Supervisor) -> None:
    """Query the workers for each input line, and print their responses."""
    for _ in sys.stdin:
        answers = supervisor.query(lambda slot: {"slot": slot}, REPLY_SECONDS)
        print(json.dumps({slot: asdict(answer) for slot, answer in answers.items()}), flush=True)


def supervise(count: int, settings: dict[str, Any]) -> int:
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s")
    supervisor = Supervisor(
        launch_with(sys.executable, "-m", "tests.process.fake_worker"),
        settings,
        count,
        stop_seconds=0.2 if settings.get("stubborn") else 20.0,
        on_serving=lambda report: print(f"serving {json.dumps(report)}", flush=True),
        first_backoff_seconds=0.02,
    )
    threading.Thread(target=ask, args=[supervisor], daemon=True).start()
    try:
        supervisor.run()
    except WorkersFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(work())
    given = dict(argument.split("=") for argument in sys.argv[2:])
    sys.exit(supervise(int(sys.argv[1]), given))
