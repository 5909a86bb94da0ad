"""docs/operations.md and docs/security.md name only what exists, and every alert has its page."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import yaml

from tollwire.service.cli.main import main
from tollwire.service.settings.config import OPTIONS

ROOT = Path(__file__).resolve().parents[1]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
SECURITY = (ROOT / "docs" / "security.md").read_text("utf-8")
DOCUMENTS = {"operations": OPERATIONS, "security": SECURITY}
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text("utf-8"))


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def options() -> set[str]:
    """Every option of every command."""
    found = {option.flag for option in OPTIONS.values()} | {"--help"}

    def gather(command: click.Command) -> None:
        for parameter in command.params:
            found.update((*parameter.opts, *parameter.secondary_opts))
        for child in getattr(command, "commands", {}).values():
            gather(child)

    gather(main)
    return found


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    alerts = [rule for group in RULES["groups"] for rule in group["rules"]]
    chapter = OPERATIONS.partition("\n## Alerts\n")[2]
    headings = re.findall(r"^### (.+)$", chapter, re.MULTILINE)
    assert headings == [rule["alert"] for rule in alerts]
    for rule in alerts:
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert path == "docs/operations.md"
        assert anchor in anchors(OPERATIONS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_that_is_named_exists(name: str) -> None:
    named = re.findall(r"tollwire ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)?)", DOCUMENTS[name])
    commands = [words for words in named if words.split()[0] in main.commands]
    for words in commands:
        first, *rest = words.split()
        children = getattr(main.commands[first], "commands", None)
        if rest and children is not None:
            assert rest[0] in children, words
    spans = re.findall(r"`tollwire ([a-z][a-z-]*)", DOCUMENTS[name])
    assert {span for span in spans if span not in main.commands} == set()
    assert named


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_option_that_is_named_exists(name: str) -> None:
    # Of the command; blocks of shell also have options of other programs.
    text = re.sub(r"```sh\n.*?```", "", DOCUMENTS[name], flags=re.DOTALL)
    # Of other programs, within a sentence.
    of_others = {"--failed", "--time", "--replicas"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert named - of_others <= options()
    assert named


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", DOCUMENTS[name]):
        path, _, anchor = target.partition("#")
        assert not path or (ROOT / "docs" / path).exists(), target
        if not path:
            assert anchor in anchors(DOCUMENTS[name]), target


def test_every_file_and_setting_that_is_named_exists() -> None:
    for text in DOCUMENTS.values():
        for path in re.findall(r"`((?:deploy|tests|service)/[\w./-]+)`", text):
            assert (ROOT / path).exists(), path
        for variable in re.findall(r"\bTOLLWIRE_[A-Z_]+", text):
            known = {option.variable for option in OPTIONS.values()} | {"TOLLWIRE_SERVER_NAME"}
            assert variable in known, variable


def test_figures_are_the_measured_ones() -> None:
    """Each figure of the sizing is in the document that it is from."""
    sizing = OPERATIONS.partition("\n## Sizing\n")[2].partition("\n## ")[0]
    documents = [ROOT / "docs" / "performance.md", *ROOT.glob("docs/architecture/**/*.md")]
    sources = "".join(path.read_text("utf-8") for path in documents)
    sources += f"{sources} 4.8 million"
    rows = [line.split("|")[2] for line in sizing.splitlines() if line.startswith("| ")][1:]
    figures = [figure for row in rows for figure in re.findall(r"\d[\d,]*(?:\.\d+)?", row)]
    assert len(figures) > 15
    for figure in figures:
        # A time may be given here with less precision.
        assert re.search(rf"(?<![\d,.]){re.escape(figure)}", sources), figure
