"""``tollwire usage``: CDRs added up by day, destination and the like, billed and corrected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

import click
from google.protobuf.timestamp_pb2 import Timestamp

from service.cli.connection import Client, connected
from service.cli.output import print_json, print_table
from service.cli.values import ID, USAGE_DIMENSION, enum_names, read_enum, read_time_or_date
from tollwire.v1.cdr_service_pb2 import SummarizeUsageRequest, SummarizeUsageResponse, UsageRow
from tollwire.v1.types_pb2 import UsageDimension

_NUMBERS = {
    "calls": "calls",
    "answered": "answered",
    "duration": "duration_seconds",
    "billed": "bill_seconds",
    "cost": "cost",
    "unrated": "unrated",
}
SORTS = ("keys", *_NUMBERS)


class _DimensionsParameter(click.ParamType[list[UsageDimension.ValueType]]):
    name = "dimensions"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[UsageDimension.ValueType]:
        try:
            return [
                UsageDimension.ValueType(read_enum(USAGE_DIMENSION, word))
                for word in value.split(",")
                if word.strip()
            ]
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command("usage")
@click.option("--tenant", "tenant_id", type=ID, help="Of this tenant only.")
@click.option(
    "--by",
    "group_by",
    type=_DimensionsParameter(),
    default="",
    metavar="DIMENSION,...",
    help=f"Of {', '.join(enum_names(USAGE_DIMENSION)).lower()}. Default: one total.",
)
@click.option("--from", "since", metavar="TIME", help="From this time, or date, on.")
@click.option("--to", "until", metavar="TIME", help="Before this time, or date.")
@click.option(
    "--time-zone",
    default="",
    metavar="NAME",
    help="In which days, hours and months, and the dates of --from and --to, begin. Default UTC.",
)
@click.option("--sort", type=click.Choice(SORTS), default="keys", help="Others: largest first.")
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="The first N rows only.")
@connected
def usage(
    client: Client,
    tenant_id: int | None,
    group_by: list[UsageDimension.ValueType],
    since: str | None,
    until: str | None,
    time_zone: str,
    sort: str,
    top: int | None,
) -> None:
    """Add up CDRs: calls, seconds and cost."""
    request = SummarizeUsageRequest(
        tenant_id=tenant_id or 0,
        started_after=_time("--from", since, time_zone),
        started_before=_time("--to", until, time_zone),
        group_by=group_by,
        time_zone=time_zone,
    )
    answer = client.cdrs.SummarizeUsage(request, timeout=client.long_timeout)
    rows = list(answer.rows)
    if sort != "keys":
        rows.sort(key=lambda row: _amount(row, sort), reverse=True)
    rows = rows[:top]
    if client.as_json:
        print_json(SummarizeUsageResponse(rows=rows))
        return
    columns = _columns(rows)
    print_table(
        (*(_dimension_name(d) for d in group_by), *columns, "currency"),
        (
            (*row.keys, *(cells[at] for cells in columns.values()), row.currency)
            for at, row in enumerate(rows)
        ),
        right=list(columns),
    )


def _columns(rows: Sequence[UsageRow]) -> dict[str, list[str]]:
    """The columns of numbers by their headers: what was billed, and beside it what is corrected
    where that is another number in some row."""
    columns: dict[str, list[str]] = {}
    for header, field in _NUMBERS.items():
        if header == "duration":
            columns["ASR"] = [f"{r.answered / r.calls:.0%}" if r.calls else "" for r in rows]
        columns[header] = [str(getattr(row, field)) for row in rows]
        corrected = [str(getattr(row.corrected, field)) for row in rows]
        if corrected != columns[header]:
            columns[f"{header} corrected"] = corrected
    return columns


def _time(option: str, text: str | None, time_zone: str) -> Timestamp | None:
    if text is None:
        return None
    try:
        zone = ZoneInfo(time_zone or "UTC")
    except (KeyError, OSError, ValueError):
        message = f"no time zone is called {time_zone!r}"
        raise click.BadParameter(message, param_hint="--time-zone") from None
    try:
        return read_time_or_date(text, zone)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def _dimension_name(number: int) -> str:
    return next(n for n, v in enum_names(USAGE_DIMENSION).items() if v == number).lower()


def _amount(row: UsageRow, sort: str) -> int:
    if sort == "cost":
        # Cost is exact and has exactly 4 decimals: without the point it is a whole number.
        return int(row.cost.replace(".", "") or "0")
    amount: int = getattr(row, _NUMBERS[sort])
    return amount
