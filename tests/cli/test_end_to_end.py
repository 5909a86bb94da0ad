"""The command against a real server: every command once, and uploads across restarts of either
side."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.integration.serving import REPOSITORY, ServerProcess, serving
from tollwire.service.cli.cdrs_reversals import default_requester, read_ids
from tollwire.service.cli.main import main

Run = Callable[..., str]

HEADER = "prefix,destination,cost_per_minute,billing_increment"
DECK = f"{HEADER}\n1,US,0.0120,60\n44,UK,0.0200,6\n447,UK mobile,0.1500,6\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(f"sqlite:///{tmp_path_factory.mktemp('database') / 'tollwire.db'}") as running:
        yield running


@pytest.fixture
def run(server: ServerProcess) -> Run:
    """Run the command; return its stdout. ``exit_code`` is the expected one."""

    def run_(*arguments: str, exit_code: int = 0, stdin: str | None = None) -> str:
        result = CliRunner().invoke(
            main, arguments, env={"TOLLWIRE_SERVER": server.address}, input=stdin
        )
        assert result.exit_code == exit_code, (result.output, result.exception)
        return str(result.stdout if exit_code == 0 else result.stderr)

    return run_


def as_json(run: Run, *arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def as_json_lines(run: Run, *arguments: str) -> list[Any]:
    return [json.loads(line) for line in run(*arguments, "--json").splitlines()]


@pytest.fixture
def tenant(run: Run) -> str:
    """The id of a tenant with the deck of the worked examples."""
    made = as_json(run, "tenants", "add", "--name", "Acme", "--country-code", "44")
    tenant_id = str(made["id"])
    run("rates", "import", "-", "--tenant", tenant_id, stdin=DECK)
    return tenant_id


def test_tenants(run: Run) -> None:
    options = ("--currency", "EUR", "--rounding", "half-even", "--national-prefix", "0")
    made = as_json(
        run, "tenants", "add", "--id", "7001", "--name", "Bell", "--country-code", "49", *options
    )
    assert made["id"] == "7001"
    assert made["rounding"] == "ROUNDING_HALF_EVEN"
    changed = as_json(run, "tenants", "update", "7001", "--name", "Bell & Sons")
    assert (changed["name"], changed["currency"]) == ("Bell & Sons", "EUR")
    assert "Bell & Sons" in run("tenants", "show", "7001")
    assert "7001" in [t["id"] for t in as_json_lines(run, "tenants", "list", "--limit", "0")]
    run("tenants", "delete", "7001", "--yes")
    refused = run("tenants", "show", "7001", exit_code=1)
    assert refused.startswith("tollwire: NOT_FOUND (TENANT_NOT_FOUND): ")


def test_extensions(run: Run, server: ServerProcess, tenant: str) -> None:
    made = as_json(run, "extensions", "add", "--tenant", tenant, "--number", "101")
    run("extensions", "update", made["id"], "--name", "Front desk")
    assert "Front desk" in run("extensions", "show", made["id"])
    assert "Front desk" in run("extensions", "list", "--tenant", tenant)
    run("extensions", "delete", made["id"])
    empty = CliRunner().invoke(
        main, ["extensions", "list", "--tenant", tenant, "--server", server.address]
    )
    assert (empty.stdout, empty.stderr) == ("", "tollwire: no extensions\n")
    assert run("extensions", "list", "--tenant", tenant, "--json") == ""


def test_rates(run: Run, server: ServerProcess, tenant: str) -> None:
    made = as_json(
        run,
        *("rates", "add", "--tenant", tenant, "--prefix", "+33", "--cost-per-minute", "0.1"),
        *("--billing-increment", "60", "--interval", "60:0.05:1", "--interval", "120:0:60"),
        *("--effective-from", "2026-01-01", "--effective-to", "2027-01-01", "--blocked"),
        *("--destination", "France", "--connect-fee", "0.5", "--minimum-seconds", "30"),
    )
    assert [i["start_seconds"] for i in made["intervals"]] == [60, 120]
    assert made["effective_from"] == "2026-01-01T00:00:00Z"
    shown = run("rates", "show", made["id"])
    assert "from 60 s on       0.0500 per minute, increment 1 s" in shown
    changed = as_json(
        run,
        *("rates", "update", made["id"], "--not-blocked", "--effective-to", "", "--no-intervals"),
        *("--etag", made["etag"]),
    )
    assert not changed["blocked"]
    assert "effective_to" not in changed
    assert changed["effective_from"] == made["effective_from"]
    assert changed["intervals"] == []
    stale = run("rates", "delete", made["id"], "--etag", made["etag"], exit_code=1)
    assert stale.startswith("tollwire: ABORTED (ETAG_MISMATCH): ")
    found = as_json_lines(run, "rates", "list", "--tenant", tenant, "--search", "FRAN")
    assert [r["id"] for r in found] == [made["id"]]
    deleted = as_json(run, "rates", "delete", made["id"], "--etag", changed["etag"])
    revisions = [int(one["rate_revision"]) for one in (made, changed, deleted)]
    assert revisions == [revisions[0], revisions[0] + 1, revisions[0] + 2]
    renamed = as_json(run, "tenants", "update", tenant, "--name", "Other")
    assert int(renamed["rate_revision"]) == revisions[2] + 1
    run("tenants", "update", tenant, "--name", "Acme")
    assert "there are more" not in run("rates", "list", "--tenant", tenant, "--limit", "3")
    listed = CliRunner().invoke(
        main, ["rates", "list", "--limit", "2"], env={"TOLLWIRE_SERVER": server.address}
    )
    assert "there are more entries: --limit 0 shows all" in listed.stderr


@pytest.mark.parametrize("cell", ["79298 3-9", "4470-4479", "44/45", "447.0", " 33"])
def test_a_cell_of_a_deck_does_not_become_another_prefix(
    run: Run, server: ServerProcess, tenant: str, cell: str
) -> None:
    before = run("rates", "export", "--tenant", tenant)
    refused = CliRunner().invoke(
        main,
        ["rates", "import", "-", "--tenant", tenant],
        env={"TOLLWIRE_SERVER": server.address},
        input=f"{HEADER}\n33,France,0.1,60\n{cell},x,0.1,60\n",
    )
    assert refused.exit_code == 1
    assert "line 3: prefix: must be 0 to 32 ASCII digits" in refused.stdout
    assert repr(cell) in refused.stdout
    assert run("rates", "export", "--tenant", tenant) == before


def test_a_rate_that_stands_twice_is_reported_with_both_lines(
    server: ServerProcess, tenant: str
) -> None:
    deck = f"{HEADER}\n33,France,0.1,60\n\nbad,x,0.1,60\n34,Spain,0.1,60\n+33,again,0.2,60\n"
    refused = CliRunner().invoke(
        main,
        ["rates", "import", "-", "--tenant", tenant],
        env={"TOLLWIRE_SERVER": server.address},
        input=deck,
    )
    assert refused.exit_code == 1
    twice = "prefix: has the same prefix and effective_from as line 2; remove one of them"
    assert f"line 6: {twice}" in refused.stdout


def test_an_end_of_zero_in_a_csv_file_means_no_end(run: Run, tenant: str) -> None:
    columns = "destination_number,direction,disposition,started_at,ended_at,duration_seconds"
    rows = [
        f"4420,outbound,busy,2026-03-01T23:30:00Z,{end},0"
        for end in ("0", "", "1970-01-01T00:00:00Z")
    ]
    text = "\n".join([columns, *rows])
    told = run("cdrs", "upload", "-", "--format", "csv", "--tenant", tenant, "--json", stdin=text)
    document = json.loads(told)
    assert (document["created"], document["duplicates"]) == ("1", "2")
    [cdr] = as_json_lines(run, "cdrs", "list", "--tenant", tenant)
    assert "ended_at" not in cdr


def test_a_deck_comes_back_as_it_was_exported(run: Run, tenant: str, tmp_path: Path) -> None:
    intervals = '"[{""start_seconds"":60,""cost_per_minute"":""0.0100"",""billing_increment"":1}]"'
    rows = [
        f"{HEADER},connect_fee,minimum_seconds,effective_from,effective_to,blocked,intervals",
        ",catch-all,0.5000,60,0.0000,0,,,,",
        f'33,"France, ""all""",0.1000,60,0.2500,30,2026-01-01T00:00:00Z,,true,{intervals}',
    ]
    run("rates", "import", "-", "--tenant", tenant, "--mode", "replace", stdin="\n".join(rows))
    exported = tmp_path / "deck.csv"
    run("rates", "export", "--tenant", tenant, "-o", str(exported))
    assert exported.read_text() == "\n".join(rows) + "\n"
    again = as_json(run, "rates", "import", str(exported), "--tenant", tenant, "--mode", "replace")
    counts = [again[n] for n in ("created", "updated", "deleted", "unchanged")]
    assert counts == ["0", "0", "0", "2"]


