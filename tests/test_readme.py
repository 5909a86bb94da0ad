"""The README's tours, run unchanged: every line, in bash, against a server like ``make run``'s.

A fenced block after "<!-- tour: NAME -->" is part of that tour. Each line of a block after "<!--
shows -->" must be in the output of the block before it, in that order.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.serving import ServerProcess, serving
from tollwire.service.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
FENCED = re.compile(r"<!-- (tour: (?P<tour>\w+)|shows) -->\n```(?:bash)?\n(?P<text>.*?)```", re.S)
END_OF_BLOCK = "---- end of block ----"


@dataclass(slots=True)
class Block:
    """Commands of a tour, and lines that they print."""

    tour: str
    commands: str
    shows: list[str] = field(default_factory=list)


def blocks() -> list[Block]:
    found: list[Block] = []
    for match in FENCED.finditer(README):
        if match["tour"]:
            found.append(Block(match["tour"], match["text"]))
        else:
            found[-1].shows += [line.strip() for line in match["text"].splitlines()]
    return found


def go(tour: list[Block], server: ServerProcess) -> list[str]:
    """The output of each block of the tour. Bash reads the commands as if pasted."""
    script = "".join(f"{block.commands}\necho '{END_OF_BLOCK}'\n" for block in tour)
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    done = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=script,
        cwd=ROOT,
        env=os.environ | {"TOLLWIRE_SERVER": server.address, "PATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    return done.stdout.split(END_OF_BLOCK)[:-1]


def missing(shows: list[str], printed: str) -> list[str]:
    """The lines that were not printed, or not in that order.

    Columns may be wider, and the last item of JSON has no comma.
    """
    lines = iter([line.rstrip(",").split() for line in printed.splitlines()])
    return [s for s in shows if not any(s.rstrip(",").split() == line for line in lines)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(f"sqlite:///{tmp_path_factory.mktemp('database') / 'tollwire.db'}") as running:
        yield running


@pytest.mark.parametrize(
    "name", [pytest.param("grpcurl", marks=pytest.mark.external), "buf", "tollwire"]
)
def test_the_tour_works_line_by_line(name: str, server: ServerProcess) -> None:
    on_path = f"{ROOT / '.tools' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    if name == "grpcurl" and shutil.which(name, path=on_path) is None:
        pytest.skip("grpcurl is not installed (make tools builds it, with Go)")
    tour = [block for block in blocks() if block.tour == name]
    assert tour
    for block, printed in zip(tour, go(tour, server), strict=True):
        assert missing(block.shows, printed) == [], printed


def test_a_line_that_was_not_printed_is_reported() -> None:
    assert missing(["a", "b"], " a \nx\nb\n") == []
    assert missing(["b", "a"], "a\nb\n") == ["a"]
    assert missing(["a"], "aa\n") == ["a"]


def test_every_bash_block_is_part_of_a_tour() -> None:
    assert README.count("```bash") == len(blocks())


def test_the_tour_goes_from_a_tenant_to_a_summary() -> None:
    commands = "".join(block.commands for block in blocks() if block.tour == "grpcurl")
    for method in (
        *("CreateTenant", "CreateRate", "ImportRates", "UpdateRate", "RateCall", "UploadCdrs"),
        *("ListCdrs", "RateUnrated", "SummarizeUsage"),
    ):
        assert f"/{method}" in commands


def test_every_command_is_in_the_readme() -> None:
    for name, command in main.commands.items():
        table_row = re.search(rf"^\| `tollwire {name}\b.*$", README, re.MULTILINE)
        assert table_row is not None, name
        children = getattr(command, "commands", {}).values()
        for child in (child.name for child in children if not child.hidden):
            assert re.search(rf"^\| `tollwire {name} .*\b{child}\b", README, re.MULTILINE), child


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target
