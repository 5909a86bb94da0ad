"""Reading stored rates into builders: as COPY data and as tuples, in parts; and damaged rows."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratingcore import Deck, DeckBuilder
from ratingcore.wire import rate_rows
from ratingcore.wire.rate_rows import OPEN_FROM_S, OPEN_TO_S, RATE_ROW_FIELDS, RateRows
from tests.core.allocations import each_allocation_fails
from tests.core.changes import in_order
from tests.core.decks import PlainRate, rate_lists
from tests.examples import examples
from tollwire.service.storage import decks
from tollwire.service.storage.schema import tenant_tables

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
NAMES = [name for name, _ in RATE_ROW_FIELDS]
_NS = 10**9

Row = tuple[Any, ...]


def row_of(rate: PlainRate, version_id: int, tenant_id: int = 1) -> Row:
    """The rate as the database stores it."""
    open_from, open_to = (OPEN_FROM_S, 0), (OPEN_TO_S, 0)
    return (
        *(version_id, version_id + 1000, rate.prefix, rate.destination),
        *(rate.price_e8, rate.increment, rate.connect_fee_e8, rate.minimum_seconds),
        json.dumps(rate.intervals) if rate.intervals else None,
        *(open_from if rate.from_ns is None else divmod(rate.from_ns, _NS)),
        *(open_to if rate.to_ns is None else divmod(rate.to_ns, _NS)),
        int(rate.blocked),
        tenant_id,
    )


def rows_of(rates: Iterable[PlainRate], tenant_id: int = 1) -> list[Row]:
    return [row_of(rate, version_id, tenant_id) for version_id, rate in enumerate(rates)]


def a_row(**changed: Any) -> Row:
    values = dict(zip(NAMES, row_of(PlainRate("44", destination="é"), 7), strict=True))
    assert changed.keys() <= values.keys()
    return tuple((values | changed).values())


def copied(row: Row) -> bytes:
    """The row as PostgreSQL sends it."""
    data = bytearray(struct.pack(">h", len(row)))
    for value, (_, width) in zip(row, RATE_ROW_FIELDS, strict=True):
        if value is None:
            data += b"\xff\xff\xff\xff"
            continue
        if isinstance(value, bytes):
            field = value
        else:
            field = value.to_bytes(width, "big", signed=width > 1) if width else value.encode()
        data += struct.pack(">i", len(field)) + field
    return bytes(data)


def in_parts(rows: list[Row], size: int, *, as_copy: bool) -> list[Any]:
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    if not as_copy:
        return parts
    data = [b"".join(map(copied, part)) for part in parts] or [b""]
    return [HEADER + data[0], *data[1:], TRAILER]


def read(parts: Iterable[Any]) -> dict[int, Deck]:
    rows = RateRows()
    found = [pair for part in parts for pair in rows.read(part)] + rows.end()
    decks = {tenant_id: builder.build(1) for tenant_id, builder in found}
    assert len(decks) == len(found)
    return decks


def test_a_row_has_the_columns_of_the_table() -> None:
    assert [column.key for column in decks.ROW] == NAMES


def test_the_open_ends_are_those_of_the_table() -> None:
    assert (rate_rows.OPEN_FROM_S, rate_rows.OPEN_TO_S) == (
        tenant_tables.OPEN_FROM_S,
        tenant_tables.OPEN_TO_S,
    )


@examples(200)
@given(st.lists(rate_lists, min_size=1, max_size=4), st.integers(1, 5), st.booleans())
def test_the_rates_of_several_tenants(
    tenants: list[list[PlainRate]], size: int, as_copy: bool
) -> None:
    rows = [row for tenant, rates in enumerate(tenants, 1) for row in rows_of(rates, tenant)]
    decks = read(in_parts(rows, size, as_copy=as_copy))
    assert decks.keys() == {tenant for tenant, rates in enumerate(tenants, 1) if rates}
    for tenant_id, deck in decks.items():
        deck._check()
        assert list(deck) == in_order(list(enumerate(tenants[tenant_id - 1])))


@pytest.mark.parametrize("as_copy", [False, True])
def test_changes_of_a_deck(as_copy: bool) -> None:
    base = DeckBuilder()
    PlainRate("1").put(base, 500)
    builder = DeckBuilder(base.build(1))
    rates = [PlainRate("44"), PlainRate("49", intervals=((60, 5, 6),), from_ns=-1, to_ns=7)]
    rows = RateRows(builder)
    for part in in_parts(rows_of(rates, 3), 1, as_copy=as_copy):
        assert rows.read(part) == []
    assert rows.end() == []
    assert list(builder.build(2)) == in_order([(500, PlainRate("1")), *enumerate(rates)])


BAD: dict[str, list[Any]] = {
    "prefix": ["+1", "1 ", "1" * 33, "é"],
    "destination": ["x" * 65_536],
    "cost_per_minute_e8": [-1, 10**16],
    "billing_increment": [0, 86_401],
    "connect_fee_e8": [-1],
    "minimum_seconds": [-1],
    "intervals": [
        *(
            "[[0,1,1]]",
            "{}",
            "[",
            "[[1,1,0]]",
            "[5]",
            "[[1,2]]",
            "[[1.5,1,1]]",
            f"[[1,{10**20},1]]",
        ),
        *(
            "",
            "[]",
            "[[1,1,1]",
            "[[1,1,1],]",
            "[[1,1,1]]x",
            "[[1,1,1,1]]",
            "[[,1,1]]",
            "[[-1,1,1]]",
        ),
        json.dumps([[start, 1, 1] for start in range(1, 66)]),
    ],
    "effective_from_nanos": [-1, 10**9],
    "effective_to_s": [-(10**12)],
    "effective_to_nanos": [10**9],
}


@pytest.mark.parametrize("as_copy", [False, True])
@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in BAD.items() for value in values]
)
def test_a_value_that_no_rate_has(field: str, value: Any, as_copy: bool) -> None:
    row = a_row(**{"effective_from_s": 5, field: value})
    with pytest.raises(ValueError):
        read(in_parts([row], 1, as_copy=as_copy))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, 1.5, b"1", 2**63, "\ud800"])
def test_a_tuple_with_a_value_of_another_type(name: str, value: Any) -> None:
    if name == "intervals" and value is None:
        return  # no intervals
    with pytest.raises(ValueError):
        read([[a_row(**{name: value})]])


def test_a_tuple_of_another_length() -> None:
    with pytest.raises(ValueError, match="15 values, not 14"):
        read([[a_row()[:-1]]])


def test_damaged_copy_data() -> None:
    data = HEADER + copied(a_row(intervals="[[60,1,1]]")) + TRAILER
    assert len(read([data])[1]) == 1
    for end in range(len(data)):
        with pytest.raises(ValueError):
            read([data[:end]])
    for at in (0, 11, 14):
        with pytest.raises(ValueError, match="no header"):
            read([data[:at] + b"\x01" + data[at + 1 :]])
    with pytest.raises(ValueError):
        read([data + b"x"])
    with pytest.raises(ValueError):
        read([HEADER + copied(a_row(destination=b"\xff")) + TRAILER])


@pytest.mark.parametrize("count", [1, 63, 64])
def test_intervals_with_and_without_spaces(count: int) -> None:
    parts = tuple((start, start, 1) for start in range(1, count + 1))
    rate = PlainRate("1", intervals=parts)
    for text in (
        json.dumps(parts),
        json.dumps(parts, separators=(",", ":")),
        f"  {json.dumps(parts)}  ",
    ):
        row = dict(zip(NAMES, row_of(rate, 0), strict=True)) | {"intervals": text}
        assert list(read([[tuple(row.values())]])[1]) == in_order([(0, rate)])


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(junk: bytes) -> None:
    for part in (junk, HEADER + junk, HEADER + copied(a_row())[:40] + junk):
        try:
            decks = read([part])
        except ValueError:
            continue
        for deck in decks.values():
            deck._check()


def test_each_allocation_may_fail() -> None:
    rows = rows_of([PlainRate("1"), PlainRate("2", intervals=((60, 5, 6),))])
    decks, failures = each_allocation_fails(lambda: read(in_parts(rows, 1, as_copy=True)))
    assert len(decks[1]) == 2
    assert failures > 5
