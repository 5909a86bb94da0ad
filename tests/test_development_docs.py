"""The recipes of docs/development/ name only files and identifiers that exist.

Where a recipe names a file and identifiers behind a colon (`file`: `one`, `other`), the file has
them. Any other identifier is one of the repository.
"""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "docs" / "development").glob("*.md"))

CODE = re.compile(r"`([^`\n]+)`")
FILE = r"[\w.-]+(?:/[\w.-]+)+/?"
IDENTIFIER = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
# `file`: `one`, `other`, also with words between them.
NAMED = re.compile(rf"`({FILE})`:((?:[^`.;|]*`[A-Za-z_][\w.]*`)+)")
SOURCES = ("*.py", "*.pyi", "*.pyx", "*.pxd", "*.proto", "Makefile", "*.h", "*.toml", "*.sh")


@cache
def words() -> frozenset[str]:
    """All words of the sources, this file excepted."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *SOURCES], cwd=ROOT, capture_output=True, check=True
    )
    found: set[str] = set()
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and path != Path(__file__).resolve():
            found |= words_of(path)
    return frozenset(found)


@cache
def words_of(path: Path) -> frozenset[str]:
    return frozenset(re.findall(r"[A-Za-z_]\w*", path.read_text("utf-8")))


def text_of(recipe: Path) -> str:
    """Without line breaks within a paragraph, and without blocks of commands."""
    lines = [line for line in recipe.read_text("utf-8").splitlines() if line[:4] != "    ."]
    return re.sub(r"\n[ ]*(?=[^\n\s|#0-9-])", " ", "\n".join(lines))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_path_exists(recipe: Path) -> None:
    named = [one for one in CODE.findall(text_of(recipe)) if re.fullmatch(FILE, one)]
    missing = [one for one in named if not (ROOT / one).exists()]
    assert not missing, f"{recipe.name} names {', '.join(missing)}"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_identifier_exists(recipe: Path) -> None:
    missing = [
        one
        for one in CODE.findall(text_of(recipe))
        if IDENTIFIER.fullmatch(one) and not set(one.split(".")) <= words()
    ]
    assert not missing, f"{recipe.name} names {', '.join(missing)}"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_a_file_has_the_identifiers_that_are_named_with_it(recipe: Path) -> None:
    missing = [
        f"{file}: {one}"
        for file, names in NAMED.findall(text_of(recipe))
        for one in CODE.findall(names)
        if (ROOT / file).is_file()
        and IDENTIFIER.fullmatch(one)
        and not set(one.split(".")) <= words_of(ROOT / file)
    ]
    assert not missing, f"{recipe.name} names {'; '.join(missing)}"


def test_a_name_that_does_not_exist_is_detected() -> None:
    assert "no_such" + "_identifier" not in words()
    assert NAMED.findall("`a/b.py`: `one`, and `two`. `three`") == [("a/b.py", " `one`, and `two`")]
