"""``python -m tests.endurance rolling|overload|holding``: the long forms ("make rolling"; "make
overload" runs the last two).

Prints the counts and writes them to build/endurance as JSON. The exit code is 1 if a call was lost,
if an RPC failed that must not, or if memory grew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.databases import KINDS
from benchmarks.postgres_server import PostgresServer
from tests.endurance.holding import holding
from tests.endurance.overload import overload
from tests.endurance.rolling import roll
from tests.endurance.tokens import first_token

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "endurance"


def _rolling(url: str, seconds: float) -> Any:
    return roll(url, seconds=seconds, restarts=4, workers=2, say=_say)


def _overload(url: str, seconds: float) -> Any:
    return overload(url, seconds=seconds, first_token=first_token(url))


def _holding(url: str, seconds: float) -> Any:
    return holding(url, first_token=first_token(url))


SUBJECTS: dict[str, Callable[[str, float], Any]] = {
    "rolling": _rolling,
    "overload": _overload,
    "holding": _holding,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance", description=__doc__)
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    options = parser.parse_args()
    started = datetime.now(UTC)
    with _database(options.database) as url:
        outcome = SUBJECTS[options.subject](url, options.seconds)
    document = {
        "subject": options.subject,
        "started": started.isoformat(),
        "database": options.database,
        "machine": platform.platform(),
        **vars(outcome),
        "passed": outcome.passed,
    }
    for name, value in document.items():
        _say(f"{name:>20}  {value}")
    path = RESULTS / f"{options.subject}-{options.database}-{started:%Y%m%dT%H%M%SZ}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
    _say(f"written to {path.relative_to(ROOT)}")
    return 0 if outcome.passed else 1


@contextlib.contextmanager
def _database(kind: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        if kind == "sqlite":
            yield f"sqlite:///{folder}/tollwire.db"
        else:
            with PostgresServer() as server:
                yield server.url(server.create())


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
