"""``python -m tests.hostile.strangers``: connections without a token, and the service for others.

A process opens this number of connections from one address, keeps them, and replaces those that the
server closes. Meanwhile new connections with a token rate calls, and probes check the health, on
the port for clients and on that of --health-listen. The exit code is 1 if one of them failed, or if
a connection that existed before has failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import selectors
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.hostile import frames
from tests.hostile.bearer import with_token
from tests.hostile.port import SETTINGS
from tests.hostile.results import written
from tests.hostile.targets import Target, target

AMOUNTS = (1_000, 10_000)
SECONDS = 15.0
DEADLINE_SECONDS = 5.0
# The pace of the others: one connection after the other, each of its own.
PAUSE_SECONDS = 0.05
_FILES = 20_000
# The strangers' address. All others have 127.0.0.1.
ADDRESS = "127.0.0.2"
OK = "OK"
# UNAVAILABLE, then answered: gRPC clients send such a request again by themselves.
AGAIN = "OK, sent again"


@dataclass
class Row:
    """What the others got: the counts by outcome, and the median and the slowest time."""

    connections: int
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    median_ms: dict[str, float] = field(default_factory=dict)
    slowest_ms: dict[str, float] = field(default_factory=dict)
    growth_bytes: int = 0

    @property
    def passed(self) -> bool:
        return all(set(found) <= {OK, AGAIN} for found in self.outcomes.values())

    def figures(self) -> dict[str, Any]:
        return vars(self) | {
            "outcomes": {name: dict(found) for name, found in self.outcomes.items()}
        }

    def said(self) -> str:
        parts = [
            f"{name}: {dict(found)}, {self.median_ms[name]:.0f}/{self.slowest_ms[name]:.0f} ms"
            for name, found in self.outcomes.items()
        ]
        return f"{self.connections:6} {self.growth_bytes >> 20:4} MiB  " + "; ".join(parts)


def strangers(address: tuple[str, int], much: int, ready: Any) -> None:
    """Open ``much`` connections and keep them, until the process is ended. Half of them say what an
    HTTP/2 client says first, the others nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, _FILES)), hard))
    selector = selectors.DefaultSelector()
    opened = 0
    number = 0
    while True:
        while opened < much:
            line = socket.socket()
            line.setblocking(False)
            line.bind((ADDRESS, 0))
            line.connect_ex(address)
            selector.register(line, selectors.EVENT_WRITE, number % 2)
            opened, number = opened + 1, number + 1
            if opened % 100 == 0:
                break
        for key, events in selector.select(0.01):
            line = key.fileobj  # type: ignore[assignment]
            try:
                if events & selectors.EVENT_WRITE:
                    if key.data:
                        line.send(frames.opening())
                    selector.modify(line, selectors.EVENT_READ, key.data)
                elif not line.recv(65_536):
                    raise ConnectionError
            except OSError:
                selector.unregister(line)
                line.close()
                opened -= 1
        if opened >= much:
            ready.set()


def measured(asked: Target, much: int, health_address: str, seconds: float) -> Row:
    row = Row(much)
    host, _, port = asked.address.rpartition(":")
    before = _resident(asked)
    ready = multiprocessing.Event()
    attacker = multiprocessing.Process(target=strangers, args=((host, int(port)), much, ready))
    with asked.channel() as old:
        asked.rates_on(old)
        attacker.start()
        try:
            ready.wait(seconds)
            _measure(row, asked, old, health_address, seconds)
            row.growth_bytes = max(0, _resident(asked) - before)
        finally:
            attacker.kill()
            attacker.join()
    return row


def _measure(
    row: Row, asked: Target, old: grpc.Channel, health_address: str, seconds: float
) -> None:
    def new_client() -> None:
        with _connected(asked.address) as channel:
            assert asked.rates_on(with_token(channel, asked.token))

    def probe(address: str) -> None:
        with _connected(address) as channel:
            request = health_pb2.HealthCheckRequest()
            health_pb2_grpc.HealthStub(channel).Check(request, timeout=DEADLINE_SECONDS)

    others: dict[str, Callable[[], object]] = {
        "existing connection": lambda: asked.rates_on(old),
        "new connection": new_client,
        "probe": lambda: probe(asked.address),
    }
    if health_address:
        others["probe of --health-listen"] = lambda: probe(health_address)
    times: dict[str, list[float]] = {name: [] for name in others}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for name, ask in others.items():
            began = time.perf_counter()
            outcome = _outcome(ask)
            if outcome == "UNAVAILABLE" and _outcome(ask) == OK:
                outcome = AGAIN
            row.outcomes.setdefault(name, Counter())[outcome] += 1
            times[name].append((time.perf_counter() - began) * 1000)
        time.sleep(PAUSE_SECONDS)
    row.median_ms = {name: statistics.median(found) for name, found in times.items()}
    row.slowest_ms = {name: max(found) for name, found in times.items()}


def _outcome(ask: Callable[[], object]) -> str:
    try:
        ask()
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        return error.code().name
    return OK


def _connected(address: str) -> grpc.Channel:
    return grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _resident(asked: Target) -> int:
    return sum(one.memory_info().rss for one in asked.processes())


def main() -> int:
    parser = argparse.ArgumentParser("tests.hostile.strangers", description=__doc__)
    parser.add_argument("--transport", choices=SETTINGS, default="grpcio")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--without-health-listen", action="store_true")
    options = parser.parse_args()
    health_address = "" if options.without_health_listen else f"127.0.0.1:{free_port()}"
    settings = dict(SETTINGS[options.transport])
    if health_address:
        settings["TOLLWIRE_HEALTH_LISTEN"] = health_address
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        target(f"sqlite:///{folder}/tollwire.db", "tokens", **settings) as asked,
    ):
        for much in AMOUNTS:
            rows.append(measured(asked, much, health_address, options.seconds))
            print(rows[-1].said(), flush=True)
    written(f"strangers-{options.transport}", {"rows": [row.figures() for row in rows]})
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
