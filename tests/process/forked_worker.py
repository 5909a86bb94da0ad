"""A parent of forked workers, and what these do: for tests/process/test_template.py.

The parent reads requests: "start" a worker; all others go to the last one, or end it. It prints a
reply as JSON for each. As a program with the argument "worker" it is a worker.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from tollwire.service.process.template import (
    WORKER_NAME,
    Template,
    WorkerProcess,
    launch_with,
    set_process_name,
)

VARIABLE = "TOLLWIRE_TEST_SHARED"


def work() -> int:
    set_process_name(WORKER_NAME)
    index, _, descriptor = os.environ[VARIABLE].partition(":")
    shared = os.pread(int(descriptor), 100, 0).decode()
    # One of them is the list that is read.
    descriptors = len(list(Path("/proc/self/fd").iterdir())) - 1
    about = {
        "pid": os.getpid(),
        "index": int(index),
        "shared": shared,
        "descriptors": descriptors,
    }
    print(json.dumps(about), flush=True)
    with open(0, encoding="utf-8", closefd=False) as parent:
        for line in parent:
            word, _, rest = line.strip().partition(" ")
            if word == "exit":
                return int(rest)
            if word == "raise":
                raise RuntimeError("as it was told")
            print(json.dumps(rest), flush=True)
    return 0


def supervise() -> int:
    command = (sys.executable, "-m", "tests.process.forked_worker", "worker")
    reserved = tempfile.TemporaryFile()  # noqa: SIM115  open until the process ends
    template = Template(work, launch_with(*command), leave=reserved.close)
    workers: list[WorkerProcess] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryFile() as file, closing(template):
        file.write(b"in the shared memory")
        file.flush()
        try:
            for line in sys.stdin:
                request = line.strip()
                if request == "start":
                    workers.append(template.launch(len(workers), {VARIABLE: file.fileno()}))
                print(reply(workers[-1], request), flush=True)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait(20)
    return 0


def reply(worker: WorkerProcess, request: str) -> str:
    assert worker.stdin is not None and worker.stdout is not None
    if request == "kill":
        worker.kill()
    elif request != "start":
        worker.stdin.write(request + "\n")
        worker.stdin.flush()
    if request.startswith(("exit", "kill", "raise")):
        return str(worker.wait(20))
    return worker.stdout.readline().strip()


if __name__ == "__main__":
    sys.exit(work() if sys.argv[1:] == ["worker"] else supervise())
