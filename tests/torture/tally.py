"""The totals of every scenario: one row of the table and of the JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

_COLUMNS = (
    *("scenario", "database", "kills", "restarts", "sent", "acknowledged", "stored", "lost"),
    *("doubled", "wrong"),
)


@dataclass
class Tally:
    """``sent`` counts records as often as they were sent; ``acknowledged`` those that the sender
    noted as settled; ``stored`` those found afterwards, each as often as it is stored; ``lost`` the
    acknowledged ones that are missing; ``doubled`` those that are stored again; ``wrong`` those
    with other content or another cost than expected, or that should not exist.

    ``kills`` and ``restarts`` are of the server; in the scenarios of the database, of the database.
    """

    scenario: str
    database: str
    kills: int = 0
    restarts: int = 0
    sent: int = 0
    acknowledged: int = 0
    stored: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    seconds: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)  # what only this scenario counts
    problems: list[str] = field(default_factory=list)  # the first of them, in words

    @property
    def passed(self) -> bool:
        return not (self.lost or self.doubled or self.wrong or self.problems)

    def problem(self, text: str) -> None:
        if len(self.problems) < 20:
            self.problems.append(text)

    def require(self, holds: bool, text: str) -> None:
        if not holds:
            self.problem(text)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def table(tallies: Sequence[Tally]) -> str:
    """All of them, with their sums below."""
    rows = [_cells(asdict(tally)) for tally in tallies]
    sums = {name: sum(getattr(tally, name) for tally in tallies) for name in _COLUMNS[2:]}
    rows.append(_cells({"scenario": "all", "database": "", **sums}))
    grid = [list(_COLUMNS), *rows]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in grid
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines.insert(-1, lines[1])
    for tally in tallies:
        about = ", ".join(f"{name} {_shown(value)}" for name, value in tally.more.items())
        if about:
            lines.append(f"{tally.scenario}, {tally.database}: {about}")
    for tally in tallies:
        lines += [f"FAILED {tally.scenario}, {tally.database}: {one}" for one in tally.problems]
    return "\n".join(lines)


def totals(tally: Tally) -> str:
    """Its row as one line, for output during the run."""
    shown = [f"{name} {_shown(getattr(tally, name))}" for name in _COLUMNS[2:]]
    return ", ".join([tally.scenario, tally.database, *shown])


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [_shown(row[name]) for name in _COLUMNS]


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
