"""What a measurement is: a value and its spread, beside a baseline of the same run, and a budget.

Contestants take turns, so that a slower moment of the machine meets all of them, and the ratio is
taken turn by turn. A result that is wrong is no result: Disagreement ends the run.
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
    """What was measured and what it is compared with do not give the same results."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Repetitions of one measurement: the median of them, the least and the most."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        taken = list(values)
        return cls(statistics.median(taken), min(taken), max(taken))


@dataclass(frozen=True, slots=True)
class Budget:
    """What the ratio, or the value itself where there is no baseline, must keep to."""

    kind: Literal["at least", "at most"]
    limit: float

    def met_by(self, value: float) -> bool:
        return value >= self.limit if self.kind == "at least" else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.kind == 'at least' else '≤'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report.

    ``ratio`` is said in ``ratio_of``, such as "times faster". ``digest`` is a hash of the results
    that were computed, of which the benchmark has made sure that they are right. ``skipped`` says
    why there is no value.
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
        """Whether the budget is kept to; None where there is none, or nothing was measured."""
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
    """A row of a value beside a baseline, taken in turns: the n-th of one beside the n-th of the
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
    """How many times the baseline's figure it is."""
    return value / baseline


def times_faster(value: float, baseline: float) -> float:
    """Of two times: how many of the first go into the second."""
    return baseline / value


def in_turns(
    contestants: Mapping[str, Callable[[], float]], repetitions: int
) -> dict[str, list[float]]:
    """What each contestant returns, in turns; every other round in reverse, so that nobody always
    runs after the same other."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for repetition in range(repetitions):
        names = list(contestants)
        for name in names if repetition % 2 == 0 else reversed(names):
            taken[name].append(contestants[name]())
    return taken


def timed(work: Callable[[], object], per: int = 1) -> Callable[[], float]:
    """Nanoseconds that ``work`` takes, divided by ``per``."""

    def run() -> float:
        started = time.perf_counter_ns()
        work()
        return (time.perf_counter_ns() - started) / per

    return run


def digest(*parts: object) -> str:
    """A short hash of results: of bytes as they are, of everything else as Python writes it."""
    state = hashlib.sha256()
    for part in parts:
        data = bytes(part) if isinstance(part, bytes | memoryview) else repr(part).encode()
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()[:12]


def agreed(what: str, *digests: str) -> str:
    """The one digest that all have."""
    if len(set(digests)) != 1:
        raise Disagreement(f"{what}: the results differ: {', '.join(digests)}")
    return digests[0]


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
