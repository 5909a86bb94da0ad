"""Every dependency's licence is listed and allowed (.ci/licences)."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "licences"


def test_every_licence_is_listed_and_allowed() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPT)])
        patch.setattr(sys, "exit", lambda code: None)
        return runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize(
    ("expression", "taken"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-2.0-only", True),
        ("Apache-2.0 AND BSD-2-Clause", True),
        ("LGPL-3.0-only", True),
        ("GPL-3.0-or-later", False),
        ("AGPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("says nothing", False),
    ],
)
def test_allowed_licences(script: dict[str, Any], expression: str, taken: bool) -> None:
    assert script["taken"](expression) is taken