def test_rejected_records_are_named_by_line(run: Run, server: ServerProcess, tenant: str) -> None:
    text = f"{HEADER}\n33,France,0.1,60\n34,Spain,0.123456789,60\n35,x,0.1,0\n36,x,0.1\n"
    result = CliRunner().invoke(
        main,
        ["rates", "import", "-", "--tenant", tenant],
        env={"TOLLWIRE_SERVER": server.address},
        input=text,
    )
    assert result.exit_code == 1
    assert "line 3: cost_per_minute: " in result.stdout
    assert "line 4: billing_increment: " in result.stdout
    assert "line 5: has 3 fields" in result.stdout
    assert len(as_json_lines(run, "rates", "list", "--tenant", tenant)) == 3


def test_a_call_is_priced_and_explained(run: Run, server: ServerProcess, tenant: str) -> None:
    arguments = ("rate", "+44 7911 123456", "--tenant", tenant, "--seconds", "63")
    lines = dict(re.split("  +", line) for line in run(*arguments).splitlines())
    assert (lines["cost"], lines["billed"], lines["prefix"]) == ("0.1650", "66 s", "447")
    explained = run(*arguments, "--explain", "--at", "2026-03-01T00:00:00Z")
    assert "ceil(63 / 6) * 6" in explained
    document = as_json(run, *arguments, "--explain")
    assert document["explanation"]["normalized_number"] == "447911123456"
    no_rate = run("rate", "4930123456", "--tenant", tenant, "--seconds", "10", exit_code=1)
    assert no_rate.startswith("tollwire: NOT_FOUND (NO_RATE): ")
    asked = ("rate", "+49 30-1", "--tenant", tenant, "--seconds", "10", "--explain")
    outcome = CliRunner().invoke(main, asked, env={"TOLLWIRE_SERVER": server.address})
    assert outcome.exit_code == 1
    assert "number matched: 49301" in outcome.stdout
    assert "-> UNRATED, NO_RATE" in outcome.stdout
    outcome = CliRunner().invoke(main, (*asked, "--json"), env={"TOLLWIRE_SERVER": server.address})
    assert json.loads(outcome.stdout)["explanation"]["normalized_number"] == "49301"


