"""``python -m tests.hostile.port``: all malformed traffic on the port, during RateCalls.

A row for each kind of attack: the number of RateCalls, each with a health check, that were sent and
answered meanwhile, the median and the slowest time of both, the growth of the log, and the peak
growth of the memory of all the server's processes. The exit code is 1 if a RateCall failed, a
process died, the log has a defect, or grew by more than MOST_LOG_BYTES a second, or memory grew by
more than MOST_BYTES.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc
import psutil

from tests.hostile.attacks import ATTACKS, Attack
from tests.hostile.results import written
from tests.hostile.targets import Target, target

# The settings of the server for each transport. A worker that grows by twice this limit ends the
# RPCs whose messages are being read, or on the native transport closes all connections.
_LITTLE = {"TOLLWIRE_MAX_REQUEST_BYTES_IN_WORK": str(32 * 2**20)}
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "grpcio": _LITTLE,
    "native": _LITTLE | {"TOLLWIRE_TRANSPORT": "native"},
}

# On grpcio: two requests of the largest size that each of two workers may be reading, each twice in
# memory while it is assembled, and the transport's own. On the native transport: each of two
# workers ends when it has grown by four times its limit, and has one more message of 31 MiB.
MOST_BYTES = 320 * 2**20
# Ten lines a second of each of a few kinds, from each of two workers.
MOST_LOG_BYTES = 16 * 2**10
# The rate of RateCalls meanwhile: they must be answered, not be fast.
_PAUSE_SECONDS = 0.02
_CONNECTIONS = 4
_ATTEMPTS = 100


@dataclass
class Row:
    """The results of one kind of attack."""

    name: str
    much: int
    seconds: float = 0.0
    asked: int = 0
    failed: int = 0
    # RateCalls whose connection the server closed, and that were sent again.
    retried: int = 0
    slowest_seconds: float = 0.0
    median_seconds: float = 0.0
    log_bytes: int = 0
    growth_bytes: int = 0
    problem: str = ""
    times: list[float] = field(default_factory=list, repr=False)

    @property
    def passed(self) -> bool:
        return self.asked > self.failed == 0 and not self.problem

    def figures(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "times"}

    def said(self) -> str:
        return (
            f"{self.name:24} {self.much:7} {self.seconds:7.1f} s {self.asked:6} {self.failed:6} "
            f"{self.retried:7} {self.median_seconds * 1000:8.1f} ms "
            f"{self.slowest_seconds * 1000:8.0f} ms {self.log_bytes:8} "
            f"{self.growth_bytes / 2**20:8.0f} MiB  "
            f"{self.problem or 'ok'}"
        )


TITLE = (
    f"{'attack':24} {'much':>7} {'time':>9} {'asked':>6} {'failed':>6} {'retried':>7} "
    f"{'median':>11} {'slowest':>11} {'log':>8} {'memory':>12}"
)


def attacked(asked: Target, name: str, attack: Attack, much: int) -> Row:
    """Run one attack, and send RateCalls until it is over and once more."""
    row = Row(name, much)
    host, _, port = asked.address.rpartition(":")
    began = time.monotonic()
    before, logged = _resident(asked), asked.server.log_bytes()
    attacker = threading.Thread(target=_quietly, args=(attack, (host, int(port)), much))
    with contextlib.ExitStack() as stack, _Peak(asked) as peak:
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
    row.median_seconds = round(statistics.median(row.times), 4)
    row.log_bytes = asked.server.log_bytes() - logged
    row.growth_bytes = max(0, peak.bytes - before)
    if row.log_bytes > MOST_LOG_BYTES * (row.seconds + 1):
        row.problem = f"the log grew by {row.log_bytes} bytes"
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
        row.failed += not (asked.rates_on(channel) and asked.serves_on(channel))
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        if asked.may_close and error.code() is grpc.StatusCode.UNAVAILABLE:
            row.retried += 1
            row.failed += not _rates_again(asked, channel)
        else:
            row.failed += 1
    row.times.append(time.monotonic() - began)
    row.slowest_seconds = round(max(row.times), 3)


def _rates_again(asked: Target, channel: grpc.Channel) -> bool:
    for _ in range(_ATTEMPTS):
        try:
            return asked.rates_on(channel)
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                return False
            time.sleep(_PAUSE_SECONDS)
    return False


class _Peak:
    """The most that the processes of the server hold together while the block runs."""

    def __init__(self, asked: Target) -> None:
        self._asked = asked
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.bytes = 0

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(_PAUSE_SECONDS):
            self.bytes = max(self.bytes, _resident(self._asked))


def _resident(asked: Target) -> int:
    held = 0
    with contextlib.suppress(psutil.Error):  # the server has ended
        for process in asked.processes():
            with contextlib.suppress(psutil.Error):  # a worker has ended
                held += process.memory_info().rss
    return held


def main() -> int:
    parser = argparse.ArgumentParser("tests.hostile.port", description=__doc__)
    parser.add_argument("attacks", nargs="*", help=f"default: all of {', '.join(ATTACKS)}")
    parser.add_argument("--short", action="store_true", help="as small as in the test suite")
    parser.add_argument("--transport", choices=SETTINGS, default="grpcio")
    options = parser.parse_args()
    rows = []
    print(TITLE, flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        target(
            f"sqlite:///{folder}/tollwire.db", "open", workers=2, **SETTINGS[options.transport]
        ) as asked,
    ):
        for name in options.attacks or ATTACKS:
            attack, short, long = ATTACKS[name]
            rows.append(attacked(asked, name, attack, short if options.short else long))
            print(rows[-1].said(), flush=True)
    name = "port" if options.transport == "grpcio" else f"port-{options.transport}"
    written(name, {"most_bytes": MOST_BYTES, "attacks": [row.figures() for row in rows]})
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
