"""``python -m tests.fuzz [TARGET...]``: test the core's codecs with mutated bytes.

The core and the protobuf library read the same bytes, and must accept and refuse the same and read
the same values (see ``targets``). If atheris is installed and the core was built with
TOLLWIRE_COVERAGE, libFuzzer guides the search ("make fuzz"); else the search is random.

Each target runs in a process of its own, so that a crash is a finding like a difference: its input
is saved, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz import plain
from tests.fuzz.agreement import Target
from tests.fuzz.record import Counts, Record
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
FINDINGS = ROOT / "build" / "fuzz" / "findings"


def main() -> int:
    options = _options()
    targets = [TARGETS[name] for name in options.targets or TARGETS]
    if options.replay:
        return replay(targets[0], options.replay)
    if options.record:
        work(targets[0], options)
        return 0
    print(
        f"seed {options.seed}, {'guided by coverage' if options.guided else 'random search'}",
        flush=True,
    )
    return max([watch(target, options) for target in targets])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET")
    parser.add_argument("--seconds", type=float, default=60, help="for each target (60)")
    parser.add_argument("--inputs", type=int, help="the most inputs for each target")
    parser.add_argument("--seed", type=int, default=1, help="another seed tries other inputs (1)")
    parser.add_argument("--replay", type=Path, nargs="+", help="check inputs that were saved")
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    # libFuzzer has its own count, so a number of inputs selects the random search.
    options.guided = options.inputs is None and _can_be_guided()
    if options.replay and len(options.targets) != 1:
        parser.error("--replay takes one TARGET")
    return options


def _can_be_guided() -> bool:
    return "coverage.so" in os.environ.get("LD_PRELOAD", "") and (
        importlib.util.find_spec("atheris") is not None
    )


def replay(target: Target, files: Sequence[Path]) -> int:
    for file in files:
        compared = target.check(file.read_bytes())
        outcome = "refused by both" if compared is None else f"{compared} items compared"
        print(f"{file}: {outcome}")
    return 0


def work(target: Target, options: argparse.Namespace) -> None:
    """Run in the process of a target. Raises, or dies, with a finding."""
    record = Record(options.record)

    def check(data: bytes) -> None:
        record.check(target, data)

    if options.guided:
        from tests.fuzz import guided

        corpus = options.record.with_name("corpus")
        corpus.mkdir()
        guided.fuzz(target, check, corpus, seed=options.seed, seconds=options.seconds)
    plain.fuzz(target, check, seed=options.seed, seconds=options.seconds, inputs=options.inputs)


def watch(target: Target, options: argparse.Namespace) -> int:
    """Fuzz one target in another process. Returns 1 after a finding, which was saved."""
    command = [sys.executable, "-m", "tests.fuzz", target.name, "--seed", str(options.seed)]
    command += ["--seconds", str(options.seconds)]
    if options.inputs is not None:
        command += ["--inputs", str(options.inputs)]
    with tempfile.TemporaryDirectory(prefix="tollwire-fuzz-") as folder:
        path = Path(folder) / "record"
        record = Record(path)
        started = time.monotonic()
        done = subprocess.run(
            [*command, "--record", str(path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        print(said(target, record.counts(), time.monotonic() - started), flush=True)
        if done.returncode == 0:
            return 0
        saved = save(target, record.last_input())
    print(done.stdout)
    print(
        f"FOUND: the process ended with {done.returncode}; its input is {saved}. To see it again:"
    )
    print(f"  python -m tests.fuzz {target.name} --replay {saved}", flush=True)
    return 1


def said(target: Target, counts: Counts, seconds: float) -> str:
    return (
        f"{target.name} ({target.about}): {counts}; {seconds:.0f} s,"
        f" {counts.tried / seconds:,.0f} inputs a second"
    )


def save(target: Target, data: bytes) -> Path:
    FINDINGS.mkdir(parents=True, exist_ok=True)
    path = FINDINGS / f"{target.name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path.relative_to(ROOT)


if __name__ == "__main__":
    sys.exit(main())
