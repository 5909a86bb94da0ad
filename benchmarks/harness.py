"""A measurement: a value and its spread, beside a baseline of the same run, and a budget.

Contestants run alternately, so that a slow moment of the machine affects all of them, and the ratio
is that of paired runs. A wrong result is an error: Disagreement ends the run.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Item = TypeVar("Item")


class Disagreement(Exception):
    """The measured code and its baseline do not give the same results."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Repetitions of one measurement: their median, minimum and maximum."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        taken = list(values)
        return cls(statistics.median(taken), min(taken), max(taken))


@dataclass(frozen=True, slots=True)
class Budget:
    """The limit of the ratio, or of the value itself if there is no baseline."""

    kind: Literal["at least", "at most"]
    limit: float

    def met_by(self, value: float) -> bool:
        return value >= self.limit if self.kind == "at least" else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.kind == 'at least' else '≤'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report.

    ``ratio`` has the unit ``ratio_of``, such as "times faster". ``digest`` is a hash of the
    computed results, which the benchmark has verified. ``skipped`` says why there is no value.
    """

    name: str
    unit: str
    value: Spread | None = None
    baseline_name: str = ""
    baseline: Spread | None = None
    ratio: Spread | None = None
    ratio_of: str = ""
    budget: Budget | None = None
    digest: str = ""
    note: str = ""
    skipped: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the budget is met; None if there is no budget, or no value."""
        measured = self.ratio or self.value
        if self.budget is None or measured is None:
            return None
        return self.budget.met_by(measured.median)


def at_least(limit: float) -> Budget:
    return Budget("at least", limit)


def at_most(limit: float) -> Budget:
    return Budget("at most", limit)


def compared(
    name: str,
    unit: str,
    values: Sequence[float],
    baseline_name: str,
    baseline: Sequence[float],
    ratio: Callable[[float, float], float],
    ratio_of: str,
    **more: Any,
) -> Row:
    """A row with a value and a baseline, measured alternately: run n of one beside run n of the
    other."""
    return Row(
        name,
        unit,
        Spread.of(values),
        baseline_name,
        Spread.of(baseline),
        Spread.of(ratio(one, other) for one, other in zip(values, baseline, strict=True)),
        ratio_of,
        **more,
    )


def over_baseline(value: float, baseline: float) -> float:
    """The value divided by the baseline's."""
    return value / baseline


def times_faster(value: float, baseline: float) -> float:
    """The quotient of two times: the second divided by the first."""
    return baseline / value


def in_turns(
    contestants: Mapping[str, Callable[[], float]], repetitions: int
) -> dict[str, list[float]]:
    """The results of each contestant, run alternately; every other round in reverse order, so that
    no contestant always follows the same one."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for repetition in range(repetitions):
        names = list(contestants)
        for name in names if repetition % 2 == 0 else reversed(names):
            taken[name].append(contestants[name]())
    return taken


def timed(work: Callable[[], object], per: int = 1) -> Callable[[], float]:
    """Nanoseconds of ``work``, divided by ``per``."""

    def run() -> float:
        started = time.perf_counter_ns()
        work()
        return (time.perf_counter_ns() - started) / per

    return run


def digest(*parts: object) -> str:
    """A short hash of results: of bytes as they are, of other values as ``repr`` writes them."""
    state = hashlib.sha256()
    for part in parts:
        data = bytes(part) if isinstance(part, bytes | memoryview) else repr(part).encode()
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()[:12]


def agreed(what: str, *digests: str) -> str:
    """The one digest of all contestants."""
    if len(set(digests)) != 1:
        raise Disagreement(f"{what}: the results differ: {', '.join(digests)}")
    return digests[0]


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
