"""The list of all scenarios."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.databases import KINDS
from tests.torture import (
    clients,
    clocks,
    command,
    conflicts,
    corrections,
    kills,
    outages,
    single_calls,
    twice,
    unrated,
    watchers,
)
from tests.torture.stage import Stage
from tests.torture.tally import Tally


@dataclass(frozen=True)
class Scenario:
    """``kinds``: the databases that it runs on; ``short``: those of them in the short form."""

    run: Callable[[Stage], Tally]
    kinds: tuple[str, ...] = KINDS
    short: tuple[str, ...] = KINDS


SCENARIOS = {
    "kills": Scenario(kills.run),
    "single calls": Scenario(single_calls.run),
    "watchers": Scenario(watchers.run, short=("sqlite",)),
    # The tests of the command line have a small one of their own.
    "command": Scenario(command.run, short=()),
    "twice": Scenario(twice.run),
    "conflicts": Scenario(conflicts.run),
    "clients": Scenario(clients.run),
    "clocks": Scenario(clocks.run, short=("sqlite",)),
    "outages": Scenario(outages.run, kinds=("postgresql",), short=("postgresql",)),
    "unrated": Scenario(unrated.run, short=("sqlite",)),
    # The tests of reversals have a small one of their own.
    "corrections": Scenario(corrections.run, short=()),
}
