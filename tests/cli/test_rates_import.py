"""Decks from files: the requests to the server, and the reports about the responses."""

from __future__ import annotations

import gzip
import json
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Tollwire, unused_address
from tests.cli.fake import FakeServer
from tollwire.service.cli.deck_sending import RATES_A_MESSAGE, SpooledDeck
from tollwire.v1.rating_service_pb2 import ImportRatesRequest
from tollwire.v1.types_pb2 import IMPORT_MODE_MERGE, IMPORT_MODE_REPLACE

HEADER = "prefix,destination,cost_per_minute,billing_increment"


def deck(tmp_path: Path, *rows: str) -> str:
    path = tmp_path / "deck.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return str(path)


def test_a_deck_is_sent_in_parts_and_counted(
    tollwire: Tollwire, fake: FakeServer, tmp_path: Path
) -> None:
    size = RATES_A_MESSAGE * 2 + 1
    path = deck(tmp_path, *(f"{i},x,0.01,60" for i in range(size)))
    result = tollwire("rates", "import", path, "--tenant", "7", "--mode", "replace")
    assert result.exit_code == 0, result.output
    sizes = [len(r.rates) for r in fake.rating.requests]
    assert sizes == [RATES_A_MESSAGE, RATES_A_MESSAGE, 1]
    assert fake.rating.requests[0].tenant_id == 7
    assert fake.rating.requests[0].mode == IMPORT_MODE_REPLACE
    assert [r.rate_count for r in fake.rating.requests if r.HasField("rate_count")] == [size]
    assert [rate.prefix for rate in fake.rating.taken[0]] == [str(i) for i in range(size)]
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["created", str(size)],
        ["updated", "0"],
        ["deleted", "0"],
        ["unchanged", "0"],
        ["rejected", "0"],
        ["rate", "revision", "0"],
    ]


def test_merge_is_the_default_and_standard_input_is_accepted(
    tollwire: Tollwire, fake: FakeServer
) -> None:
    result = tollwire("rates", "import", "-", "--tenant", "1", input=f"{HEADER}\n44,UK,0.02,6\n")
    assert result.exit_code == 0, result.output
    assert fake.rating.requests[0].mode == IMPORT_MODE_MERGE
    assert len(fake.rating.taken[0]) == 1


def test_a_dry_run_says_so(tollwire: Tollwire, fake: FakeServer, tmp_path: Path) -> None:
    path = deck(tmp_path, "44,UK,0.02,6")
    result = tollwire("rates", "import", path, "--tenant", "1", "--dry-run")
    assert result.exit_code == 0
    assert fake.rating.dry_runs == 1
    assert not fake.rating.taken
    assert result.stderr == "tollwire: dry run: nothing was changed\n"


def test_rejected_rates_are_named_by_line(
    tollwire: Tollwire, fake: FakeServer, tmp_path: Path
) -> None:
    path = deck(tmp_path, '44,"UK\nand more",0.02,6', "", "33,France,bad,6", "34,Spain,bad,6")
    result = tollwire("rates", "import", path, "--tenant", "1", "--multiline")
    assert result.exit_code == 1
    assert not fake.rating.taken
    assert "line 5: cost_per_minute: is bad\nline 6: cost_per_minute: is bad" in result.stdout
    assert "rejected       2" in result.stdout
    assert "created        0" in result.stdout
    assert result.stderr == "tollwire: 2 rates rejected; nothing was changed\n"


@pytest.mark.parametrize("good_rows_before", [0, 1, 3 * RATES_A_MESSAGE])
def test_unreadable_rows_change_nothing_and_are_reported_with_the_others(
    tollwire: Tollwire, fake: FakeServer, tmp_path: Path, good_rows_before: int
) -> None:
    before = [f"{i},x,0.01,60" for i in range(good_rows_before)]
    path = deck(tmp_path, *before, "44,UK,0.02", "33,France,bad,6", "34,Spain,0.01,6")
    result = tollwire("rates", "import", path, "--tenant", "1")
    assert result.exit_code == 1
    assert not fake.rating.taken
    assert fake.rating.dry_runs == 1
    line = good_rows_before + 2
    assert f"line {line}: has 3 fields, but the header has 4" in result.stdout
    assert f"line {line + 1}: cost_per_minute: is bad" in result.stdout
    assert "rejected       2" in result.stdout
    assert "created        0" in result.stdout


