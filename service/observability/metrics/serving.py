"""Serves the metrics on their port while a block runs.

Loads prometheus_client only here, so that a server without metrics does not load it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tollwire.service.observability.metrics.snapshot import Sources, take_snapshot
from tollwire.service.settings.parsing import Listen

if TYPE_CHECKING:
    from tollwire.service.observability.metrics.exposition import WorkerReport


@contextmanager
def serve_metrics(
    address: Listen, collect: Callable[[], Mapping[int, WorkerReport]], *, supervised: bool
) -> Iterator[Listen]:
    """Serve the reports that ``collect`` returns. ``supervised``: this process is not a worker.
    Yields the address; port 0 picks a free port. OSError if the address cannot be used."""
    from tollwire.service.observability.metrics.exposition import Exposition
    from tollwire.service.observability.metrics.http_server import MetricsServer

    server = MetricsServer(address, Exposition(collect, supervised=supervised).page)
    server.start()
    try:
        yield Listen(address.host, server.port)
    finally:
        server.close()


def single_worker(sources: Sources) -> Callable[[], Mapping[int, WorkerReport]]:
    """The report of a process that is the only worker."""
    from tollwire.service.observability.metrics.exposition import WorkerReport

    return lambda: {0: WorkerReport(take_snapshot(sources, with_record=True), answered=True)}
