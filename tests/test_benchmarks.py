"""The demo and the benchmarks, run small: they work, and what they compute is what it was."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import lookup
from benchmarks.real_deck import real_deck

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.timeout(180)
def test_the_demo_ends_with_its_report() -> None:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "proto")])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.demo"],
        env=os.environ | {"DEMO_CALLS": "2000", "DEMO_RATES": "3000", "PYTHONPATH": paths},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "2,000 CDRs recorded, " in done.stdout
    assert "0 duplicates, 0 conflicts, 0 rejected" in done.stdout
    assert re.search(r"upload, rate and store 2,000 calls +\d+\.\d +[\d,]+ calls", done.stdout)
    assert re.search(r"The server held at most \d+ MiB of memory", done.stdout)
    days = re.findall(r"^2026-03-\d\d +([\d,]+) ", done.stdout, re.MULTILINE)
    assert 25 <= len(days) <= 29
    assert sum(int(calls.replace(",", "")) for calls in days) == 2000
    dearest = done.stdout.partition("The ten dearest")[2].partition("What each step")[0]
    costs = [float(cost) for cost in re.findall(r"(\d+\.\d{4}) EUR", dearest)]
    assert len(costs) == 10
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] > 0


def test_the_real_deck_is_the_one_that_the_budgets_mean() -> None:
    rows = real_deck()
    prefixes = {row.prefix for row in rows}
    assert len(prefixes) == len(rows)
    assert 300_000 < len(rows) < 340_000
    assert {len(prefix) for prefix in prefixes} <= set(range(3, 10))
    assert all(re.fullmatch(r"\d+\.\d{4}", row.cost_per_minute) for row in rows)
    assert next(row for row in rows if row.prefix == "4930") == lookup.DeckRow(
        "4930", "Germany, Berlin", *BERLIN
    )


BERLIN = ("0.0104", 1)


def test_the_look_up_finds_what_a_dict_by_length_finds() -> None:
    report = lookup.run(calls=2_000, runs=1)  # stops where the two disagree
    assert report["times_faster"] > 0
    assert report["answer_sha256"].startswith(ANSWER)


ANSWER = "020595ddec92"