CALLS = """\
destination_number,direction,disposition,started_at,duration_seconds,call_id
+44 20 7946 0000,outbound,answered,2026-03-01T23:30:00Z,7,a
447911123456,OUTBOUND,ANSWERED,2026-03-02T08:31:00Z,63,b
4930123456,DIRECTION_OUTBOUND,answered,2026-03-02T08:32:00Z,10,c
447911123456,outbound,no-answer,2026-03-02T08:33:00Z,,d
447911123456,outbound,busy,2026-03-02T08:33:00Z,0,e
447911123456,outbound,busy,yesterday,0,f
"""


def test_calls_from_a_file_to_a_summary(
    run: Run, server: ServerProcess, tenant: str, tmp_path: Path
) -> None:
    path = tmp_path / "calls.csv"
    path.write_text(CALLS)
    upload = ("cdrs", "upload", str(path), "--tenant", tenant)
    assert run(*upload, exit_code=1) == "tollwire: 2 records were not stored\n"
    again = CliRunner().invoke(main, [*upload, "--json"], env={"TOLLWIRE_SERVER": server.address})
    document = json.loads(again.stdout)
    names = ("created", "duplicates", "conflicts", "rejected", "unrated", "unreadable")
    assert [document[n] for n in names] == ["0", "4", "0", "2", "0", "1"]
    assert [document[n] for n in ("lines", "records", "settled")] == ["7", "6", "6"]
    assert document["control_totals_match"] is True
    assert [(f["line"], f["reason"]) for f in document["failures"]] == [
        (5, "INVALID_FIELD"),
        (7, "UNREADABLE_RECORD"),
    ]
    bad = tmp_path / "bad.csv"
    run("cdrs", "failures", document["upload_id"], "--output", str(bad))
    header, *_, unreadable = CALLS.splitlines()
    assert bad.read_text().splitlines() == [
        header,
        "447911123456,OUTBOUND,NO_ANSWER,2026-03-02T08:33:00Z,,d",
        unreadable,
    ]
    assert "duplicates  4" in run("cdrs", "upload-status", document["upload_id"])

    listed = run("cdrs", "list", "--tenant", tenant, "--search", "ANSWERED")
    assert [line.split()[-1] for line in listed.splitlines()] == [
        "status",
        "(NO_RATE)",
        "RATED",
        "RATED",
    ]
    unrated = as_json_lines(run, "cdrs", "list", "--tenant", tenant, "--status", "unrated")
    assert [c["call_id"] for c in unrated] == ["c"]
    assert "cost" not in unrated[0]

    by_day = ("usage", "--tenant", tenant, "--by", "day,destination")
    assert [line.split()[:2] for line in run(*by_day).splitlines()[1:]] == [
        ["2026-03-01", "UK"],
        ["2026-03-02", "2"],
        ["2026-03-02", "UK"],
        ["total", "4"],
    ]
    in_berlin = as_json(run, *by_day, "--time-zone", "Europe/Berlin", "--from", "2026-03-02")
    assert {row["keys"][0] for row in in_berlin["rows"]} == {"2026-03-02"}
    assert sum(int(row["calls"]) for row in in_berlin["rows"]) == 4
    top = as_json(run, *by_day, "--sort", "cost", "--top", "1")
    assert [(row["keys"][1], row["cost"]) for row in top["rows"]] == [("UK mobile", "0.1650")]

    run("rates", "import", "-", "--tenant", tenant, stdin=f"{HEADER}\n49,Germany,0.03,60\n")
    assert re.search(r"^rated +1$", run("cdrs", "rate-unrated", "--tenant", tenant), re.MULTILINE)
    shown = run("cdrs", "show", unrated[0]["id"])
    assert "cost              0.0300 USD" in shown


