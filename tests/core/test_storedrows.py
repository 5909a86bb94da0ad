"""Reading stored rows: recorded ones, misfits, and damaged bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratingcore.record.key_order import split
from ratingcore.record.rows import RowTuples, copy_data
from ratingcore.record.stored_rows import STORED_FIELDS, StoredRows, read_copy, read_tuples
from tests.core.allocations import each_allocation_fails
from tests.core.contents import LISTS, content, rated
from tests.examples import examples

if TYPE_CHECKING:
    from ratingcore.record.values import Content

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
UPLOAD_IDS = st.sampled_from([0, 1, 2**63 - 1])
NAMES = [name for name, _ in STORED_FIELDS]

Row = tuple[Any, ...]


def field(value: Any, width: int) -> bytes:
    if value is None:
        return b"\xff\xff\xff\xff"
    if isinstance(value, bytes):
        data = value
    else:
        data = value.to_bytes(width, "big", signed=True) if width else value.encode()
    return struct.pack(">i", len(data)) + data


def copied(rows: Iterable[Row]) -> bytes:
    """The rows as PostgreSQL sends them."""
    data = bytearray(HEADER)
    for row in rows:
        data += struct.pack(">h", len(STORED_FIELDS))
        for value, (_, width) in zip(row, STORED_FIELDS, strict=True):
            data += field(value, width)
    return bytes(data + TRAILER)


def rows_of(contents: Sequence[Content | None], upload_id: int) -> list[Row]:
    """The rows of the new ones among these calls, rated."""
    records, order = rated(contents)
    new, _, _ = split(records, order)
    rows = RowTuples(records, new, upload_id, 77)
    return [(2**40 + at, *row) for at, row in enumerate(rows)]


def rows_in(stored: StoredRows) -> list[Row]:
    """The rows, made from the records that were read."""
    rows = []
    for position, row_id in enumerate(stored.ids):
        one = stored.records.content(position)
        call = (*one[:2], one[2] or None, *one[3:])
        upload_id = stored.upload_ids[position] or None
        outcome = stored.records.outcome(position)
        created_at_ns, generation = (
            stored.created_at_ns[position],
            stored.records.generation(position),
        )
        rows.append((row_id, *call, *outcome, upload_id, created_at_ns, generation))
    return rows


def a_row(**changed: Any) -> Row:
    (row,) = rows_of([content(1, "a", caller_number="é", destination_number="4420")], 5)
    values = dict(zip(NAMES, row, strict=True))
    assert values["status"] == 1
    assert changed.keys() <= values.keys()
    return tuple((values | changed).values())


@examples(100)
@given(LISTS, UPLOAD_IDS)
def test_rows_are_read_as_they_were_written(contents: list[Content | None], upload_id: int) -> None:
    rows = rows_of(contents, upload_id)
    for stored in (read_copy(copied(rows)), read_tuples(iter(rows))):
        assert stored.misfits == []
        assert len(stored) == len(stored.records) == len(rows)
        assert rows_in(stored) == rows
        parties = [(row[1], row[3] or 0) for row in rows]
        assert stored.records.parties() == list(dict.fromkeys(parties))


@examples(50)
@given(LISTS, UPLOAD_IDS)
def test_copied_rows_are_read_back(contents: list[Content | None], upload_id: int) -> None:
    records, order = rated(contents)
    new, _, _ = split(records, order)
    rows = rows_of(contents, upload_id)
    data = copy_data(records, new, 2**40, upload_id, 77)
    assert data == copied(rows)
    assert rows_in(read_copy(data)) == rows


def test_thousands_of_rows() -> None:
    rows = rows_of([content(1 + at % 2, f"{at}" * 30) for at in range(10_000)], 3)
    for stored in (read_copy(copied(rows)), read_tuples(rows)):
        assert rows_in(stored) == rows


def test_long_texts() -> None:
    rows = [a_row(caller_number="7" * size) for size in (0, 2**20 - 1, 1, 2**20 + 1, 0, 5)]
    for stored in (read_copy(copied(rows)), read_tuples(rows)):
        assert rows_in(stored) == rows


# Misfits.

MISFITS: list[dict[str, Any]] = [
    {"tenant_id": 0},
    {"tenant_id": None},
    {"call_id": ""},
    {"call_id": None},
    {"extension_id": 0},
    {"extension_id": -1},
    {"caller_number": None},
    {"caller_number": "4\x004"},
    {"destination_number": "\0"},
    {"direction": 0},
    {"direction": 258},
    {"disposition": 7},
    {"duration_seconds": -1},
    {"started_at_ns": -1},
    {"started_at_ns": 2**63 - 1},
    {"ended_at_ns": -1},
    {"status": 0},
    {"status": 4},
    {"unrated_reason": 1},
    {"bill_seconds": None},
    {"bill_seconds": -6},
    {"cost_units": None},
    {"cost_units": -1},
    {"cost_units": 10**15},
    {"cost_fraction_e8": None},
    {"cost_fraction_e8": 10**8},
    {"generation": -1},
    {"generation": None},
    {"rate_version_id": None},
    {"rate_version_id": 0},
    {"rate_revision": -1},
    {"rate_revision": None},
    {"upload_id": 0},
    {"created_at_ns": None},
    {"status": 2},  # still with a rate
    {"status": 3},  # still with a cost
    {"unrated_reason": 0},
    {"unrated_reason": 4},
]
NAMED = {  # the field that is reported, if it is not the changed one
    ("status", 2): "rate_version_id",
    ("status", 3): "unrated_reason",
}


@pytest.mark.parametrize("changed", MISFITS, ids=str)
def test_a_misfit_is_named_and_its_neighbours_are_read(changed: dict[str, Any]) -> None:
    ((name, value),) = changed.items()
    first, last = a_row(), a_row(id=9)
    found = NAMED.get((name, value), name)
    wrong = a_row(**changed, id=7)
    expected = wrong[NAMES.index(found)]
    for stored in (read_copy(copied([first, wrong, last])), read_tuples([first, wrong, last])):
        ((position, field_name, what),) = stored.misfits
        assert (position, field_name) == (1, found)
        assert what == expected or what == expected.encode()
        assert list(stored.ids) == [first[0], 7, 9]
        assert stored.records.bad() == [(1, b"")]
        assert stored.records.content(0) == stored.records.content(2)


UNRATED = {
    "status": 3,
    "unrated_reason": 1,
    "bill_seconds": None,
    "cost_units": None,
    "cost_fraction_e8": None,
    "rate_version_id": None,
}


@pytest.mark.parametrize("name", list(UNRATED)[1:])
def test_an_unrated_row_has_a_reason_and_nothing_else(name: str) -> None:
    fine = a_row(**UNRATED)
    wrong = a_row(**UNRATED | {name: None if name == "unrated_reason" else 1})
    for stored in (read_copy(copied([fine, wrong])), read_tuples([fine, wrong])):
        assert [misfit[:2] for misfit in stored.misfits] == [(1, name)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("call_id", 5),
        ("call_id", b"a"),
        ("destination_number", "\ud800"),
        ("cost_units", "1"),
        ("cost_units", 1.0),
        ("cost_units", 2**63),
        ("created_at_ns", -(2**63) - 1),
    ],
)
def test_tuples_may_hold_anything(name: str, value: object) -> None:
    stored = read_tuples([a_row(**{name: value})])
    assert stored.misfits == [(0, name, value)]


def test_a_text_may_be_invalid_utf_8() -> None:
    stored = read_copy(copied([a_row(call_id=b"\xff\xfe"), a_row(caller_number=b"\xed\xa0\x80")]))
    assert stored.misfits == [
        (0, "call_id", b"\xff\xfe"),
        (1, "caller_number", b"\xed\xa0\x80"),
    ]


# Damaged data.


def test_data_that_is_too_short_or_too_long_is_damaged() -> None:
    data = copied([a_row(), a_row(**UNRATED)])
    assert len(read_copy(data)) == 2
    for end in range(len(data)):
        with pytest.raises(ValueError, match="damaged"):
            read_copy(data[:end])
    for more in (b"\0", TRAILER, data):
        with pytest.raises(ValueError, match="damaged"):
            read_copy(data + more)
    with pytest.raises(ValueError, match="behind 2 rows"):
        read_copy(data[:-1])


def test_other_formats_are_damaged() -> None:
    row = copied([a_row()])[len(HEADER) :]
    for header in (b"PGCOPY\n\xff\r\n\1" + bytes(8), HEADER[:11] + b"\0\1\0\0" + bytes(4)):
        with pytest.raises(ValueError, match="damaged"):
            read_copy(header + row)
    with pytest.raises(ValueError, match="damaged"):
        read_copy(HEADER[:-4] + b"\xff\xff\xff\xff" + row)
    # An extension of the header is skipped, and the lower flags have no effect.
    read_copy(HEADER[:11] + b"\0\0\0\1" + b"\0\0\0\3" + b"abc" + row)


def test_other_widths_are_damaged() -> None:
    for at, (_, width) in enumerate(STORED_FIELDS):
        if width:
            row = list(a_row())
            row[at] = bytes(width + 1)
            with pytest.raises(ValueError, match="damaged"):
                read_copy(copied([tuple(row)]))


@examples(75)
@given(
    LISTS,
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 10**6),
)
def test_damaged_bytes_never_crash(
    contents: list[Content | None], changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(copied(rows_of(contents, 1)))
    for at, byte in changes:
        data[at % len(data)] = byte
    given_data = bytes(data[: cut % (4 * len(data))])
    try:
        stored = read_copy(given_data)
    except ValueError:
        return
    bad = [position for position, _ in stored.records.bad()]
    assert bad == [position for position, _, _ in stored.misfits]


def test_a_row_without_an_id_or_a_value_is_refused() -> None:
    for row in (a_row(id=None), a_row(id="1"), a_row(id=2**64), a_row()[:-1], (*a_row(), 1), None):
        with pytest.raises(ValueError, match="stored row"):
            read_tuples([row])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="damaged"):
        read_copy(copied([a_row(id=None)]))
    for wrong in (5, [5], [[1] * len(STORED_FIELDS)]):
        with pytest.raises(TypeError):
            read_tuples(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        read_copy(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        StoredRows()


def test_every_allocation_may_fail() -> None:
    rows = rows_of([content(1 + at % 2, f"{at}", extension_id=at % 5) for at in range(100)], 1)
    data = copied(rows)

    def attempt() -> list[Row]:
        assert rows_in(read_tuples(rows)) == rows
        return rows_in(read_copy(data))

    made, count = each_allocation_fails(attempt)
    assert count > 10
    assert made == rows
