"""``python -m tests.hostile.port``: all malformed traffic on the port, during RateCalls.

A row for each kind of attack: the number of RateCalls sent and answered meanwhile, the slowest
response, and the peak growth of the memory of all the server's processes. The exit code is 1 if a
RateCall failed, a process died, the log has a defect, or memory grew by more than MOST_BYTES.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import psutil

from tests.hostile.attacks import ATTACKS, Attack
from tests.hostile.results import written
from tests.hostile.targets import Target, target

# Two requests of the largest size that each of two workers may be reading, each twice in memory
# while it is assembled, and the transport's own.
MOST_BYTES = 320 * 2**20
# The rate of RateCalls meanwhile: they must be answered, not be fast.
_PAUSE_SECONDS = 0.02
_CONNECTIONS = 4


@dataclass
class Row:
    """The results of one kind of attack."""

    name: str
    much: int
    seconds: float = 0.0
    asked: int = 0
    failed: int = 0
    slowest_seconds: float = 0.0
    growth_bytes: int = 0
    problem: str = ""

    @property
    def passed(self) -> bool:
        return self.asked > self.failed == 0 and not self.problem

    def said(self) -> str:
        return (
            f"{self.name:24} {self.much:7} {self.seconds:7.1f} s {self.asked:6} {self.failed:6} "
            f"{self.slowest_seconds * 1000:8.0f} ms {self.growth_bytes / 2**20:8.0f} MiB  "
            f"{self.problem or 'ok'}"
        )


TITLE = (
    f"{'attack':24} {'much':>7} {'time':>9} {'asked':>6} {'failed':>6} {'slowest':>11} "
    f"{'memory':>12}"
)


def attacked(asked: Target, name: str, attack: Attack, much: int) -> Row:
    """Run one attack, and send RateCalls until it is over and once more."""
    row = Row(name, much)
    host, _, port = asked.address.rpartition(":")
    began = time.monotonic()
    before = sum(process.memory_info().rss for process in asked.processes())
    attacker = threading.Thread(target=_quietly, args=(attack, (host, int(port)), much))
    peak = _Peak(asked.processes())
    with contextlib.ExitStack() as stack:
        # Several connections, so that both workers have some. They exist before the attack: the
        # server refuses a connection beyond the limit, and serves those that it has.
        channels = [stack.enter_context(asked.channel()) for _ in range(_CONNECTIONS)]
        for channel in channels:
            _ask(asked, channel, row)
        attacker.start()
        for channel in itertools.cycle(channels):
            _ask(asked, channel, row)
            attacker.join(_PAUSE_SECONDS)
            if not attacker.is_alive():
                break
        for channel in channels:
            _ask(asked, channel, row)
    row.seconds = round(time.monotonic() - began, 1)
    row.growth_bytes = max(0, peak() - before)
    if row.growth_bytes > MOST_BYTES:
        row.problem = f"more than {MOST_BYTES >> 20} MiB"
    if found := asked.problems():
        row.problem = "; ".join(found)
    return row


def _quietly(attack: Attack, address: tuple[str, int], much: int) -> None:
    with contextlib.suppress(OSError):  # the server has closed the connection, which is allowed
        attack(address, much)


def _ask(asked: Target, channel: grpc.Channel, row: Row) -> None:
    began = time.monotonic()
    row.asked += 1
    try:
        row.failed += not asked.rates_on(channel)
    except grpc.RpcError:
        row.failed += 1
    row.slowest_seconds = max(row.slowest_seconds, round(time.monotonic() - began, 3))


class _Peak:
    """The peak of the memory of all processes since its creation."""

    def __init__(self, processes: Sequence[psutil.Process]) -> None:
        self._processes = processes
        for process in processes:
            # From here on the kernel records a new peak.
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")

    def __call__(self) -> int:
        return sum(map(_high_water, self._processes))


def _high_water(process: psutil.Process) -> int:
    with contextlib.suppress(OSError):  # gone
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def main() -> int:
    parser = argparse.ArgumentParser("tests.hostile.port", description=__doc__)
    parser.add_argument("attacks", nargs="*", help=f"default: all of {', '.join(ATTACKS)}")
    parser.add_argument("--short", action="store_true", help="as small as in the test suite")
    options = parser.parse_args()
    rows = []
    print(TITLE, flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        target(f"sqlite:///{folder}/tollwire.db", "open", workers=2) as asked,
    ):
        for name in options.attacks or ATTACKS:
            attack, short, long = ATTACKS[name]
            rows.append(attacked(asked, name, attack, short if options.short else long))
            print(rows[-1].said(), flush=True)
    written("port", {"most_bytes": MOST_BYTES, "attacks": [asdict(row) for row in rows]})
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
