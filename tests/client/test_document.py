"""docs/clients/python.md, run block by block in its order, against a server.

Each line of a block after "<!-- shows -->" must be in the output of the block before it, in that
order.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.serving import ServerProcess
from tests.rpc.authority import Authority
from tests.test_readme import missing

PAGE = (Path(__file__).resolve().parents[2] / "docs/clients/python.md").read_text("utf-8")
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_block_runs_and_prints_what_the_page_shows(
    server: ServerProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    authority = Authority()
    authority.issue("switch-1.example").write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "token").write_text("tw_1_secret\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOLLWIRE_SERVER", server.address)
    names: dict[str, Any] = {}
    printed = ""
    for match in BLOCK.finditer(PAGE):
        line = PAGE[: match.start()].count("\n") + 1
        if match["language"] == "python":
            exec(compile(match["text"], f"python.md, line {line}", "exec"), names)
            printed = capsys.readouterr().out
        else:
            assert PAGE[: match.start()].endswith("<!-- shows -->\n"), f"line {line} is not run"
            assert missing(match["text"].splitlines(), printed) == [], printed


def test_the_page_has_no_other_fences() -> None:
    assert PAGE.count("```") == 2 * len(BLOCK.findall(PAGE))