def test_failed_records_are_corrected_and_uploaded_again(
    run: Run, tenant: str, tmp_path: Path
) -> None:
    path, bad = tmp_path / "calls.csv", tmp_path / "bad.jsonl"
    path.write_text(CALLS)
    run("cdrs", "upload", str(path), "--tenant", tenant, exit_code=1)
    path.write_text(CALLS.replace(",63,b", ",64,b").replace("yesterday", "2026-03-02T08:34:00Z"))
    run("cdrs", "upload", str(path), "--tenant", tenant, exit_code=1)
    [upload] = as_json_lines(run, "cdrs", "uploads", "--limit", "1")
    assert [upload[name] for name in ("created", "duplicates", "conflicts", "rejected")] == [
        *("1", "3", "1", "1")
    ]
    assert (upload["duration_seconds"], upload["control_totals_match"]) == ("81", True)
    failures = ("cdrs", "failures", upload["upload_id"])
    assert [(one["index"], one["reason"]) for one in as_json_lines(run, *failures)] == [
        ("1", "CDR_CONFLICT"),
        ("3", "INVALID_FIELD"),
    ]
    [conflict] = as_json_lines(run, *failures, "--reason", "cdr-conflict")
    assert (conflict["call"]["call_id"], conflict["call"]["duration_seconds"]) == ("b", "64")
    assert "duration_seconds: is required" in run(*failures)
    run(*failures, "--output", str(bad))
    calls = [json.loads(line) for line in bad.read_text().splitlines()]
    calls[0]["call_id"] += " corrected"
    calls[1]["duration_seconds"] = "0"
    bad.write_text("".join(json.dumps(call) + "\n" for call in calls))
    mended = as_json(run, "cdrs", "upload", str(bad))
    assert (mended["created"], mended["rejected"]) == ("2", "0")
    assert run("cdrs", "failures", mended["upload_id"], "--json") == ""


def test_the_record_is_verified(run: Run, tenant: str, server: ServerProcess) -> None:
    options = ("--direction", "outbound", "--disposition", "answered", "--seconds", "7")
    add = ("cdrs", "add", "--tenant", tenant, "--started", "2026-03-02T10:00:00Z", *options)
    for number in ("+442079460000", "447911123456"):
        run(*add, "--destination", number, "--call-id", number)
    about = ("cdrs", "verify", "--tenant", tenant)
    assert "checked    2\n" in run(*about)
    (totals,) = as_json_lines(run, *about, "--from", "2026-03-02", "--to", "2026-03-03")
    assert (totals["checked"], totals["different"], totals["done"]) == ("2", "0", True)
    assert as_json_lines(run, *about, "--after", "2026-03-03")[0]["checked"] == "0"
    refused = run("cdrs", "verify", "--upload", "77", exit_code=1)
    assert refused.startswith("tollwire: NOT_FOUND (UPLOAD_NOT_FOUND): ")

    path = server.database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as owner, owner:
        (change,) = owner.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'tollwire_cdrs_update'"
        )
        owner.execute("DROP TRIGGER tollwire_cdrs_update")
        where = "WHERE call_id = '447911123456'"
        owner.execute(f"UPDATE cdrs SET cost_units = cost_units + 1 {where}")
    found = CliRunner().invoke(main, [*about, "--json"], env={"TOLLWIRE_SERVER": server.address})
    with closing(sqlite3.connect(path)) as owner, owner:
        owner.execute(f"UPDATE cdrs SET cost_units = cost_units - 1 {where}")
        owner.execute(*change)
    assert found.exit_code == 1
    message = json.loads(found.stderr)["error"]["message"]
    assert message == "1 of 2 CDRs differ from the recomputed values"
    difference, last = map(json.loads, found.stdout.splitlines())
    assert (difference["call_id"], difference["field"]) == ("447911123456", "cost")
    assert (difference["stored"], difference["recomputed"]) == ("1.0300", "0.0300")
    assert last["different"] == "1"
    assert "checked    2\n" in run(*about)


