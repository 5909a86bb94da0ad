"""The documents name only what exists: links, anchors, paths, and steps of docs/architecture/."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
ARCHITECTURE = ROOT / "docs" / "architecture"
WAYS = sorted(page for page in ARCHITECTURE.glob("*.md") if page.name != "README.md")
DECISIONS = sorted(ARCHITECTURE.glob("decisions/*.md"))

LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
STEP = re.compile(r"^\| \d+ \| `([^`]+)` \| (.+?) \| .+ \|$", re.MULTILINE)
PATH = re.compile(r"`((?:service|ratingcore|tests|benchmarks|proto|deploy|docs)/[\w./-]+)`")
TERM = re.compile(r"^\| [^|]+ \| [^|]+ \| (`[^|]+) \|$", re.MULTILINE)
SECTIONS = ["Context", "Decision", "Rejected", "Measured"]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text("utf-8")):
        path, _, anchor = target.partition("#")
        linked = document.parent / path if path else document
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text("utf-8")), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_path_that_is_named_exists(document: Path) -> None:
    for path in PATH.findall(document.read_text("utf-8")):
        assert (ROOT / path).exists(), path


def defines(source: str, name: str) -> bool:
    """Whether the source of a module, in Python or Cython, defines a function, method or class."""
    return bool(
        re.search(rf"^\s*(?:cdef class|class) {name}\b", source, re.MULTILINE)
        or re.search(
            rf"^\s*(?:async )?(?:def|cdef|cpdef)\b[^=#\n]*\b{name}\(", source, re.MULTILINE
        )
    )


@pytest.mark.parametrize("page", WAYS, ids=name_of)
def test_every_step_names_functions_of_its_file(page: Path) -> None:
    steps = STEP.findall(page.read_text("utf-8"))
    assert len(steps) > 8
    for path, functions in steps:
        source = (ROOT / path).read_text("utf-8")
        names = re.findall(r"`([^`]+)`", functions)
        assert names, functions
        assert not defines(source, "no_such_function")
        for name in names:
            for part in name.split("."):
                assert defines(source, part), f"{page.name}: {path} does not define {name}"


def test_every_page_of_the_architecture_is_in_its_table_of_contents() -> None:
    contents = (ARCHITECTURE / "README.md").read_text("utf-8")
    linked = {target.partition("#")[0] for target in LINK.findall(contents)}
    for page in (*WAYS, *DECISIONS):
        assert str(page.relative_to(ARCHITECTURE)) in linked


@pytest.mark.parametrize("page", DECISIONS, ids=name_of)
def test_a_decision_has_its_sections_in_order(page: Path) -> None:
    headings = re.findall(r"^## (.+)$", page.read_text("utf-8"), re.MULTILINE)
    assert headings == [section for section in SECTIONS if section in headings]
    assert headings[:2] == ["Context", "Decision"]


def test_every_term_of_the_glossary_is_in_the_code() -> None:
    glossary = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("\n## Names\n")[2]
    terms = TERM.findall(glossary.partition("\n## ")[0])
    assert len(terms) > 30
    for term in terms:
        for place in term.split("; "):
            path, _, names = place.partition(": ")
            source = (ROOT / path.strip("`")).read_text("utf-8")
            for name in re.findall(r"`(\w+)`", names):
                assert defines(source, name), place
