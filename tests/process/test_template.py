"""The process that forks the workers: how workers start, end and inherit, and its own death."""

from __future__ import annotations

import json
import signal
from typing import Any

import psutil
import pytest

from benchmarks.serving import worker_processes
from tests.process.processes import Process, is_gone, wait_until
from tollwire.service.process.template import TEMPLATE_NAME


def started() -> Process:
    return Process("-m", "tests.process.forked_worker", asked=True)


def answer(parent: Process, request: str) -> Any:
    parent.ask(request)
    line = parent.output.next()
    assert line is not None, parent.errors.rest()
    return json.loads(line)


def template_of(parent: Process) -> psutil.Process:
    (found,) = psutil.Process(parent.pid).children()
    assert found.name() == TEMPLATE_NAME
    return found


def test_a_worker_has_its_pipes_its_memory_and_nothing_of_the_others() -> None:
    with started() as parent:
        first, second = answer(parent, "start"), answer(parent, "start")
        assert {worker.pid for worker in worker_processes(parent.pid)} == {
            first["pid"],
            second["pid"],
        }
        assert (first["index"], second["index"]) == (0, 1)
        assert first["shared"] == second["shared"] == "in the shared memory"
        # Input, output, errors and the shared file.
        assert first["descriptors"] == second["descriptors"] == 4
        assert answer(parent, "say hello") == "hello"
        assert parent.terminate() == 0


@pytest.mark.parametrize(("request_", "code"), [("exit 0", 0), ("exit 3", 3), ("kill", -9)])
def test_the_exit_code_of_a_worker(request_: str, code: int) -> None:
    with started() as parent:
        pid = answer(parent, "start")["pid"]
        assert answer(parent, request_) == code
        assert is_gone(psutil.Process(pid)) if psutil.pid_exists(pid) else True
        assert answer(parent, "start")["index"] == 1
        assert parent.terminate() == 0


def test_an_error_in_a_worker_is_reported() -> None:
    with started() as parent:
        answer(parent, "start")
        assert answer(parent, "raise") == 1
        assert parent.terminate() == 0
        assert any("RuntimeError: as it was told" in line for line in parent.errors.rest())


def test_workers_outlive_the_template_and_new_ones_are_started_without_it() -> None:
    with started() as parent:
        first = answer(parent, "start")
        template_of(parent).send_signal(signal.SIGKILL)
        wait_until(lambda: psutil.Process(first["pid"]).ppid() != parent.pid)
        assert answer(parent, "say still here") == "still here"
        second = answer(parent, "start")
        assert second["shared"] == "in the shared memory"
        assert psutil.Process(second["pid"]).ppid() == parent.pid
        lines = [parent.errors.next() or ""]
        assert "workers cannot be forked" in lines[0]
        assert parent.terminate() == 0
        wait_until(lambda: not psutil.pid_exists(first["pid"]))


def test_all_end_with_a_killed_parent() -> None:
    with started() as parent:
        workers = [psutil.Process(answer(parent, "start")["pid"]) for _ in range(2)]
        template = template_of(parent)
        parent.process.send_signal(signal.SIGKILL)
        for process in [template, *workers]:
            wait_until(lambda process=process: is_gone(process))


def test_signals_to_the_group_end_the_workers_and_not_the_template() -> None:
    with started() as parent:
        worker = psutil.Process(answer(parent, "start")["pid"])
        template = template_of(parent)
        template.send_signal(signal.SIGINT)
        for process in (template, worker):
            process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_gone(worker))
        assert answer(parent, "start")["index"] == 1
        assert template.is_running()
        assert parent.terminate() == 0
        wait_until(lambda: is_gone(template))
