"""``python -m tests.hostile.fuzzing``: every RPC, with requests from the descriptors and beyond.

A real server, on both databases, without and with tokens; server reflection lists its methods. It
prints the counts of requests and responses, and exits with 1 if a response was INTERNAL or UNKNOWN,
if there was none, if a process died, or if RateCall has another result than before. build/hostile
gets the same as JSON, with each input that was a finding.

The seed draws the same inputs again, except for ids from responses.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.databases import KINDS
from benchmarks.postgres_server import PostgresServer
from tests.hostile.asking import NEVER, Counts, Effort, ask_at_random
from tests.hostile.reflected import methods
from tests.hostile.results import written
from tests.hostile.targets import ACCESS, target

WORKERS = 2


@dataclass
class Outcome:
    """Of one server."""

    database: str
    access: str
    counts: Counts
    problems: list[str]

    @property
    def passed(self) -> bool:
        return not self.counts.findings and not self.problems

    def as_json(self) -> dict[str, Any]:
        return {
            "database": self.database,
            "access": self.access,
            "inputs": self.counts.inputs,
            "codes": dict(self.counts.codes.most_common()),
            "methods": dict(sorted(self.counts.methods.items())),
            "findings": self.counts.findings,
            "problems": self.problems,
        }

    def said(self) -> str:
        codes = ", ".join(f"{code} {n}" for code, n in self.counts.codes.most_common())
        never = ", ".join(f"{code.name} {self.counts.codes[code.name]}" for code in NEVER)
        return (
            f"{self.database}, {self.access}: {self.counts.inputs} inputs for "
            f"{len(self.counts.methods)} methods; {never}; {codes}"
        )


def played(
    database_url: str, database: str, access: str, effort: Effort, seed: str, workers: int
) -> Outcome:
    """One server and its results."""
    with target(database_url, access, workers) as asked:
        with asked.channel() as channel:
            served = methods(channel)
        counts = ask_at_random(
            *(asked.address, served, asked.known, asked.tokens, asked.spares, effort, seed)
        )
        problems = asked.problems()
        unasked = {method.path for method in served} - set(counts.methods)
        if unasked and counts.inputs > 50 * len(served):
            problems.append(f"never asked: {', '.join(sorted(unasked))}")
    return Outcome(database, access, counts, problems)


def main() -> int:
    options = _options()
    print(f"seed {options.seed}; --seed {options.seed} draws the same again", flush=True)
    effort = Effort(options.seconds / len(options.databases) / len(options.access))
    outcomes = []
    with contextlib.ExitStack() as stack:
        for database in options.databases:
            server = stack.enter_context(PostgresServer()) if database == "postgresql" else None
            for access in options.access:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                url = (
                    server.url(server.create()) if server else f"sqlite:///{folder / 'tollwire.db'}"
                )
                outcome = played(url, database, access, effort, options.seed, WORKERS)
                outcomes.append(outcome)
                print(outcome.said(), flush=True)
                for problem in outcome.problems:
                    print(f"  PROBLEM: {problem}", flush=True)
                for finding in outcome.counts.findings[:10]:
                    print(f"  FOUND: {finding['method']}: {finding['code']} {finding['details']}")
    codes = sum((outcome.counts.codes for outcome in outcomes), Counter())
    print(
        f"{codes.total()} inputs; "
        + ", ".join(f"{code.name} {codes[code.name]}" for code in NEVER)
        + f"; findings {sum(len(o.counts.findings) + len(o.problems) for o in outcomes)}"
    )
    written("fuzz", {"seed": options.seed, "servers": [one.as_json() for one in outcomes]})
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("tests.hostile.fuzzing", description=__doc__)
    parser.add_argument(
        "seconds", nargs="?", type=float, default=300, help="for all together (300)"
    )
    parser.add_argument("--seed", default=str(time.time_ns() % 10**6), help="default: a new one")
    parser.add_argument(
        "--database", dest="databases", action="append", choices=KINDS, help="default: both"
    )
    parser.add_argument("--access", action="append", choices=ACCESS, help="default: both")
    options = parser.parse_args()
    options.databases = options.databases or list(KINDS)
    options.access = options.access or list(ACCESS)
    return options


if __name__ == "__main__":
    sys.exit(main())