def test_cdrs_one_by_one_and_exported(run: Run, tenant: str, tmp_path: Path) -> None:
    arguments = (
        *("cdrs", "add", "--tenant", tenant, "--destination", "14155550123"),
        *("--caller", "101\r\n", "--direction", "outbound", "--disposition", "answered"),
        *("--started", "2026-03-02", "--ended", "2026-03-02T00:00:01Z", "--call-id", "x"),
    )
    made = as_json(run, *arguments)
    assert (made["cost"], made["bill_seconds"], made["duration_seconds"]) == ("0.0120", "60", "1")
    assert as_json(run, *arguments)["id"] == made["id"]
    conflict = run(*arguments, "--seconds", "2", exit_code=1)
    assert conflict.startswith("tollwire: ALREADY_EXISTS (CDR_CONFLICT): ")
    path = tmp_path / "cdrs.csv"
    run("cdrs", "export", "--tenant", tenant, "-o", str(path))
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["call_id"], row["cost"], row["caller_number"]) == ("x", "0.0120", "101\r\n")
    assert row["started_at"] == "2026-03-02T00:00:00Z"
    (line,) = as_json_lines(run, "cdrs", "export", "--tenant", tenant)
    assert line["rate"]["destination"] == "US"


def test_the_cost_of_a_recorded_call_is_explained(run: Run, tenant: str, tmp_path: Path) -> None:
    deck = tmp_path / "deck.csv"
    deck.write_text(
        f"{HEADER},connect_fee,minimum_seconds,effective_from\n"
        "447,UK mobile,0.0075,1,0.01,60,2026-01-01T00:00:00Z\n"
    )
    run("rates", "import", str(deck), "--tenant", tenant)
    made = as_json(
        run,
        *("cdrs", "add", "--tenant", tenant, "--destination", "+44 7911-1", "--seconds", "7"),
        *("--direction", "outbound", "--disposition", "answered", "--started", "2026-03-02"),
        *("--call-id", "why"),
    )
    shown = run("cdrs", "show", made["id"])
    for line in (
        "rate's minimum      60 s",
        "rate's connect fee  0.0100",
        "in effect from      2026-01-01T00:00:00Z",
        "rounding            HALF_UP to 4 decimals",
    ):
        assert line in shown, shown
    by_name = ("cdrs", "show", "--call-id", "why", "--tenant", tenant)
    assert run(*by_name) == shown
    assert as_json(run, *by_name) == as_json(run, "cdrs", "show", made["id"])
    explained = run(*by_name, "--explain")
    for line in (
        "number sent: +44 7911-1",
        "separators: ' ', '-' removed -> +4479111",
        "minimum: 7 s is below the minimum of 60 s -> 60",
        "ledger: RECORDED in chain ",
        "recomputed: the same as stored",
    ):
        assert line in explained, explained
    document = as_json(run, "cdrs", "show", made["id"], "--explain")
    assert (document["cdr"]["id"], document["differences"]) == (made["id"], [])
    assert "needs --tenant" in run("cdrs", "show", "--call-id", "why", exit_code=2)
    assert "give an ID" in run("cdrs", "show", exit_code=2)


