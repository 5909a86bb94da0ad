"""How a call was rated, as lines for people. No text is shortened."""

from __future__ import annotations

from collections.abc import Iterator

import click

from service.cli.output import printable
from service.cli.values import write_time
from tollwire.v1.rating_service_pb2 import ConsideredRate, Explanation


def show_explanation(explanation: Explanation) -> None:
    """Prints it, behind an empty line."""
    click.echo()
    for line in _lines(explanation):
        click.echo(printable(line))


def _lines(explanation: Explanation) -> Iterator[str]:
    if explanation.normalized_number:
        yield f"number matched: {explanation.normalized_number}"
    if explanation.considered:
        yield "rates considered, the longest prefix first:"
        yield from (f"  {_considered(rate)}" for rate in explanation.considered)
    if explanation.omitted:
        yield f"  and {explanation.omitted} more"
    yield "steps:"
    for step in explanation.steps:
        yield f"  {step.name}: {step.working} -> {step.result}"


def _considered(rate: ConsideredRate) -> str:
    begin = write_time(rate.effective_from) if rate.HasField("effective_from") else "ever"
    end = write_time(rate.effective_to) if rate.HasField("effective_to") else "further notice"
    words = [
        repr(rate.prefix),
        f"rate {rate.rate_id}",
        rate.destination,
        f"in effect from {begin} to {end}",
        "blocked" if rate.blocked else "",
        rate.reason,
    ]
    return "; ".join(word for word in words if word)
