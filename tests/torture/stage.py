"""The environment of a scenario: database, size, seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.postgres_server import PostgresServer
from tests.torture.service import Service, service
from tests.torture.tally import Tally


@dataclass(frozen=True)
class Size:
    """The sizes. SHORT is that of the test suite, LONG is that of ``make torture``."""

    kills: int  # of the server, under 4 uploads
    command_kills: int  # of the uploading command
    file_calls: int  # in each file that is uploaded while the server is killed
    same_calls: int  # that two uploads have in common
    conflicts: int  # rounds of two sides with one call_id
    flood_bytes: int  # that clients send without end
    clients_seconds: float  # for which clients go on misbehaving
    gives_up: bool  # wait until clients that vanished are given up
    outages: int  # of PostgreSQL, in each way in turn
    unrated_calls: int  # that are priced later
    unrated_kills: int  # of the server, under RateUnrated
    reversal_kills: int  # of the server, under ReverseUpload of an upload each
    clock_files: int  # that each of four uploads while the clock jumps


SHORT = Size(
    kills=2,
    command_kills=1,
    file_calls=600,
    same_calls=10_000,
    conflicts=60,
    flood_bytes=100 * 2**20,
    clients_seconds=0.5,
    gives_up=False,
    outages=1,
    unrated_calls=3_000,
    unrated_kills=1,
    reversal_kills=1,
    clock_files=1,
)
LONG = Size(
    kills=50,
    command_kills=10,
    file_calls=5_000,
    same_calls=1_000_000,
    conflicts=1_000,
    flood_bytes=10 * 2**30,
    clients_seconds=30.0,
    gives_up=True,
    outages=12,
    unrated_calls=50_000,
    unrated_kills=5,
    reversal_kills=3,
    clock_files=10,
)


@dataclass(frozen=True)
class Stage:
    """``postgres`` None: the databases are SQLite files.

    ``shared``: a server for the scenarios that do not kill it; without one each has its own.
    ``folder`` is for files; ``say`` prints the progress.
    """

    seed: str
    size: Size
    folder: Path
    workers: int
    postgres: PostgresServer | None = None
    shared: Service | None = None
    say: Callable[[str], None] = lambda text: None

    @property
    def kind(self) -> str:
        return "sqlite" if self.postgres is None else "postgresql"

    def new_database(self) -> str:
        """The URL of an empty database."""
        if self.postgres is None:
            return f"sqlite:///{self.folder / 'tollwire.db'}"
        return self.postgres.url(self.postgres.create())

    @contextmanager
    def serving(self) -> Iterator[Service]:
        """A server that is not killed."""
        if self.shared is not None:
            yield self.shared
        else:
            with service(self.new_database(), self.workers) as own:
                yield own

    def draw(self, name: str) -> random.Random:
        """Random numbers for one purpose: the same for the same seed."""
        return random.Random(f"{self.seed}/{self.kind}/{name}")

    def tally(self, scenario: str) -> Tally:
        return Tally(scenario, self.kind)
