"""Shared by all benchmarks of a run: sizes, the real deck, databases with it, data of pictures.

What takes time is created once, at its first use.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import filling, serving, workload
from benchmarks.databases import Databases
from benchmarks.demo import import_deck
from benchmarks.filling import FilledDatabase
from benchmarks.real_deck import DeckRow, real_deck
from ratingcore import Deck
from tollwire.client import Client
from tollwire.v1 import types_pb2

TENANT_ID = 1
# A quick run takes every n-th prefix of the real deck.
QUICK_EVERY = 100
FILLED_ROWS = 20_000_000

Size = TypeVar("Size")


class Workbench:
    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder = folder
        self.quick = quick
        self.databases = Databases(folder)
        self.series: dict[str, Any] = {}
        self._loaded: dict[str, str] = {}
        self._filled: dict[str, FilledDatabase] = {}
        self._kept = ExitStack()

    def size(self, full: Size, quick: Size) -> Size:
        """A size for a full run, or for a quick one."""
        return quick if self.quick else full

    @property
    def every(self) -> int:
        return self.size(1, QUICK_EVERY)

    @functools.cached_property
    def rows(self) -> list[DeckRow]:
        return real_deck(self.every)

    @functools.cached_property
    def prefixes(self) -> list[str]:
        return [row.prefix for row in self.rows]

    @functools.cached_property
    def deck(self) -> Deck:
        """The real deck in the core, as revision 1."""
        return workload.core_deck(self.rows)

    @functools.cached_property
    def calls(self) -> workload.RealCalls:
        """A million real calls."""
        return workload.real_calls(self.prefixes, self.size(1_000_000, 10_000))

    @contextmanager
    def loaded(
        self, kind: str, workers: int = 1, transport: str = "grpcio"
    ) -> Iterator[serving.Server]:
        """Tollwire over a database of its own with tenant 1, which has the real deck."""
        with (
            self.databases.fresh(kind, self._load(kind)) as url,
            serving.tollwire(url, workers=workers, transport=transport) as server,
        ):
            yield server

    def _load(self, kind: str) -> str:
        if kind not in self._loaded:
            url, template = self.databases.keep(kind)
            self._add_tenant(url)
            self._loaded[kind] = template
        return self._loaded[kind]

    def filled(self, kind: str) -> FilledDatabase:
        """A database with millions of valid CDRs of tenant 1, and with a tenant 2 that has none.

        It is created at its first use and kept for the run, so all later users see a change of it.
        """
        if kind not in self._filled:
            keep = self._kept.enter_context
            url = keep(self.databases.fresh(kind, self._load(kind)))
            self._add_tenant(url)
            real = workload.real_calls(self.prefixes, self.size(100_000, 1_000), seed=3)
            rows = self.size(FILLED_ROWS, 20_000)
            tenants = filling.fill_database(url, self.prefixes, self.deck, real, rows)
            bare_url = keep(self.databases.copied(kind, url))
            filling.add_indexes(url)
            self._filled[kind] = FilledDatabase(url, bare_url, rows, tenants)
        return self._filled[kind]

    def _add_tenant(self, url: str) -> None:
        with serving.tollwire(url) as server, Client(server.address, environment={}) as client:
            import_deck(client, make_tenant(client), self.rows)

    def close(self) -> None:
        self._kept.close()
        self.databases.close()


def make_tenant(client: Client) -> int:
    return client.create_tenant(tenant=types_pb2.Tenant(name="Bench"), timeout=30).id


@contextmanager
def workbench(*, quick: bool) -> Iterator[Workbench]:
    with tempfile.TemporaryDirectory(prefix="tollwire-bench-") as folder:
        bench = Workbench(Path(folder), quick=quick)
        try:
            yield bench
        finally:
            bench.close()
