"""The rows of an import: the same as tuples and as COPY data, and what the reader reads again."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratingcore import Deck, DeckBuilder, IncomingDeck
from ratingcore.wire.rate_row_writer import HISTORY_FIELDS, RateRowWriter
from ratingcore.wire.rate_rows import RATE_ROW_FIELDS, RateRows
from tests.core.allocations import each_allocation_fails
from tests.core.decks import PlainRate, rate_lists
from tests.examples import examples
from tollwire.service.storage import deck_import

FIELDS = (*RATE_ROW_FIELDS, *((name, 8) for name in HISTORY_FIELDS))
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_NS = 10**9
RATES = [
    PlainRate("1", destination="é"),
    PlainRate("44", intervals=((60, 10**16 - 1, 6), (2**31 - 1, 0, 86_400)), blocked=True),
    PlainRate("447", from_ns=-1, to_ns=10**18 + 1),
    PlainRate("", connect_fee_e8=5, minimum_seconds=6),
]


def incoming_of(rates: list[PlainRate], first_version_id: int = 10) -> IncomingDeck:
    deck = IncomingDeck(3)
    for index, rate in enumerate(rates):
        _, _, prefix, destination, *terms = rate.arguments(0)
        terms[5] = None if rate.from_ns is None else divmod(rate.from_ns, _NS)
        terms[6] = None if rate.to_ns is None else divmod(rate.to_ns, _NS)
        deck.put(index, prefix, destination, *terms)
    deck.sort()
    deck.compare(Deck(), replace=False)
    deck.number(first_version_id)
    return deck


def copied(writer: RateRowWriter) -> list[tuple[Any, ...]]:
    """The rows of the COPY data."""
    data = b"".join(iter(writer.copy_part, b""))
    assert data.startswith(HEADER) and data.endswith(b"\xff\xff")
    at = len(HEADER)
    rows = []
    while at < len(data) - 2:
        assert data[at : at + 2] == struct.pack(">h", len(FIELDS))
        at += 2
        row: list[Any] = []
        for name, width in FIELDS:
            (size,) = struct.unpack_from(">i", data, at)
            at += 4
            value: Any = None
            if size >= 0:
                value = data[at : at + size]
                assert width in (0, size), name
                value = int.from_bytes(value, "big", signed=True) if width else value.decode()
                at += size
            row.append(value)
        rows.append(tuple(row))
    assert at == len(data) - 2
    return rows


def test_the_columns_are_those_of_the_table() -> None:
    assert [column.key for column in deck_import.COLUMNS] == [name for name, _ in FIELDS]


@examples(200)
@given(rate_lists, st.dictionaries(st.integers(10, 20), st.integers(0, 5)))
def test_both_forms_say_the_same_and_are_read_again(
    rates: list[PlainRate], created_at_ns: dict[int, int]
) -> None:
    deck = incoming_of(rates)
    rows = list(RateRowWriter(deck, 7, created_at_ns, 99))
    assert len(rows) == len(deck) == len(rates)
    assert copied(RateRowWriter(deck, 7, created_at_ns, 99)) == rows
    builder, direct = DeckBuilder(), DeckBuilder()
    RateRows(builder).read([row[: len(RATE_ROW_FIELDS)] for row in rows])
    deck.put_into(direct)
    for made in (builder, direct):
        found = made.build(1)
        found._check()
        assert list(found) == deck.rows(0, len(rates))
    for row in rows:
        values = dict(zip([name for name, _ in FIELDS], row, strict=True))
        assert values["tenant_id"] == 3
        assert (values["created_revision"], values["updated_at_ns"]) == (7, 99)
        assert values["created_at_ns"] == created_at_ns.get(values["rate_id"], 99)


def test_the_rows() -> None:
    found = {row[2]: row for row in RateRowWriter(incoming_of(RATES), 7, {}, 99)}
    opens = (-62_135_596_801, 0, 253_402_300_800, 0)
    last = (3, 7, 99, 99)
    assert found["1"] == (11, 11, "1", "é", 100, 60, 0, 0, None, *opens, 0, *last)
    text = "[[60,9999999999999999,6],[2147483647,0,86400]]"
    assert found["44"] == (12, 12, "44", "somewhere", 100, 60, 0, 0, text, *opens, 1, *last)
    window = (-1, 999_999_999, 10**9, 1)
    assert found["447"] == (13, 13, "447", "somewhere", 100, 60, 0, 0, None, *window, 0, *last)
    assert found[""] == (10, 10, "", "somewhere", 100, 60, 5, 6, None, *opens, 0, *last)


@pytest.mark.parametrize("created_at_ns", [{}, {10: 1}])
def test_many_rows_come_in_parts(created_at_ns: dict[int, int]) -> None:
    rates = [PlainRate(str(number)) for number in range(20_000)]
    deck = incoming_of(rates, 2**40)
    writer = RateRowWriter(deck, 7, created_at_ns, 99)
    sizes = [len(part) for part in iter(writer.copy_part, b"")]
    assert len(sizes) > 2
    assert max(sizes) < 2**20 + 1000
    assert copied(RateRowWriter(deck, 7, created_at_ns, 99)) == list(
        RateRowWriter(deck, 7, created_at_ns, 99)
    )


def test_a_deck_without_rates() -> None:
    writer = RateRowWriter(incoming_of([]), 7, {}, 99)
    assert list(writer) == []
    assert copied(writer) == []
    assert writer.copy_part() == b""


def test_each_allocation_may_fail() -> None:
    deck = incoming_of(RATES)
    rows, failures = each_allocation_fails(lambda: copied(RateRowWriter(deck, 7, {}, 99)))
    assert len(rows) == len(RATES) and failures == 1

    def build() -> Deck:
        builder = DeckBuilder()
        deck.put_into(builder)
        return builder.build(1)

    made, failures = each_allocation_fails(build)
    assert len(made) == len(RATES) and failures > 5