def test_a_stray_quote_refuses_the_deck_and_names_its_line(
    tollwire: Tollwire, fake: FakeServer, tmp_path: Path
) -> None:
    path = deck(tmp_path, "44,UK,0.02,6", '33,"France,0.01,6', "34,Spain,0.01,6")
    result = tollwire("rates", "import", path, "--tenant", "1")
    assert result.exit_code == 1
    assert not fake.rating.taken
    assert 'line 3: not CSV: a quote (") is opened but not closed' in result.stdout
    assert result.stderr == "tollwire: 1 rate rejected; nothing was changed\n"


def test_a_deck_is_read_from_gzip(tollwire: Tollwire, fake: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "deck.csv.gz"
    path.write_bytes(gzip.compress(f"{HEADER}\n44,UK,0.02,6\n".encode()))
    result = tollwire("rates", "import", str(path), "--tenant", "1")
    assert result.exit_code == 0, result.output
    assert [rate.prefix for rate in fake.rating.taken[0]] == ["44"]
    path.write_bytes(path.read_bytes()[:-4])
    damaged = tollwire("rates", "import", str(path), "--tenant", "1")
    assert damaged.exit_code == 2
    assert "the gzip file ends early" in damaged.stderr


@pytest.mark.parametrize("parts_sent", [1, 3])
def test_an_interrupted_import_is_never_committed(
    tollwire: Tollwire,
    fake: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parts_sent: int,
) -> None:
    """Its stream may look complete to the server."""
    requests = SpooledDeck.requests

    def interrupted(*arguments: Any) -> Iterator[ImportRatesRequest]:
        yield from islice(requests(*arguments), parts_sent)
        raise KeyboardInterrupt

    monkeypatch.setattr(SpooledDeck, "requests", interrupted)
    path = deck(tmp_path, *(f"{i},x,0.01,60" for i in range(3 * RATES_A_MESSAGE + 1)))
    result = tollwire("rates", "import", path, "--tenant", "1")
    assert result.exit_code == 130
    fake.stop()
    assert not fake.rating.taken


def test_json_output(tollwire: Tollwire, tmp_path: Path) -> None:
    path = deck(tmp_path, "33,France,bad,6", "44,UK,0.02")
    result = tollwire("rates", "import", path, "--tenant", "1", "--json")
    document = json.loads(result.stdout)
    assert document["rejected"] == "2"
    assert document["errors"] == [
        {"line": 2, "field": "cost_per_minute", "message": "is bad"},
        {"line": 3, "field": "", "message": "has 3 fields, but the header has 4"},
    ]


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("prefix,price\n", (), "unknown column 'price'"),
        ("", (), "lacks prefix"),
        (f"{HEADER}\n", (), "contains no rates"),
        (f"{HEADER}\n", ("--mode", "replace"), "contains no rates"),
        (f"{HEADER}\n", ("--allow-empty",), "contains no rates"),
        (f"{HEADER}\n", ("--mode", "overwrite"), "must be one of MERGE, REPLACE"),
    ],
)
def test_files_that_are_refused_as_a_whole(
    tollwire: Tollwire,
    fake: FakeServer,
    tmp_path: Path,
    content: str,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    path = tmp_path / "deck.csv"
    path.write_text(content)
    result = tollwire("rates", "import", str(path), "--tenant", "1", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not fake.rating.taken


def test_all_rates_can_be_deleted_on_request(
    tollwire: Tollwire, fake: FakeServer, tmp_path: Path
) -> None:
    arguments = ("--tenant", "1", "--mode", "replace", "--allow-empty")
    result = tollwire("rates", "import", deck(tmp_path), *arguments)
    assert result.exit_code == 0, result.output
    assert fake.rating.taken == [[]]
    assert fake.rating.requests[0].HasField("rate_count")


def test_a_refusal_ends_the_import_early(
    tollwire: Tollwire, fake: FakeServer, tmp_path: Path
) -> None:
    result = tollwire("rates", "import", deck(tmp_path, "44,UK,0.02,6"), "--tenant", "404")
    assert result.exit_code == 1
    assert result.stderr == ("tollwire: NOT_FOUND (TENANT_NOT_FOUND): tenant 404 does not exist\n")
    gone = tollwire(
        "rates", "import", deck(tmp_path, "44,UK,0.02,6"), "--tenant", "1", server=unused_address()
    )
    assert gone.exit_code == 3


def test_an_export_can_be_imported(tollwire: Tollwire, fake: FakeServer, tmp_path: Path) -> None:
    path = deck(tmp_path, '44,"UK, mobile",0.02,6', "33,France,0.01,60")
    assert tollwire("rates", "import", path, "--tenant", "1").exit_code == 0
    exported = tmp_path / "exported.csv"
    result = tollwire("rates", "export", "--tenant", "1", "-o", str(exported))
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert tollwire("rates", "import", str(exported), "--tenant", "1").exit_code == 0
    assert fake.rating.taken[1] == fake.rating.taken[0]
    to_stdout = tollwire("rates", "export", "--tenant", "1")
    assert to_stdout.stdout.startswith("prefix,destination,cost_per_minute,billing_increment,")


def test_a_failed_export_leaves_the_file_as_it_was(tollwire: Tollwire, tmp_path: Path) -> None:
    target = tmp_path / "exported.csv"
    target.write_text("before")
    result = tollwire(
        "rates", "export", "--tenant", "1", "-o", str(target), server=unused_address()
    )
    assert result.exit_code == 3
    assert target.read_text() == "before"
    assert list(tmp_path.glob("*.partial")) == []


@pytest.mark.parametrize("is_new", [True, False])
def test_only_the_owner_can_read_an_export(
    tollwire: Tollwire, fake: FakeServer, tmp_path: Path, is_new: bool
) -> None:
    path = deck(tmp_path, '44,"UK, mobile",0.02,6')
    assert tollwire("rates", "import", path, "--tenant", "1").exit_code == 0
    target = tmp_path / "exported.csv"
    if not is_new:
        target.touch(0o644)
    before = os.umask(0o022)
    try:
        result = tollwire("rates", "export", "--tenant", "1", "-o", str(target))
    finally:
        os.umask(before)
    assert result.exit_code == 0, result.output
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_dry_run_lists_the_price_changes(
    tollwire: Tollwire, fake: FakeServer, tmp_path: Path
) -> None:
    before = deck(tmp_path, "44,UK,0.02,6", "33,France,0.01,60", "34,Spain,0.01,60", "7,RU,1,60")
    assert tollwire("rates", "import", before, "--tenant", "1").exit_code == 0
    path = deck(
        tmp_path, "+44,UK,0.03,6", "33,France,0.0075,60", "34,Spain,0.01,1", "49,Germany,0.00137,60"
    )
    arguments = ("rates", "import", path, "--tenant", "1", "--mode", "replace", "--dry-run")
    result = tollwire(*arguments)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    for row in (
        ["dearer", "1"],
        ["cheaper", "1"],
        ["new", "1"],
        ["gone", "1"],
        ["other", "terms", "1"],
        ["dearer", "44", "UK", "0.0200", "0.0300", "+50.0"],
        ["cheaper", "33", "France", "0.0100", "0.0075", "-25.0"],
        ["new", "49", "Germany", "0.00137"],
        ["gone", "7", "RU", "1.0000"],
        ["other", "terms", "34", "Spain", "0.0100", "0.0100", "billing_increment", "60", "->", "1"],
    ):
        assert row in rows
    document = json.loads(tollwire(*arguments, "--json").stdout)
    assert [(one["change"], one["prefix"]) for one in document["changes"]] == [
        *(("dearer", "44"), ("cheaper", "33"), ("new", "49"), ("gone", "7"), ("other terms", "34"))
    ]
    written = tmp_path / "changes.csv"
    assert tollwire(*arguments, "-o", str(written)).exit_code == 0
    lines = written.read_text().splitlines()
    assert lines[:2] == [
        "change,prefix,destination,from,old_price,new_price,percent,other",
        "dearer,44,UK,,0.0200,0.0300,+50.0,",
    ]
    assert len(lines) == 6
    not_dry = tollwire(*arguments[:-1], "-o", str(written))
    assert (not_dry.exit_code, "--output needs --dry-run" in not_dry.stderr) == (2, True)


def test_options_of_the_import(tollwire: Tollwire, fake: FakeServer, tmp_path: Path) -> None:
    arguments = ("--tenant", "1", "--mode", "replace", "--effective-from", "2030-01-01")
    path = deck(tmp_path, "44,UK,0.02,6")
    assert tollwire("rates", "import", path, *arguments, "--allow-gap", "--yes").exit_code == 0
    (request,) = fake.rating.requests
    assert request.effective_from.ToJsonString() == "2030-01-01T00:00:00Z"
    assert request.allow_gap
