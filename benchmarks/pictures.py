"""The pictures of docs/performance.md, drawn from the series of the results.

The only importer of matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
# The same figures give the same file, and text stays text.
matplotlib.rcParams.update(
    {
        "svg.hashsalt": "tollwire",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#dddddd",
        "figure.facecolor": "white",
        "legend.frameon": False,
    }
)

from matplotlib import pyplot, ticker  # noqa: E402


def sizes(axes: Any, series: Sequence[Sequence[float | None]]) -> None:
    """[prefixes, look-up ns, with charge ns, marisa-trie ns or None, bytes a prefix]"""
    prefixes = [row[0] for row in series]
    axes.plot(prefixes, [row[1] for row in series], "o-", label="look-up")
    axes.plot(prefixes, [row[2] for row in series], "s-", label="look-up and charge")
    others = [(row[0], row[3]) for row in series if row[3] is not None]
    if others:
        axes.plot(*zip(*others, strict=True), "^--", label="marisa-trie", color="grey")
    axes.set(xscale="log", yscale="log", xlabel="prefixes in the deck", ylabel="ns a call")
    axes.legend()


def stream(axes: Any, series: Sequence[Sequence[float]]) -> None:
    """[calls a message, Tollwire, echo, message objects], all calls a second"""
    sizes = [row[0] for row in series]
    for column, label, style in (
        (2, "bytes returned untouched", "^--"),
        (1, "StreamRateCalls", "o-"),
        (3, "message objects", "s--"),
    ):
        axes.plot(sizes, [row[column] for row in series], style, label=label)
    axes.set(xscale="log", yscale="log", xlabel="calls a message", ylabel="calls a second")
    axes.legend()


def contention(axes: Any, series: dict[str, Sequence[Sequence[float]]]) -> None:
    """[percentile, ms] of each situation; drawn over the share of slower calls."""
    for label, curve in series.items():
        slower = [max(100 - percent, 0.01) for percent, _ in curve]
        axes.plot(slower, [latency for _, latency in curve], "-", label=label)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="percent of the calls that are slower",
        ylabel="latency of RateCall, ms",
    )
    axes.invert_xaxis()
    axes.set_xticks([50, 10, 1, 0.1], ["50 (p50)", "10 (p90)", "1 (p99)", "0.1 (p99.9)"])
    axes.legend()


def memory(axes: Any, series: Sequence[Sequence[float]]) -> None:
    """[KiB, ns of a dependent load, ns of an independent one]"""
    kib = [row[0] for row in series]
    axes.plot(kib, [row[1] for row in series], "o-", label="each waits for the one before")
    axes.plot(kib, [row[2] for row in series], "s-", label="none waits")
    axes.set(xscale="log", yscale="log", xlabel="KiB of memory", ylabel="ns a random load")
    axes.legend()


# What plots each series, by its name.
_PLOTS: dict[str, Callable[[Any, Any], None]] = {
    "sizes": sizes,
    "memory": memory,
    "stream": stream,
    "contention": contention,
}


def draw(target: Path, title: str, series: Any) -> None:
    """Draw one series into a file with the name of the series."""
    figure, axes = pyplot.subplots(figsize=(7, 3.8), layout="constrained")
    _PLOTS[target.stem](axes, series)
    for axis in (axes.xaxis, axes.yaxis):
        if not isinstance(axis.get_major_formatter(), ticker.FixedFormatter):
            axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.12g}"))
        axis.set_minor_formatter(ticker.NullFormatter())
    axes.set_title(title, fontsize=11)
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, metadata={"Date": None})
    pyplot.close(figure)