def test_corrections(run: Run, tenant: str, tmp_path: Path) -> None:
    path = tmp_path / "calls.csv"
    path.write_text(CALLS)
    upload = ("cdrs", "upload", str(path), "--tenant", tenant)
    run(*upload, exit_code=1)
    cdrs = as_json_lines(run, "cdrs", "list", "--tenant", tenant)
    rated = next(cdr for cdr in cdrs if cdr.get("cost") == "0.1650")
    usage = ("usage", "--tenant", tenant)
    assert "reversed" not in run(*usage)
    why = ("--reason", "wrong switch")
    assert "--reason" in run("cdrs", "reverse", rated["id"], exit_code=2)

    shown = run("cdrs", "reverse", rated["id"], *why, "--requested-by", "anna")
    assert "cost          -0.1650 USD" in shown
    first = as_json(run, "cdrs", "reverse", rated["id"], "--reason", "another")
    assert (first["reason"], first["requested_by"]) == ("wrong switch", "anna")
    assert "reversed by       anna" in run("cdrs", "show", rated["id"])
    assert "RATED, REVERSED" in run("cdrs", "list", "--tenant", tenant)

    header, row = run(*usage).splitlines()
    assert header.split("  ")[0] == "calls"
    assert [name.strip() for name in re.split(r"  +", header)] == [
        *("calls", "calls as billed", "calls reversed"),
        *("answered", "answered as billed", "answered reversed", "ASR"),
        *("duration", "duration as billed", "duration reversed"),
        *("billed", "minutes", "billed as billed", "billed reversed"),
        *("cost", "cost as billed", "cost reversed", "unrated", "currency"),
    ]
    cells = dict(zip(re.split(r"  +", header.strip()), re.split(r"  +", row.strip()), strict=True))
    assert [cells[name] for name in ("calls", "calls as billed", "calls reversed")] == [
        *("3", "4", "1"),
    ]
    assert (cells["ASR"], cells["minutes"]) == ("67%", "0.20")
    assert [cells[name] for name in ("cost", "cost as billed", "cost reversed")] == [
        *("0.0040", "0.1690", "0.1650"),
    ]

    upload_id = rated["upload_id"]
    closed = as_json(run, "cdrs", "reverse-upload", upload_id, *why)
    assert closed == {"cdrs": "4", "reversed": "3", "reversed_before": "1"}
    assert "reversed before  4" in run("cdrs", "reverse-upload", upload_id, *why)
    assert re.search(r"^reversed +20", run("cdrs", "upload-status", upload_id), re.MULTILINE)
    listed = as_json_lines(run, "cdrs", "reversals", "--upload", upload_id)
    assert len(listed) == 4
    assert listed[-1] == first
    assert listed[0]["requested_by"] == default_requester()
    assert "@" in default_requester()
    table = run("cdrs", "reversals", "--tenant", tenant, "--limit", "2").splitlines()
    assert [line.split()[-1] for line in table] == ["reason", "switch", "switch"]
    assert run("cdrs", "reversals", "--tenant", tenant, "--to", "2020-01-01") == ""
    run("cdrs", "export", "--tenant", tenant, "-o", str(tmp_path / "cdrs.csv"))
    with (tmp_path / "cdrs.csv").open(newline="") as file:
        assert all(row["reversed_at"] for row in csv.DictReader(file))


def test_a_month_is_reversed_at_once(run: Run, tenant: str, tmp_path: Path) -> None:
    path = tmp_path / "calls.csv"
    path.write_text(CALLS)
    run("cdrs", "upload", str(path), "--tenant", tenant, exit_code=1)
    listed = as_json_lines(run, "cdrs", "list", "--tenant", tenant, "--prefix", "447")
    assert [cdr["matched_prefix"] for cdr in listed] == ["447"]
    why = ("--reason", "wrong price")
    chosen = ("--tenant", tenant, "--prefix", "447", "--from", "2026-03-01", "--to", "2026-04-01")
    shown = run("cdrs", "reverse", *chosen, "--dry-run")
    assert re.search(r"^to reverse +1$", shown, re.MULTILINE)
    assert re.search(r"^cost in USD +0\.1650$", shown, re.MULTILINE)
    assert not as_json_lines(run, "cdrs", "list", "--tenant", tenant, "--reversed")
    done = as_json(run, "cdrs", "reverse", *chosen, *why)
    assert (done["cdrs"], done["reversed"], done["done"]) == ("1", "1", True)
    assert done["costs"] == [{"currency": "USD", "cdrs": "1", "cost": "0.1650", "unrated": "0"}]
    again = as_json(run, "cdrs", "reverse", *chosen, *why)
    assert (again["reversed"], again["reversed_before"], again["costs"]) == ("0", "1", [])

    everything = tmp_path / "cdrs.csv"
    run("cdrs", "export", "--tenant", tenant, "-o", str(everything))
    all_ids = sorted(row["id"] for row in csv.DictReader(everything.read_text().splitlines()))
    done = as_json(run, "cdrs", "reverse", "--ids-file", str(everything), *why)
    assert (done["cdrs"], done["reversed_before"]) == (str(len(all_ids)), "1")
    plain = tmp_path / "ids"
    plain.write_text("\n".join(all_ids) + "\n\n")
    counted = as_json(run, "cdrs", "reverse", "--ids-file", str(plain), "--dry-run")
    assert counted["reversed_before"] == str(len(all_ids))
    assert "no CDR 999999999" in run("cdrs", "reverse", *all_ids, "999999999", *why, exit_code=1)
    assert read_ids(plain) == [int(one) for one in all_ids]


