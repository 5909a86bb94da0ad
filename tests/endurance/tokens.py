"""The first token of a database, created as its operator does."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.process.processes import REPOSITORY

_TOKEN = re.compile(r"tw_\d+_[\w-]{43}")


def first_token(database_url: str) -> str:
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "proto")])
    command = [sys.executable, "-m", "tollwire.service.cli.main"]
    for arguments in (["migrate"], ["tokens", "first"]):
        done = subprocess.run(
            [*command, *arguments, "--database", database_url],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    found = _TOKEN.search(done.stdout)
    assert found is not None, done.stdout
    return found[0]
