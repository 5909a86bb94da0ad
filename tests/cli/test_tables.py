"""Tables on real terminals: no id, number, time or amount of money is ever shortened.

The real command runs on terminals of 80, 120 and 200 columns, against a real server whose records
have the widest possible values.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from google.protobuf.json_format import Parse
from google.protobuf.message import Message
from rich.cells import cell_len

from tests.cli.terminal import Seen, on_terminal
from tests.integration.serving import serving
from tollwire.client import Pages
from tollwire.service.cli import audit, cdrs, cdrs_reversals, cdrs_uploads, rates, tenants, tokens
from tollwire.service.cli.listing import Listing, print_rows
from tollwire.service.cli.main import main
from tollwire.service.cli.tables import Column, ColumnType, Table, exact, grouped, number, text
from tollwire.v1 import access_service_pb2, cdr_service_pb2, types_pb2
from tollwire.v1.tenant_service_pb2 import ListTenantsRequest, ListTenantsResponse

WIDTHS = (80, 120, 200)
TENANT = "8123456789012"
EXTENSION = "9123456789012"
LONG_TEXT = "Vereinigtes Königreich, Mobilfunk (sehr lange Beschreibung eines Ziels) 東京都千代田区"
DIGITS = "12345678901234567890123456789012"
STARTED = "2026-03-01T08:30:00.123456789Z"

CALLS = (
    # The cost has 15 digits before its point.
    {"number": DIGITS, "seconds": "600000000", "started": STARTED, "id": "c" * 64},
    {"number": "447911123456", "seconds": "63", "started": "2026-03-02T00:00:00Z", "id": "b"},
    {"number": "999", "seconds": "2147483647", "started": "2026-03-03T00:00:00Z", "id": "a"},
)


@dataclass(frozen=True)
class Records:
    address: str

    def invoke(self, *arguments: str, exit_code: int = 0) -> str:
        result = CliRunner().invoke(main, [*arguments, "--server", self.address])
        assert result.exit_code == exit_code, (result.output, result.exception)
        return str(result.stdout)

    def on_terminal(self, command: str, width: int, *more: str, exit_code: int = 0) -> Seen:
        seen = on_terminal([*command.split(), *more], width, TOLLWIRE_SERVER=self.address)
        assert seen.exit_code == exit_code, seen
        return seen


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    folder = tmp_path_factory.mktemp("tables")
    with serving(f"sqlite:///{folder / 'tollwire.db'}") as server:
        made = Records(server.address)
        fill(made, folder)
        yield made


def fill(made: Records, folder: Path) -> None:
    made.invoke("tenants", "add", "--id", TENANT, "--name", LONG_TEXT, "--currency", "EUR")
    made.invoke(
        *("extensions", "add", "--id", EXTENSION, "--tenant", TENANT),
        *("--number", "1" * 32, "--name", LONG_TEXT),
    )
    for prefix, price in (("1", "12345678.9012"), ("44", "0.0200"), ("447", "0.1500")):
        made.invoke(
            *("rates", "add", "--tenant", TENANT, "--prefix", prefix, "--cost-per-minute", price),
            *("--billing-increment", "86400", "--destination", f"{LONG_TEXT} {prefix}"),
            *("--connect-fee", "45678901.2345", "--effective-from", "2020-01-01T00:00:00.000001Z"),
        )
    for call in CALLS:
        made.invoke(
            *("cdrs", "add", "--tenant", TENANT, "--extension", EXTENSION),
            *("--direction", "outbound", "--disposition", "answered", "--caller", "2" * 32),
            *("--destination", call["number"], "--seconds", call["seconds"]),
            *("--started", call["started"], "--call-id", call["id"]),
        )
    path = folder / "calls.csv"
    path.write_text(
        "destination_number,direction,disposition,started_at,duration_seconds,call_id\n"
        f"{DIGITS},outbound,answered,{STARTED},2147483647,{'d' * 64}\n"
        f"{DIGITS},outbound,answered,{STARTED},-1,{'e' * 64}\n"
    )
    made.invoke("cdrs", "upload", str(path), "--tenant", TENANT, exit_code=1)
    first = json.loads(made.invoke("cdrs", "list", "--json").splitlines()[-1])
    made.invoke(
        *("cdrs", "reverse", str(first["id"]), "--reason", LONG_TEXT),
        *("--requested-by", LONG_TEXT),
    )
    made.invoke("tokens", "add", LONG_TEXT, "--role", "reader", "--tenant", TENANT)


# Each list, the message of an item, and its columns.
LISTS: dict[str, tuple[type[Message], tuple[Column, ...]]] = {
    "tenants list": (types_pb2.Tenant, tenants.TENANT_COLUMNS),
    "extensions list": (types_pb2.Extension, tenants.EXTENSION_COLUMNS),
    "rates list": (types_pb2.Rate, rates.LIST_COLUMNS),
    "cdrs list": (types_pb2.Cdr, cdrs.LIST_COLUMNS),
    "cdrs uploads": (cdr_service_pb2.GetUploadResponse, cdrs_uploads.UPLOAD_COLUMNS),
    "cdrs failures 1": (cdr_service_pb2.FailedRecord, cdrs_uploads.FAILURE_COLUMNS),
    "cdrs reversals": (types_pb2.Reversal, cdrs_reversals.LIST_COLUMNS),
    "audit list": (access_service_pb2.AuditEntry, audit.COLUMNS),
    "tokens list": (access_service_pb2.Token, tokens.LIST_COLUMNS),
}


@pytest.mark.parametrize("command", LISTS)
def test_all_but_free_text_is_shown_whole(records: Records, command: str) -> None:
    message, columns = LISTS[command]
    lines = records.invoke(*command.split(), "--json").splitlines()
    items = [Parse(line, message()) for line in lines]
    assert items
    for width in WIDTHS:
        seen = records.on_terminal(command, width)
        shown = [column for column in columns if column.is_default]
        if left_out := re.search(r"columns not shown: (\S+)", seen.errors):
            shown = [column for column in shown if column.name not in left_out[1].split(",")]
            assert all(c in shown for c in columns if c.is_default and c.rank == 0)
        wanted = Counter(
            column.value(item)
            for item in items
            for column in shown
            if column.type is not ColumnType.TEXT
        )
        for value, times in wanted.items():
            if value:
                found = re.findall(rf"(?<!\S){re.escape(value)}(?!\S)", seen.screen)
                assert len(found) >= times, (width, value, seen.screen)
        if shown[0].header in seen.lines[0] and shown[1].header in seen.lines[0]:
            assert max(map(cell_len, seen.lines)) <= width, seen.screen
        else:
            first = f"{shown[0].header} +{shown[0].value(items[0])}"
            assert re.fullmatch(first, seen.lines[0]), seen.screen


@pytest.mark.parametrize("width", WIDTHS)
def test_wide_values(records: Records, width: int) -> None:
    seen = records.on_terminal("cdrs list", width)
    for value in ("123,466,711,234,022.1945", STARTED, DIGITS, "2,147,483,647"):
        assert value in seen.screen
    seen = records.on_terminal("usage --by tenant,destination", width)
    assert TENANT in seen.screen
    assert "…" not in records.on_terminal("usage --by tenant", width).screen


def test_a_wide_terminal_has_all_columns_and_a_narrow_one_names_those_left_out(
    records: Records,
) -> None:
    wide = records.on_terminal("rates list", 400)
    assert "columns not shown" not in wide.errors
    assert LONG_TEXT + " 447" in wide.screen
    seen = records.on_terminal("rates list", 80)
    assert "columns not shown: tenant,fee," in seen.errors
    assert "--wide shows all" in seen.errors
    assert "effective" not in seen.lines[0]
    everything = records.on_terminal("rates list", 80, "--wide")
    assert [c.header for c in rates.LIST_COLUMNS] == re.split(r"  +", everything.lines[0].strip())
    assert everything.errors == ""


def test_chosen_columns(records: Records) -> None:
    seen = records.on_terminal("rates list", 80, "--columns", "cost/min,Prefix")
    assert seen.lines[0].split() == ["cost/min", "prefix"]
    assert seen.lines[1].split() == ["12,345,678.9012", "1"]
    assert seen.errors == ""
    # No column is left out, so a terminal that is too narrow for them shows records.
    names = "id,destination,effective-from,effective-to,cost/min,fee"
    seen = records.on_terminal("rates list", 60, "--columns", names)
    assert seen.lines[1] == f"destination     {LONG_TEXT} 1"
    assert seen.lines[4:7] == ["fee             45,678,901.2345", "", seen.lines[6]]
    unknown = records.on_terminal("rates list", 80, "--columns", "prefix,price", exit_code=2)
    assert "unknown column 'price'; the columns are: id, tenant, prefix" in unknown.errors


def test_piped_output_has_all_default_columns_whole(records: Records) -> None:
    lines = records.invoke("rates", "list").splitlines()
    headers = [column.header for column in rates.LIST_COLUMNS if column.is_default]
    assert re.split(r"  +", lines[0].strip()) == headers
    assert LONG_TEXT + " 447" in lines[3]
    assert "\x1b" not in lines[0]


def test_usage_has_minutes_and_a_total(records: Records) -> None:
    lines = records.invoke("usage", "--by", "day").splitlines()
    rows = [re.split(r"  +", line.strip()) for line in lines]
    assert rows[0][0] == "day"
    assert [row[0] for row in rows[1:]] == ["2026-03-01", "2026-03-02", "2026-03-03", "total"]
    column = rows[0].index("minutes")
    assert rows[2][column] == "1,440.00"
    document = json.loads(records.invoke("usage", "--json"))["rows"][0]["corrected"]
    assert rows[4][rows[0].index("billed")] == f"{int(document['bill_seconds']):,}"
    assert rows[4][rows[0].index("cost")].replace(",", "") == document["cost"]
    top = records.on_terminal("usage --by day --sort calls --top 1", 120)
    assert [line.split()[0] for line in top.lines] == ["day", "2026-03-01", "total"]
    assert "2 more rows are not shown" in top.errors


# --- the layout alone ------------------------------------------------------------------------

COLUMNS = (
    number("id", lambda row: row[0]),
    text("name", lambda row: row[1], 1),
    exact("code", lambda row: row[2]),
)


def test_later_pages_keep_the_widths_of_the_first() -> None:
    table = Table(COLUMNS, width=40)
    first = list(table.page([("100", "Anna", "x"), ("7", "Bo", "yy")]))
    assert first == [
        " id  name  code",
        "100  Anna  x",
        "  7  Bo    yy",
    ]
    assert list(table.page([("9", "Cy", "z")])) == ["  9  Cy    z"]


def test_a_page_with_wider_values_has_a_header_of_its_own() -> None:
    table = Table(COLUMNS, width=40)
    list(table.page([("1", "Anna", "x")]))
    assert list(table.page([("1" * 20, "Anna", "x")])) == [
        "",
        "                  id  name  code",
        "11111111111111111111  Anna  x",
    ]
    # Now the terminal is too narrow for the name.
    assert list(table.page([("1" * 30, "Anna", "x")])) == [
        "",
        "                            id  code",
        "111111111111111111111111111111  x",
    ]
    assert table.left_out == ["name"]
    # And now for all columns: records, until the end.
    assert list(table.page([("1" * 37, "Anna", "x")])) == [
        "",
        f"id    {'1' * 37}",
        "name  Anna",
        "code  x",
    ]
    assert list(table.page([("2", "", "x")])) == ["", "id    2", "code  x"]
    # If the output is no terminal, programs read it: one header, all columns.
    piped = Table(COLUMNS)
    list(piped.page([("1", "Anna", "x")]))
    assert list(piped.page([("1" * 20, "B", "x")])) == [f"{'1' * 20}  B     x"]


def test_free_text_is_shortened_by_its_width_in_cells() -> None:
    columns = (number("id", lambda row: row[0]), text("name", lambda row: row[1]))
    table = Table(columns, width=20)
    header, *lines = table.page([("123456", "東京都千代田区"), ("1", "a\x1b[31mb" * 9)])
    assert header == "    id  name"
    assert [cell_len(line) for line in lines] == [19, 20]
    assert lines[0] == "123456  東京都千代…"
    assert lines[1] == "     1  a\ufffd[31mba\ufffd[3…"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1234567, "1,234,567"),
        ("-1234.5670", "-1,234.5670"),
        ("123456789012345.1234", "123,456,789,012,345.1234"),
        ("0.00000001", "0.00000001"),
        ("-0.1650", "-0.1650"),
        ("", ""),
        ("BLOCKED", "BLOCKED"),
    ],
)
def test_thousands_separators(value: int | str, shown: str) -> None:
    assert grouped(value) == shown


def test_a_long_list_is_printed_page_by_page() -> None:
    fetched: list[int] = []

    def fetch(request: ListTenantsRequest) -> ListTenantsResponse:
        size = request.page_size
        fetched.append(size)
        return ListTenantsResponse(next_page_token=str(len(fetched)) if len(fetched) < 3 else "")

    def take(page: ListTenantsResponse) -> tuple[list[tuple[str, str, str]], str]:
        return [("1000", "Anna", "x")] * 1000, page.next_page_token

    def found(page_size: int) -> Pages[tuple[str, str, str], ListTenantsResponse]:
        return Pages(fetch, ListTenantsRequest(page_size=page_size), take)

    printed: list[int] = []

    class Out(io.StringIO):
        def write(self, written: str) -> int:
            printed.append(len(fetched))
            return super().write(written)

    out = Out()
    with click.Context(click.Command("x")), contextlib.redirect_stdout(out):
        print_rows(Listing(found, 0).pages(), COLUMNS, "nothing")
    assert fetched == [1000, 1000, 1000]
    assert {1, 2, 3} <= set(printed)
    assert len(out.getvalue().splitlines()) == 3001