@pytest.mark.parametrize(("name", "options"), [("c.csv", ()), ("c.jsonl", ("--json",))])
def test_an_export_can_be_uploaded(
    run: Run, tenant: str, tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    """Each call of the file is recorded already, by call_id, content and tenant: none is new."""
    path = tmp_path / "calls.csv"
    text = CALLS.replace(",b\n", ",\n").replace("23:30:00Z", "23:30:00.123456789Z")
    path.write_text(text)
    run("cdrs", "upload", str(path), "--tenant", tenant, exit_code=1)
    exported = tmp_path / name
    run("cdrs", "export", "--tenant", tenant, "-o", str(exported), *options)
    done = as_json(run, "cdrs", "upload", str(exported))
    assert (done["created"], done["duplicates"]) == ("0", "4"), done


@pytest.mark.parametrize(("name", "options"), [("c.csv", ()), ("c.jsonl", ("--json",))])
def test_a_month_is_corrected(
    run: Run, tenant: str, tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    """Exported, reversed, corrected, and uploaded again under the same call_ids."""
    path = tmp_path / "calls.csv"
    path.write_text(CALLS)
    run("cdrs", "upload", str(path), "--tenant", tenant, exit_code=1)
    before = {one["call_id"]: one for one in as_json_lines(run, "cdrs", "list", "--tenant", tenant)}
    exported = tmp_path / name
    run("cdrs", "export", "--tenant", tenant, "-o", str(exported), *options)
    exported.write_text(exported.read_text().replace("447911123456", "442079460000"))
    run("cdrs", "reverse", "--tenant", tenant, "--reason", "wrong numbers")
    done = as_json(run, "cdrs", "upload", str(exported))
    assert (done["created"], done["duplicates"]) == (str(len(before)), "0"), done
    listed = as_json_lines(run, "cdrs", "list", "--tenant", tenant, "--not-reversed")
    after = {one["call_id"]: one for one in listed}
    assert {n: one["replaces_cdr_id"] for n, one in after.items()} == {
        n: one["id"] for n, one in before.items()
    }
    assert (before["b"]["cost"], after["b"]["cost"]) == ("0.1650", "0.0220")
    old, new = before["b"]["id"], after["b"]["id"]
    assert re.search(rf"^replaced by CDR +{new}$", run("cdrs", "show", old), re.MULTILINE)
    assert f"recorded again: replaces the reversed CDR {old}" in run(
        "cdrs", "show", new, "--explain"
    )
    header, row = run("usage", "--tenant", tenant).splitlines()
    shown = dict(zip(re.split(r"  +", header.strip()), re.split(r"  +", row.strip()), strict=True))
    assert (shown["calls"], shown["calls as billed"], shown["calls reversed"]) == ("4", "8", "4")
    assert (shown["cost"], shown["cost as billed"]) == ("0.0260", "0.1950")


def test_wrong_filters_of_cdrs_reverse(run: Run, tenant: str, tmp_path: Path) -> None:
    why = ("--reason", "wrong price")
    bad = tmp_path / "ids"
    for text, words in (
        ("", "has no ids"),
        ("1\nx\n", "line 2"),
        ("a,b\n1,2\n", "column id"),
        ("id\n0\n", "line 2"),
    ):
        bad.write_text(text)
        assert words in run("cdrs", "reverse", "--ids-file", str(bad), *why, exit_code=2)
    assert "choose CDRs" in run("cdrs", "reverse", *why, exit_code=2)
    assert "--tenant is required" in run("cdrs", "reverse", "--prefix", "44", *why, exit_code=2)
    assert "--reason is required" in run("cdrs", "reverse", "1", exit_code=2)
    assert "--reason is required" in run("cdrs", "reverse-upload", "1", exit_code=2)


@pytest.fixture
def long_file(tmp_path: Path) -> Path:
    """A file whose upload in small chunks takes a while."""
    return file_of_calls(tmp_path / "calls.jsonl", LONG)


def file_of_calls(path: Path, count: int) -> Path:
    call = {
        "tenantId": "1",
        "destinationNumber": "447911123456",
        "direction": "DIRECTION_OUTBOUND",
        "disposition": "DISPOSITION_ANSWERED",
        "startedAt": "2026-03-01T08:30:00Z",
        "durationSeconds": 63,
    }
    lines = (json.dumps({**call, "callId": f"c{i}"}) for i in range(count))
    path.write_text("\n".join(lines) + "\n")
    return path


LONG = 4_000


def uploading(path: Path, address: str, state: Path) -> subprocess.Popen[str]:
    """An upload in another process, in many small chunks."""
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "proto")])
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tollwire.service.cli.main", "cdrs", "upload", str(path)),
            *("--server", address, "--chunk", "20", "--window", "2", "--json"),
        ],
        env=os.environ | {"XDG_STATE_HOME": str(state), "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_some(run_json: Callable[[], int]) -> None:
    """Wait until the upload has committed some chunks."""
    deadline = time.monotonic() + 60
    while run_json() < 10:
        assert time.monotonic() < deadline, "the upload commits no chunks"
        time.sleep(0.02)


def count_cdrs(address: str) -> int:
    result = CliRunner().invoke(main, ["usage", "--json", "--server", address])
    assert result.exit_code == 0, result.output
    return int(json.loads(result.stdout)["rows"][0]["calls"])


def test_the_ledger(run: Run, tenant: str) -> None:
    made = as_json(run, "ledger", "root")
    assert made["root"] in run("ledger", "root")
    verified = as_json_lines(run, "ledger", "verify", "--root", made["root"])[-1]
    assert verified["done"] is True
    assert verified["entries_checked"] == made["entries"]
    run("ledger", "verify")
    lengths, _, digest = made["root"].partition(":")
    forged = f"{lengths}:{'0' * len(digest)}"
    assert "1 difference found" in run("ledger", "verify", "--root", forged, exit_code=1)
    told = run("ledger", "verify", "--root", "nothing", exit_code=1)
    assert told.startswith("tollwire: INVALID_ARGUMENT (INVALID_FIELD): ")


def prepare(address: str) -> None:
    arguments = ["tenants", "add", "--name", "Acme", "--server", address]
    assert CliRunner().invoke(main, arguments).exit_code == 0


def test_an_upload_outlives_the_server(long_file: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tollwire.db'}"
    with ServerProcess(url) as server:
        address = server.address
        prepare(address)
        client = uploading(long_file, address, tmp_path / "state")
        try:
            wait_for_some(lambda: count_cdrs(address))
            server.kill()
            assert client.poll() is None
            with ServerProcess(url, listen=address):
                stdout, stderr = client.communicate(timeout=90)
                assert client.returncode == 0, stderr
                assert "trying again" in stderr
                assert count_cdrs(address) == LONG
        finally:
            client.kill()
            client.wait()
    document = json.loads(stdout)
    assert (document["created"], document["duplicates"]) == (str(LONG), "0")
    assert document["control_totals_match"] is True


def test_an_upload_outlives_the_client(long_file: Path, tmp_path: Path) -> None:
    with serving(f"sqlite:///{tmp_path / 'tollwire.db'}") as server:
        prepare(server.address)
        first = uploading(long_file, server.address, tmp_path / "state")
        wait_for_some(lambda: count_cdrs(server.address))
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=30)
        assert first.returncode == -signal.SIGKILL
        second = uploading(long_file, server.address, tmp_path / "state")
        stdout, stderr = second.communicate(timeout=90)
        assert second.returncode == 0, stderr
        assert "resuming upload 1" in stderr
        document = json.loads(stdout)
        assert document["upload_id"] == "1"
        assert (document["created"], document["duplicates"]) == (str(LONG), "0")
        assert document["control_totals"] == {
            "calls": str(LONG),
            "duration_seconds": str(63 * LONG),
        }
        assert document["control_totals_match"] is True
        assert count_cdrs(server.address) == LONG


def test_an_interrupted_upload_says_how_to_resume(tmp_path: Path) -> None:
    # Many times the time until the first chunks are seen, also on a busy machine.
    endless = file_of_calls(tmp_path / "calls.jsonl", 50 * LONG)
    with serving(f"sqlite:///{tmp_path / 'tollwire.db'}") as server:
        prepare(server.address)
        client = uploading(endless, server.address, tmp_path / "state")
        wait_for_some(lambda: count_cdrs(server.address))
        try:
            client.send_signal(signal.SIGINT)
            _, stderr = client.communicate(timeout=60)
        finally:
            client.kill()
            client.wait()
        assert client.returncode == 130
        message = json.loads(stderr)["error"]["message"]
        assert message == "interrupted; repeat the command to resume (upload 1)"


def test_audit(run: Run, tenant: str) -> None:
    run("tenants", "update", tenant, "--name", "Acme Ltd")
    newest, imported, created = as_json_lines(run, "audit", "--tenant", tenant)
    assert newest["action"] == "UpdateTenant"
    assert newest["resource"] == f"tenant/{tenant}"
    before, after = json.loads(newest["before"]), json.loads(newest["after"])
    assert (before["name"], after["name"]) == ("Acme", "Acme Ltd")
    assert (imported["action"], created["action"]) == ("ImportRates", "CreateTenant")
    header, line = run("audit", "--tenant", tenant, "--action", "ImportRates").splitlines()
    assert header.split() == [
        *("id", "time", "caller", "action", "tenant", "resource", "before", "after")
    ]
    assert f"deck/{tenant}" in line and "local" in line
    past = ("audit", "--tenant", tenant, "--to", "2020-01-01")
    assert as_json_lines(run, *past) == []
