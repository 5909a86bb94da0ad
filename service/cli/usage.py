"""``tollwire usage``: usage summaries, by day, destination and other dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

import click
from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.listing import print_rows, table_options
from tollwire.service.cli.output import note, print_json
from tollwire.service.cli.tables import Column, ColumnType, grouped
from tollwire.service.cli.values import (
    ID,
    USAGE_DIMENSION,
    add_money,
    enum_names,
    read_enum,
    read_time_or_date,
    scaled,
)
from tollwire.v1.cdr_service_pb2 import (
    SummarizeUsageRequest,
    SummarizeUsageResponse,
    UsageRow,
    UsageTotals,
)
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

Row = dict[str, str]
_DIMENSIONS = [name.lower() for name in enum_names(USAGE_DIMENSION)]


def _column(name: str, type: ColumnType = ColumnType.NUMBER, rank: int = 0) -> Column:
    return Column(name, lambda row: row.get(name, ""), type, rank)


COLUMNS = (
    *(_column(n, ColumnType.TEXT if n == "destination" else ColumnType.EXACT) for n in _DIMENSIONS),
    _column("calls"),
    _column("calls-as-billed", rank=3),
    _column("calls-reversed", rank=9),
    _column("answered", rank=5),
    _column("answered-as-billed", rank=9),
    _column("answered-reversed", rank=9),
    _column("ASR", rank=6),
    _column("duration", rank=8),
    _column("duration-as-billed", rank=9),
    _column("duration-reversed", rank=9),
    _column("billed", rank=4),
    _column("minutes", rank=2),
    _column("billed-as-billed", rank=9),
    _column("billed-reversed", rank=9),
    _column("cost"),
    _column("cost-as-billed", rank=1),
    _column("cost-reversed", rank=1),
    _column("unrated", rank=7),
    _column("unrated-as-billed", rank=9),
    _column("unrated-reversed", rank=9),
    _column("currency", ColumnType.EXACT, 1),
)
_BY_NAME = {column.name: column for column in COLUMNS}


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
@click.option("--tenant", "tenant_id", type=ID, help="Only CDRs of this tenant.")
@click.option(
    "--by",
    "group_by",
    type=_DimensionsParameter(),
    default="",
    metavar="DIMENSION,...",
    help=f"One or more of {', '.join(enum_names(USAGE_DIMENSION)).lower()}. Default: one total.",
)
@click.option(
    "--from",
    "since",
    metavar="TIME",
    help="Only calls that started at or after this time, or date.",
)
@click.option(
    "--to", "until", metavar="TIME", help="Only calls that started before this time, or date."
)
@click.option(
    "--time-zone",
    default="",
    metavar="NAME",
    help="The time zone of days, hours, months and of the dates of --from and --to. Default UTC.",
)
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default="keys",
    help="The order of the rows. All orders except keys: largest first.",
)
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Only the first N rows.")
@table_options(COLUMNS)
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
    """Add up the calls, seconds and costs of CDRs that are not reversed.

    If some CDRs are reversed, more columns show the sums as billed and the reversed part. ASR
    counts only calls that are not reversed.
    """
    request = SummarizeUsageRequest(
        tenant_id=tenant_id or 0,
        started_after=_time("--from", since, time_zone),
        started_before=_time("--to", until, time_zone),
        group_by=group_by,
        time_zone=time_zone,
    )
    answer = client.summarize_usage(request)
    found = list(answer.rows)
    if sort != "keys":
        found.sort(key=lambda row: _amount(row.corrected, sort), reverse=True)
    rows = found[:top]
    if client.as_json:
        print_json(SummarizeUsageResponse(rows=rows))
        return
    names = [_dimension_name(dimension) for dimension in group_by]
    cells = [_cells(dict(zip(names, row.keys, strict=True)), row, row.corrected) for row in rows]
    if names and len(found) > 1:
        cells += _totals(names, found)
    hidden = {
        f"{name}-{kind}"
        for name in _NUMBERS
        if all(row[name] == row[f"{name}-as-billed"] for row in cells)
        for kind in ("as-billed", "reversed")
    }
    columns = [_BY_NAME[name] for name in names]
    columns += [c for c in COLUMNS if c.name not in _DIMENSIONS and c.name not in hidden]
    print_rows([cells], columns, "no CDRs")
    if len(rows) < len(found):
        note(f"{len(found) - len(rows):,} more rows are not shown; the total includes them")


def _cells(keys: dict[str, str], billed: UsageRow, corrected: UsageTotals) -> Row:
    """One row of the table: the corrected sums, the sums as billed, and the reversed part."""
    cells = dict(keys)
    cells["ASR"] = f"{corrected.answered / corrected.calls:.0%}" if corrected.calls else ""
    cells["currency"] = billed.currency
    for name, field in _NUMBERS.items():
        before, standing = getattr(billed, field), getattr(corrected, field)
        cells[name] = grouped(standing)
        cells[f"{name}-as-billed"] = grouped(before)
        is_money = field == "cost"
        taken = add_money(before, f"-{standing}") if is_money else before - standing
        cells[f"{name}-reversed"] = grouped(taken)
    cells["minutes"] = _minutes(corrected.bill_seconds)
    return cells


def _totals(names: Sequence[str], rows: Sequence[UsageRow]) -> list[Row]:
    """One row for each currency: the sums over all rows."""
    totals: dict[str, UsageRow] = {}
    for row in rows:
        total = totals.setdefault(row.currency, UsageRow(currency=row.currency))
        for field in _NUMBERS.values():
            for into, one in ((total, row), (total.corrected, row.corrected)):
                before, more = getattr(into, field), getattr(one, field)
                setattr(into, field, add_money(before, more) if field == "cost" else before + more)
    return [_cells({names[0]: "total"}, total, total.corrected) for total in totals.values()]


def _minutes(seconds: int) -> str:
    """Minutes with two decimals, rounded half up."""
    hundredths = (seconds * 100 + 30) // 60
    return f"{hundredths // 100:,}.{hundredths % 100:02}"


def _time(option: str, text: str | None, time_zone: str) -> Timestamp | None:
    if text is None:
        return None
    try:
        zone = ZoneInfo(time_zone or "UTC")
    except (KeyError, OSError, ValueError):
        message = f"unknown time zone {time_zone!r}"
        raise click.BadParameter(message, param_hint="--time-zone") from None
    try:
        return read_time_or_date(text, zone)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def _dimension_name(number: int) -> str:
    return next(n for n, v in enum_names(USAGE_DIMENSION).items() if v == number).lower()


def _amount(row: UsageTotals, sort: str) -> int:
    if sort == "cost":
        return scaled(row.cost)
    amount: int = getattr(row, _NUMBERS[sort])
    return amount
