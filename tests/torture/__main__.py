"""``python -m tests.torture``: everything that can happen to an upload, at length ("make torture").

Each scenario runs on both databases and ends with a count. A table of the totals is printed at the
end and written to build/torture as JSON; the exit code is 1 if anything was lost, doubled or wrong.
The seed determines what is sent, what is killed and when: the same seed repeats a run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.databases import KINDS
from benchmarks.postgres_server import PostgresServer
from tests.torture.scenarios import SCENARIOS, Scenario
from tests.torture.stage import LONG, SHORT, Stage
from tests.torture.tally import Tally, table, totals

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "torture"
WORKERS = 2


def main() -> int:
    options = _options()
    size = SHORT if options.short else LONG
    print(f"seed {options.seed}; --seed {options.seed} tries the same again", flush=True)
    tallies = []
    started = datetime.now(UTC)
    for kind in options.databases:
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(PostgresServer()) if kind == "postgresql" else None
            for name in options.scenarios or SCENARIOS:
                if kind in SCENARIOS[name].kinds:
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                    stage = Stage(options.seed, size, folder, WORKERS, server, say=_say)
                    tallies.append(played(name, SCENARIOS[name], stage))
    print(table(tallies), flush=True)
    path = RESULTS / f"{started:%Y%m%dT%H%M%SZ}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "started": started.isoformat(),
        "seed": options.seed,
        "short": options.short,
        "machine": platform.platform(),
        "totals": [tally.as_json() for tally in tallies],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written to {path.relative_to(ROOT)}")
    return 0 if all(tally.passed for tally in tallies) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("tests.torture", description=__doc__)
    parser.add_argument(
        "scenarios",
        nargs="*",
        choices=[*SCENARIOS, []],
        metavar="SCENARIO",
        help=f"default: all of {', '.join(SCENARIOS)}",
    )
    parser.add_argument("--seed", default=str(time.time_ns() % 10**6), help="default: a new one")
    parser.add_argument("--short", action="store_true", help="as small as in the test suite")
    parser.add_argument(
        "--database", dest="databases", action="append", choices=KINDS, help="default: both"
    )
    options = parser.parse_args()
    options.databases = options.databases or list(KINDS)
    return options


def played(name: str, scenario: Scenario, stage: Stage) -> Tally:
    """The totals of a scenario. An error that ends it early is one of its problems."""
    began = time.monotonic()
    try:
        tally = scenario.run(stage)
    except Exception as error:
        traceback.print_exc()
        tally = stage.tally(name)
        tally.problem(f"{type(error).__name__}: {error}")
    tally.seconds = round(time.monotonic() - began, 1)
    verdict = "passed" if tally.passed else "FAILED"
    print(f"{verdict} in {tally.seconds:.0f} s: {totals(tally)}", flush=True)
    return tally


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="\r", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
