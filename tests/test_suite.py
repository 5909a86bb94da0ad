"""The suite itself: its table of slow tests, and its guide."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import slow

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "tests" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("path", sorted(slow.paths()))
def test_each_path_of_the_slow_tests_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("folder", sorted({p.parent.name for p in ROOT.glob("tests/*/test_*.py")}))
def test_the_guide_describes_each_folder(folder: str) -> None:
    assert f"`{folder}/`" in GUIDE


@pytest.mark.parametrize("target", ["test", "test-quick", "test-slow", "test-all"])
def test_the_guide_names_each_target(target: str) -> None:
    assert f"make {target}" in GUIDE
    assert f"\n{target}: " in (ROOT / "Makefile").read_text("utf-8")
