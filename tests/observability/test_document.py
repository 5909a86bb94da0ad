"""docs/observability.md lists the metrics."""

from __future__ import annotations

from pathlib import Path

from tollwire.service.observability import instruments
from tollwire.service.observability.metrics.exposition import COUNTERS
from tollwire.service.observability.metrics.gauges import (
    RECORD_METRICS,
    SERVER_METRICS,
    WORKER_METRICS,
)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "observability.md"


def row(name: str, kind: str, labels: tuple[str, ...], meaning: str) -> str:
    shown = ", ".join(f"`{label}`" for label in labels)
    return f"| `{name}` | {kind} | {shown} | {meaning} |"


def rows() -> list[str]:
    found = [
        *(row(f"{one.name}_total", "counter", one.labels, one.help) for one in COUNTERS),
        *(row(one.name, "histogram", one.labels, one.help) for one in instruments.HISTOGRAMS),
    ]
    for definitions, before in (
        (WORKER_METRICS, ("worker",)),
        (RECORD_METRICS + SERVER_METRICS, ()),
    ):
        for one in definitions:
            name = f"{one.name}_total" if one.kind == "counter" else one.name
            found.append(row(name, one.kind, (*before, *one.labels), one.help))
    return found


def test_the_table_has_each_metric() -> None:
    document = DOCUMENT.read_text("utf-8").splitlines()
    assert [line for line in document if line.startswith("| `tollwire_")] == rows()
