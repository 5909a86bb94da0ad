"""The fuzzer with a fixed seed for a second, and with parsers whose errors it must find."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from ratingcore.wire import call_parse
from tests.fuzz import plain
from tests.fuzz.__main__ import ROOT, replay
from tests.fuzz.agreement import Difference, Target
from tests.fuzz.fields import read, write
from tests.fuzz.mutations import MAX_BYTES, mutate
from tests.fuzz.record import Counts, Record
from tests.fuzz.targets import TARGETS

INPUTS = 1500


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_the_core_reads_the_same_as_the_library(target: Target, tmp_path: Path) -> None:
    record = Record(tmp_path / "record")
    plain.fuzz(target, lambda data: record.check(target, data), seed=1, inputs=INPUTS)
    counts = record.counts()
    assert counts.tried == INPUTS
    assert 0.1 < counts.accepted / counts.tried < 0.8
    assert counts.compared > counts.accepted / 5


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_messages_in_order_are_accepted_and_read_back(target: Target) -> None:
    draw = random.Random(2)
    for _ in range(50):
        data = target.grammar.make(draw)
        assert target.check(data) is not None
        fields = read(data, target.grammar.message)
        assert fields is not None
        assert write(fields) == data


def test_a_seed_repeats_a_run() -> None:
    target = TARGETS["read"]

    def first(seed: int) -> list[bytes]:
        return [data for data, _ in zip(plain.candidates(target, seed), range(2000), strict=False)]

    assert first(1) == first(1) != first(2)
    assert max(map(len, first(1))) <= 2 * MAX_BYTES


def test_mutations_change_their_input() -> None:
    grammar, draw = TARGETS["read"].grammar, random.Random(3)
    data = grammar.make(draw)
    bent = {mutate(data, grammar, draw) for _ in range(200)}
    assert len(bent) > 150


def test_wrongly_read_fields_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that treats a duration of 0 as absent, and one that reads past a wrong last
    length."""
    right = call_parse.parse_calls

    def no_zeros(data: bytes) -> list[tuple[object, ...]]:
        return [(*call[:6], call[6] or None, *call[7:]) for call in right(data)]

    def lenient(data: bytes) -> list[tuple[object, ...]]:
        try:
            return right(data)
        except ValueError:
            return right(data + b"\0")

    for wrong, finding in ((no_zeros, "is not"), (lenient, "only the core accepts it")):
        monkeypatch.setattr(call_parse, "parse_calls", wrong)
        with pytest.raises(Difference, match=finding):
            plain.fuzz(TARGETS["read"], TARGETS["read"].check, seed=1, inputs=INPUTS)


def test_the_input_survives_the_process(tmp_path: Path) -> None:
    program = """
import os, pathlib, sys
from tests.fuzz.fields import Grammar
from tests.fuzz.record import Record
from tests.fuzz.targets import TARGETS, Target

def check(data):
    return 2 if data == b"fine" else os.abort()

target = Target("dying", "", TARGETS["read"].grammar, check)
record = Record(pathlib.Path(sys.argv[1]))
record.check(target, b"fine")
record.check(target, b"fatal")
"""
    path = tmp_path / "record"
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT)
    assert done.returncode != 0
    assert Record(path).counts() == Counts(tried=2, accepted=1, compared=2)
    assert Record(path).last_input() == b"fatal"


def test_the_command_counts_its_inputs() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "options", "--inputs", "50", "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "seed 7, random search" in done.stdout
    assert "options (likely_options, against the library): 50 inputs: " in done.stdout


def test_a_saved_input_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, cut = tmp_path / "good", tmp_path / "cut"
    good.write_bytes(b"\x10\x05")
    cut.write_bytes(b"\x10")
    assert replay(TARGETS["options"], [good, cut]) == 0
    assert capsys.readouterr().out == f"{good}: 1 items compared\n{cut}: refused by both\n"
