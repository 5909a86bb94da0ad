"""The suite itself: its tables of slow tests, and its guide."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import slow

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "tests" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("entry", sorted(slow.entries()))
def test_each_entry_of_the_slow_tests_exists(entry: str) -> None:
    path, _, name = entry.partition("::")
    assert (ROOT / path).exists()
    if name:
        assert re.search(rf"^(def {name}\(|{name} = )", (ROOT / path).read_text("utf-8"), re.M)


def test_a_test_is_in_one_table_at_most() -> None:
    for entries in slow.NOT_QUICK.values():
        for entry in entries:
            assert not slow.is_slow(entry), f"{entry} is in SLOW as well"
            assert not slow.is_quick(f"{entry}[sqlite]")
    assert slow.is_quick("tests/core/test_money.py::test_intervals")


@pytest.mark.parametrize("folder", sorted({p.parent.name for p in ROOT.glob("tests/*/test_*.py")}))
def test_the_guide_describes_each_folder(folder: str) -> None:
    assert f"`{folder}/`" in GUIDE


@pytest.mark.parametrize("target", ["test", "test-quick", "test-slow", "test-all"])
def test_the_guide_names_each_target(target: str) -> None:
    assert f"make {target}" in GUIDE
    assert f"\n{target}: " in (ROOT / "Makefile").read_text("utf-8")
