"""Decks as CSV: accepted and refused files, and that an export can be imported."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollwire.service.cli.deck_csv import DeckFile, write_deck
from tollwire.service.cli.lines import BadFile
from tollwire.v1.types_pb2 import Interval, Rate

HEADER = "prefix,destination,cost_per_minute,billing_increment"


def read(text: str | bytes, *, multiline: bool = False) -> list[tuple[int, Rate | str]]:
    data = text.encode() if isinstance(text, str) else text
    return list(DeckFile(io.BytesIO(data), multiline=multiline))


def test_the_four_columns_that_every_deck_has() -> None:
    assert read(f"{HEADER}\n44,UK,0.0200,6\n") == [
        (2, Rate(prefix="44", destination="UK", cost_per_minute="0.0200", billing_increment=6))
    ]


def test_all_columns_in_any_order() -> None:
    text = (
        "blocked,intervals,effective_to,effective_from,minimum_seconds,connect_fee,"
        "billing_increment,cost_per_minute,destination,prefix\n"
        'yes,"[{""start_seconds"": 60, ""cost_per_minute"": ""0.01"", ""billing_increment"": 1}]",'
        "2026-02-01,2026-01-01T00:00:00+01:00,30,0.05,60,1,France,+33\n"
    )
    rate = Rate(
        prefix="+33",
        destination="France",
        cost_per_minute="1",
        billing_increment=60,
        connect_fee="0.05",
        minimum_seconds=30,
        intervals=[Interval(start_seconds=60, cost_per_minute="0.01", billing_increment=1)],
        blocked=True,
    )
    rate.effective_from.FromJsonString("2025-12-31T23:00:00Z")
    rate.effective_to.FromJsonString("2026-02-01T00:00:00Z")
    assert read(text) == [(2, rate)]


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + HEADER.encode() + b"\r\n44,UK,0.02,6\r\n",
        HEADER.encode() + b"\n\n44,UK,0.02,6",
        b'"prefix", Destination ,COST_PER_MINUTE,billing_increment\n"44","UK","0.02","6"\n',
    ],
    ids=["byte order mark and CRLF", "empty line, no last line end", "quotes, spaces, capitals"],
)
def test_files_of_various_programs(data: bytes) -> None:
    (record,) = read(data)
    assert isinstance(record[1], Rate)
    assert record[1].prefix == "44"
    assert record[1].destination == "UK"


def test_a_quoted_field_keeps_its_commas_and_quotes() -> None:
    ((_, rate),) = read(f'{HEADER}\n44,"UK, ""mobile""",0.02,6\n')
    assert isinstance(rate, Rate)
    assert rate.destination == 'UK, "mobile"'


def test_a_line_break_in_a_field_needs_an_option() -> None:
    text = f'{HEADER}\n44,"UK\r\n\nand more",0.02,6\n33,France,0.01,6\n'
    records = read(text, multiline=True)
    assert [line for line, _ in records] == [2, 5]
    assert records[0][1].destination == "UK\r\n\nand more"  # type: ignore[union-attr]
    first, second, good = read(text)
    assert [first[0], second[0], good[0]] == [2, 4, 5]
    assert isinstance(first[1], str) and "--multiline" in first[1]
    assert isinstance(second[1], str)
    assert isinstance(good[1], Rate)


def test_an_unclosed_quote_is_reported_with_its_lines() -> None:
    text = f'{HEADER}\n44,"UK,0.02,6\n33,France,0.01,6\n'
    ((line, message),) = read(text, multiline=True)
    assert line == 2
    assert message == "not CSV: unexpected end of data (lines 2 to 3)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks prefix, destination, cost_per_minute, billing_increment"),
        ("prefix,destination,cost_per_minute\n", "lacks billing_increment"),
        (HEADER + ",price\n", "'price'"),
        (HEADER.replace(",", ";") + "\n", "must be separated by commas"),
        (HEADER + ",prefix\n", "prefix twice"),
        ('"prefix', "header cannot be read"),
    ],
)
def test_headers_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(BadFile, match=message):
        read(text)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"44,UK,0.02", "has 3 fields, but the header has 4"),
        (b"44,UK,0,02,6", "has 5 fields, but the header has 4"),
        (b"44,UK,0.02,six", "billing_increment: must be a whole number, got 'six'"),
        (b"44,UK,0.02,2147483648", "billing_increment: does not fit 32 bits"),
        (b"44,\xff,0.02,6", "is not UTF-8: byte 0xff at position 4"),
        (b"44,U\0K,0.02,6", "contains a NUL byte"),
        (b'44,"UK" ,0.02,6', 'not CSV: a quote (") is in an unquoted field'),
        (b'44,U"K"0,0.02,6', 'not CSV: a quote (") is in an unquoted field'),
        (b'44,"UK,0.02,6', 'not CSV: a quote (") is opened but not closed on this line'),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_rows_that_cannot_be_read_do_not_hide_the_next(
    row: bytes, message: str, end: bytes
) -> None:
    bad, good = read(HEADER.encode() + end + row + end + b"33,France,0.01,6" + end)
    assert bad[0] == 2
    assert isinstance(bad[1], str)
    assert message in bad[1]
    assert good[0] == 3
    assert isinstance(good[1], Rate)


@pytest.mark.parametrize(
    "intervals", ["60", "[60]", "[{}", '[{"start": 1}]', '[{"cost_per_minute": 0.01}]', "[" * 9999]
)
def test_intervals_that_cannot_be_read(intervals: str) -> None:
    quoted = intervals.replace('"', '""')
    ((_, message),) = read(f'{HEADER},intervals\n44,UK,0.02,6,"{quoted}"\n')
    assert isinstance(message, str)
    assert message.startswith("intervals: must be a JSON list")


def test_prices_are_sent_as_written() -> None:
    ((_, rate),) = read(f"{HEADER}\n44,UK, 0.12345 ,6\n")
    assert isinstance(rate, Rate)
    assert rate.cost_per_minute == "0.12345"  # the server refuses it; the client has not rounded it


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
prices = st.decimals(0, 10**8, places=4, allow_nan=False).map(str)
times = st.none() | st.integers(-62_135_596_800, 253_402_300_799)


@given(
    st.lists(
        st.builds(
            lambda start, end, **fields: (start, end, Rate(**fields)),
            times,
            times,
            prefix=st.text("0123456789", max_size=9),
            destination=texts,
            cost_per_minute=prices,
            billing_increment=st.integers(1, 86_400),
            connect_fee=prices,
            minimum_seconds=st.integers(0, 2**31 - 1),
            blocked=st.booleans(),
            intervals=st.lists(
                st.builds(
                    Interval,
                    start_seconds=st.integers(1, 2**31 - 1),
                    cost_per_minute=prices,
                    billing_increment=st.integers(1, 86_400),
                ),
                max_size=3,
            ),
        )
    )
)
def test_an_export_is_read_back(
    drawn: list[tuple[int | None, int | None, Rate]],
) -> None:
    deck = []
    for start, end, rate in drawn:
        if start is not None:
            rate.effective_from.seconds = start
        if end is not None:
            rate.effective_to.seconds = end
        deck.append(rate)
    out = io.StringIO()
    assert write_deck(deck, out) == len(deck)
    assert [rate for _, rate in read(out.getvalue(), multiline=True)] == deck
