"""Prints explanations of ratings as lines for people. No text is shortened."""

from __future__ import annotations

from collections.abc import Iterator

import click

from tollwire.service.cli.output import printable
from tollwire.service.cli.values import LEDGER_ENTRY_KIND, UNRATED_REASON, enum_name, write_time
from tollwire.v1.cdr_service_pb2 import ExplainCdrResponse
from tollwire.v1.rating_service_pb2 import ConsideredRate, Explanation


def show_explanation(explanation: Explanation) -> None:
    """Print an explanation, after an empty line."""
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


def show_explained_cdr(found: ExplainCdrResponse) -> None:
    """Print the explanation of a stored CDR, its history, and the differences."""
    click.echo()
    click.echo(printable(f"number sent: {found.cdr.destination_number}"))
    for line in (*_lines(found.explanation), *_history(found), *_verdict(found)):
        click.echo(printable(line))


def _history(found: ExplainCdrResponse) -> Iterator[str]:
    for step in found.unrated_steps:
        reason = enum_name(UNRATED_REASON, step.unrated_reason)
        new = enum_name(UNRATED_REASON, step.new_unrated_reason)
        became = f"became UNRATED ({new})" if new else "was priced"
        yield (
            f"{write_time(step.created_at)}: the UNRATED ({reason}) CDR of rate revision"
            f" {step.rate_revision} {became}"
        )
    if found.replaces_cdr_id:
        yield f"recorded again: replaces the reversed CDR {found.replaces_cdr_id}"
    if found.replaced_by_cdr_id:
        yield f"recorded again: replaced by CDR {found.replaced_by_cdr_id}"
    for entry in found.ledger_entries:
        yield (
            f"ledger: {enum_name(LEDGER_ENTRY_KIND, entry.kind)} in chain {entry.chain}, entry"
            f" {entry.seq}, rows {entry.first_id} to {entry.first_id + entry.row_count - 1},"
            f" {write_time(entry.created_at)}, hash {entry.hash}"
        )


def _verdict(found: ExplainCdrResponse) -> Iterator[str]:
    if not found.differences:
        yield "recomputed: the same as stored"
    for one in found.differences:
        yield (
            f"DIFFERENT: {one.field} is stored as {one.stored or 'nothing'}, recomputed as"
            f" {one.recomputed or 'nothing'}: {one.message}"
        )


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
