"""Metrics on their port, for as long as a block runs.

prometheus_client is loaded here, where somebody has asked for metrics, and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tollwire.service.observability.metrics.snapshot import Sources, take
from tollwire.service.settings.config import Listen

if TYPE_CHECKING:
    from tollwire.service.observability.metrics.exposition import Heard


@contextmanager
def shown(
    address: Listen, ask: Callable[[], Mapping[int, Heard]], *, supervised: bool
) -> Iterator[Listen]:
    """Shows what ``ask`` hears of all workers. ``supervised``: this process is none of them. Yields
    where: the port is picked now where it is 0. OSError where the address cannot be had."""
    from tollwire.service.observability.metrics.exposition import Exposition
    from tollwire.service.observability.metrics.listener import Listener

    listener = Listener(address, Exposition(ask, supervised=supervised).page)
    listener.start()
    try:
        yield Listen(address.host, listener.port)
    finally:
        listener.close()


def alone(sources: Sources) -> Callable[[], Mapping[int, Heard]]:
    """How a process is asked that is the only worker."""
    from tollwire.service.observability.metrics.exposition import Heard

    return lambda: {0: Heard(take(sources, with_record=True), answered=True)}
