"""The log's lines: their content, what they must not contain, and their number."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tollwire.service.domain import errors
from tollwire.service.domain.errors import Reason
from tollwire.service.domain.model import RatingStatus
from tollwire.service.domain.request import Request
from tollwire.service.domain.thread_context import handling
from tollwire.service.observability import logs
from tollwire.service.observability.logs import (
    FIELDS,
    MAX_LINES_A_SECOND,
    ConsoleLines,
    JsonLines,
    Lines,
    Sampled,
)
from tollwire.service.observability.masking import mask
from tollwire.service.rpc import error_map

NUMBER = "447911123456"
MASKED = "**********56"


def record(message: object, *args: object, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("tollwire.rpc", logging.INFO, "file", 1, message, args, None)
    made.__dict__.update(more)
    return made


def failure(words: str) -> Any:
    try:
        raise ValueError(words)
    except ValueError:
        return sys.exc_info()


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (record("%s: no rate", NUMBER), f"{MASKED}: no rate"),
        (record("%(number)s", {"number": NUMBER}), MASKED),
        (record(f"call to {NUMBER}"), f"call to {MASKED}"),
        (record(ValueError(NUMBER)), MASKED),
        (record("%r", ValueError(NUMBER)), f"'{MASKED}'"),
        # A number that is no telephone number.
        (record("upload %d, pid %d", 123_456_789, 54_321), "upload 123456789, pid 54321"),
        (record("%s in %.1f s", RatingStatus.RATED, 12_345.6), "1 in 12345.6 s"),
        (record("%d calls", NUMBER), "%d calls (the arguments do not match the format)"),
        (record("100%"), "100%"),
    ],
)
def test_the_text_of_a_line(line: logging.LogRecord, text: str) -> None:
    assert Lines(mask).message(line) == text


@pytest.mark.parametrize("make", [ConsoleLines, JsonLines])
def test_an_exception_shows_no_number(make: Callable[[Any], Lines]) -> None:
    line = record("defect", exc_info=failure(f"key ({NUMBER})"), stack_info=f"Stack: {NUMBER}")
    written = make(mask).format(line)
    assert "ValueError" in written and MASKED in written and "Stack: " in written
    assert NUMBER not in written
    assert NUMBER in make(str).format(line)


FORGED = "x\n2026-11-29 10:00:00,000 ERROR tollwire: forged\r\x1b[2K\x9b\u2028\x7f\ud800y"


@pytest.mark.parametrize("make", [ConsoleLines, JsonLines])
def test_no_text_begins_a_line_or_controls_a_terminal(make: Callable[[Any], Lines]) -> None:
    for line in (
        record("tenant %s", FORGED),
        record(FORGED),
        record("x", exc_info=failure(FORGED)),
        record("x", stack_info=FORGED),
    ):
        setattr(line, FIELDS, {"name": FORGED})
        first, *others = make(str).format(line).split("\n")
        assert "forged" in "".join([first, *others])
        assert first.isprintable()
        assert all(other.startswith("  ") and other.isprintable() for other in others)
        if make is JsonLines:
            assert json.loads(first)["name"] == FORGED


def test_a_line_has_its_request() -> None:
    with handling(Request(id="order-1", tenant_id=7)):
        line = JsonLines(mask).format(record("late", fields={"caller": NUMBER, "ms": 1.5}))
    found = json.loads(line)
    assert found["time"].endswith("Z") and found["level"] == "INFO"
    assert {name: found[name] for name in ("request_id", "tenant_id", "caller", "ms")} == {
        "request_id": "order-1",
        "tenant_id": 7,
        "caller": MASKED,
        "ms": 1.5,
    }
    assert "request_id" not in json.loads(JsonLines(mask).format(record("none")))
    given = record("%s: OK", "CdrService/GetCdr", fields={"method": "m", "request_id": NUMBER})
    console = ConsoleLines(mask).format(given)
    assert console.endswith(f" INFO tollwire.rpc: CdrService/GetCdr: OK request_id={MASKED}")


def test_many_lines_of_one_kind_are_a_few() -> None:
    sampled = Sampled()

    def let_through(second: float, *args: object, lines: int = 1) -> list[logging.LogRecord]:
        made = [record("%s: %s", *args, created=second) for _ in range(lines)]
        return [line for line in made if sampled.filter(line)]

    flood = let_through(100.0, "CdrService/CreateCdr", "OK", lines=1000)
    assert len(flood) == MAX_LINES_A_SECOND
    assert len(let_through(100.5, "CdrService/CreateCdr", "NOT_FOUND")) == 1
    assert len(let_through(100.9, "CdrService/CreateCdr", "OK")) == 0
    [after] = let_through(101.0, "CdrService/CreateCdr", "OK")
    assert after.fields == {"left_out": 1001 - MAX_LINES_A_SECOND}  # type: ignore[attr-defined]
    [later] = let_through(102.0, "CdrService/CreateCdr", "OK")
    assert not hasattr(later, "fields")


def test_other_packages_write_few_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever their text is: it may contain what a client has sent."""
    logs.set_up("INFO", "console", full_numbers=False)
    for number in range(1_000):
        logging.getLogger("another.package").error("Exception %d", number)
    # A line of the service itself that no client causes is always written.
    for _ in range(100):
        logging.getLogger("tollwire.workers").info("a worker serves")
    written = capsys.readouterr().err
    assert MAX_LINES_A_SECOND <= written.count("Exception") < 500
    assert written.count("a worker serves") == 100


def test_many_refusals_are_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("INFO", "json", full_numbers=False)
    for _ in range(1_000):
        error_map.refusal(errors.Exhausted(Reason.TOO_MANY_RPCS, "too much"), "A/Method")
    logs.set_up("DEBUG", "json", full_numbers=False)
    for _ in range(100):
        error_map.refusal(errors.Exhausted(Reason.TOO_MANY_RPCS, "too much"), "B/Method")
    lines = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    # The test may take longer than one second.
    assert MAX_LINES_A_SECOND <= sum("A/Method" in line for line in lines) < 500
    assert sum("B/Method" in line for line in lines) == 100


def test_nothing_else_writes_to_standard_error() -> None:
    """Threads that die, warnings, exceptions of finalisers, and that of the process itself."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"""
import threading, warnings
from tollwire.service.observability import logs
logs.set_up("INFO", "json", full_numbers=False)
class Finalised:
    def __del__(self):
        raise ValueError("{NUMBER} a")
def die():
    raise ValueError("{NUMBER} b")
Finalised()
thread = threading.Thread(target=die)
thread.start()
thread.join()
warnings.warn("{NUMBER} c")
raise ValueError("{NUMBER} d")
""",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["ERROR", "ERROR", "WARNING", "CRITICAL"]
    # A traceback shows source lines, which have the number only where it is created.
    assert done.stderr.count(MASKED) >= 4
    assert NUMBER not in done.stderr
