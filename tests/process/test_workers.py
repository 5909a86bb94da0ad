"""The parent of several workers: with stand-ins, which start at once and fail on demand."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

import psutil

from tests.process.processes import Process, is_gone, wait_until


def supervised(count: int, **settings: str) -> Process:
    return Process(
        "-m",
        "tests.process.fake_worker",
        str(count),
        *(f"{name}={value}" for name, value in settings.items()),
        asked=True,
    )


def next_worker(parent: Process) -> psutil.Process:
    """The worker's pid, as it reports it.

    A list of the parent's children would be in the order of their ids, which wrap around, and would
    lack those that seem older than the parent after a clock change.
    """
    line = parent.errors.next()
    assert line is not None and re.fullmatch(r"worker \d+", line), line
    return psutil.Process(int(line.removeprefix("worker ")))


def serving(parent: Process, count: int) -> list[psutil.Process]:
    """The workers, when they serve, in any order."""
    workers = [next_worker(parent) for _ in range(count)]
    line = parent.output.next()
    assert line is not None and line.startswith("serving "), parent.errors.rest()
    assert {worker.ppid() for worker in workers} == {parent.pid}
    return workers


def test_one_line_when_all_serve_and_settings_reach_the_workers() -> None:
    with supervised(3, password="secret word") as parent:
        line = parent.output.next()
        assert line is not None
        assert json.loads(line.removeprefix("serving ")) == {
            "settings": {"password": "secret word"}
        }
        workers = [next_worker(parent) for _ in range(3)]
        assert len(set(workers)) == 3
        assert not any("secret" in " ".join(worker.cmdline()) for worker in workers)
        assert parent.terminate() == 0
        assert all(map(is_gone, workers))
        assert parent.output.rest() == []
        assert parent.errors.rest() == [], "the parent prints nothing else"


def test_a_worker_that_is_killed_is_replaced() -> None:
    with supervised(2) as parent:
        killed, other = serving(parent, 2)
        killed.send_signal(signal.SIGKILL)
        line = parent.errors.next()
        assert line is not None
        assert re.fullmatch(
            rf"ERROR tollwire\.workers worker [01] \(pid {killed.pid}\) ended with code -9;"
            r" a new one starts in 0\.0 s",
            line,
        )
        new = next_worker(parent)
        assert new.ppid() == parent.pid
        assert new not in (killed, other)
        assert other.is_running()
        assert parent.terminate() == 0
        assert is_gone(new) and is_gone(other)


def answers(parent: Process) -> dict[str, dict[str, Any]]:
    """The responses of the workers."""
    parent.ask("how are you")
    line = parent.output.next()
    assert line is not None
    found: dict[str, dict[str, Any]] = json.loads(line)
    return found


def test_each_worker_gets_its_own_query() -> None:
    with supervised(2) as parent:
        workers = {worker.pid for worker in serving(parent, 2)}
        for _ in range(2):
            found = answers(parent)
            assert all(answer["is_current"] and answer["starts"] == 1 for answer in found.values())
            assert {answer["content"]["pid"] for answer in found.values()} == workers
            asked = {slot: answer["content"]["asked"] for slot, answer in found.items()}
            assert asked == {"0": {"slot": 0}, "1": {"slot": 1}}
        assert parent.terminate() == 0


def test_a_worker_that_is_killed_answers_again_once_it_is_replaced() -> None:
    with supervised(2) as parent:
        serving(parent, 2)
        killed = psutil.Process(answers(parent)["0"]["content"]["pid"])
        killed.send_signal(signal.SIGKILL)
        wait_until(lambda: answers(parent)["0"]["starts"] == 2)
        wait_until(lambda: answers(parent)["0"]["is_current"])
        found = answers(parent)
        assert found["0"]["content"]["pid"] != killed.pid
        assert found["1"]["starts"] == 1 and found["1"]["is_current"]
        assert parent.terminate() == 0


def test_a_worker_that_does_not_answer_blocks_no_other() -> None:
    with supervised(1, deaf="yes") as parent:
        serving(parent, 1)
        for _ in range(3):
            assert answers(parent) == {"0": {"content": None, "is_current": False, "starts": 1}}


def test_workers_that_cannot_start_end_the_parent() -> None:
    with supervised(3, fail="at_start") as parent:
        assert parent.wait() == 1
        assert parent.output.rest() == []
        assert parent.errors.rest()[-1] == "a worker could not start"


def test_workers_that_die_repeatedly_end_the_parent() -> None:
    with supervised(1, fail="soon") as parent:
        assert parent.wait() == 1
        lines = parent.errors.rest()
        assert lines[-1] == "the workers end as soon as they are started"
        assert sum("ended with code 3" in line for line in lines) == 4


def test_workers_do_not_outlive_a_killed_parent() -> None:
    with supervised(2) as parent:
        workers = serving(parent, 2)
        parent.process.send_signal(signal.SIGKILL)
        for worker in workers:
            wait_until(lambda worker=worker: is_gone(worker))


def test_a_worker_that_does_not_stop_is_killed() -> None:
    with supervised(2, stubborn="yes") as parent:
        workers = serving(parent, 2)
        assert parent.terminate() == 0
        assert all(map(is_gone, workers))


def test_an_interrupt_stops_as_well() -> None:
    with supervised(2) as parent:
        workers = serving(parent, 2)
        parent.process.send_signal(signal.SIGINT)
        assert parent.wait() == 0
        assert all(map(is_gone, workers))
