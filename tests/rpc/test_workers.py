"""The parent of several workers: with stand-ins, which start at once and fail on demand."""

from __future__ import annotations

import json
import signal

import psutil

from tests.rpc.processes import Process, is_gone, wait_until


def supervised(count: int, **settings: str) -> Process:
    return Process(
        "-m",
        "tests.rpc.fake_worker",
        str(count),
        *(f"{name}={value}" for name, value in settings.items()),
    )


def serving(parent: Process) -> list[psutil.Process]:
    """The workers, once they serve."""
    line = parent.output.next()
    assert line is not None and line.startswith("serving "), parent.errors.rest()
    return parent.children()


def test_one_line_when_all_serve_and_settings_reach_the_workers() -> None:
    with supervised(3, password="secret word") as parent:
        line = parent.output.next()
        assert line is not None
        assert json.loads(line.removeprefix("serving ")) == {
            "settings": {"password": "secret word"}
        }
        workers = parent.children()
        assert len(workers) == 3
        assert not any("secret" in " ".join(worker.cmdline()) for worker in workers)
        assert parent.terminate() == 0
        assert all(map(is_gone, workers))
        assert parent.output.rest() == []
        # Each worker's own words, and none of the parent's.
        assert sorted(parent.errors.rest()) == sorted(f"worker {worker.pid}" for worker in workers)


def test_a_worker_that_is_killed_is_replaced() -> None:
    with supervised(2) as parent:
        first, second = serving(parent)
        assert {parent.errors.next(), parent.errors.next()} == {
            f"worker {first.pid}",
            f"worker {second.pid}",
        }
        first.send_signal(signal.SIGKILL)
        assert parent.errors.next() == (
            f"ERROR tollwire.workers worker 0 (pid {first.pid}) ended with code -9; a new one"
            " starts in 0.0 s"
        )
        line = parent.errors.next()
        assert line is not None and line.startswith("worker ")
        after = {worker.pid for worker in parent.children()}
        assert second.pid in after
        assert len(after - {first.pid}) == 2
        assert parent.terminate() == 0


def test_workers_that_cannot_start_end_the_parent() -> None:
    with supervised(3, fail="at_start") as parent:
        assert parent.wait() == 1
        assert parent.output.rest() == []
        assert parent.errors.rest()[-1] == "a worker could not start"


def test_workers_that_keep_dying_end_the_parent() -> None:
    with supervised(1, fail="soon") as parent:
        assert parent.wait() == 1
        lines = parent.errors.rest()
        assert lines[-1] == "the workers die as soon as they are started"
        assert sum("ended with code 3" in line for line in lines) == 4


def test_workers_do_not_outlive_a_killed_parent() -> None:
    with supervised(2) as parent:
        workers = serving(parent)
        parent.process.send_signal(signal.SIGKILL)
        for worker in workers:
            wait_until(lambda worker=worker: is_gone(worker))


def test_a_worker_that_does_not_stop_is_killed() -> None:
    with supervised(2, stubborn="yes") as parent:
        workers = serving(parent)
        assert parent.terminate() == 0
        assert all(map(is_gone, workers))


def test_an_interrupt_stops_as_well() -> None:
    with supervised(2) as parent:
        workers = serving(parent)
        parent.process.send_signal(signal.SIGINT)
        assert parent.wait() == 0
        assert all(map(is_gone, workers))
