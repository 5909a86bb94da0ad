"""Lists of calls before they are recorded: identity, order, new calls, ratings, rows."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ratingcore
from ratingcore.record.key_order import in_key_order, split
from ratingcore.record.record_rating import count_outcomes, rate_records
from ratingcore.record.records import Records, records_of
from ratingcore.record.rows import (
    ROW_FIELDS,
    SHAREABLE_FIELDS,
    RowTuples,
    column_arrays,
    copy_data,
    shared_fields,
)
from ratingcore.record.upload import read_upload
from tests.core.allocations import each_allocation_fails
from tests.core.contents import COST_OVERFLOW, DECKS, LISTS, content, deck, good, rated
from tests.examples import examples

if TYPE_CHECKING:
    from ratingcore.record.values import Content


# Identity.


@examples(100)
@given(LISTS)
def test_a_list_returns_its_contents(contents: list[Content | None]) -> None:
    records = records_of(contents)
    assert len(records) == len(contents)
    assert [position for position, _ in records.bad()] == [
        position for position, one in enumerate(contents) if one is None
    ]
    for position in good(contents):
        sent = contents[position]
        assert sent is not None
        kept = records.content(position)
        assert kept == (sent if sent[1] else (sent[0], records.call_id(position), *sent[2:]))
        assert records.key(position) == kept[:2]
    parties = [(one[0], one[2]) for one in contents if one is not None]
    assert records.parties() == list(dict.fromkeys(parties))
    wanted = set(parties[:1])
    assert records.of_parties(wanted) == [
        position
        for position in good(contents)
        if (records.content(position)[0], records.content(position)[2]) in wanted
    ]


@examples(40)
@given(LISTS, st.data())
def test_a_part_is_a_list_of_its_own(contents: list[Content | None], data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(contents)))
    end = data.draw(st.integers(begin, len(contents)))
    part = records_of(contents).part(begin, end)  # the whole list is freed
    alone = records_of(contents[begin:end])
    assert len(part) == len(alone)
    assert part.bad() == alone.bad()
    assert part.parties() == alone.parties()
    assert part.packed() == alone.packed()


def test_a_part_lies_within_the_list() -> None:
    records = records_of([content()] * 3)
    for begin, end in [(0, 4), (2, 1), (4, 4)]:
        with pytest.raises(IndexError):
            records.part(begin, end)
    with pytest.raises(OverflowError):
        records.part(-1, 2)


def test_the_bytes_of_calls() -> None:
    """Only calls that were read from bytes have them, good and bad ones."""
    sent = [b"", b"\x08\x01", b"\x52\x01a"]
    request = b"".join(b"\x1a" + bytes([len(one)]) + one for one in sent)
    records = read_upload(request, 10)[3]
    assert [records.source(position) for position in range(3)] == sent
    assert records.part(1, 3).source(1) == sent[2]
    assert records_of([content()]).source(0) == b""
    for position in (-1, 3):
        with pytest.raises(IndexError):
            records.source(position)


def test_many_parties() -> None:
    contents = [content(1 + at % 97, f"{at}", extension_id=at % 101) for at in range(10_000)]
    records = records_of(contents)
    assert len(records.parties()) == 97 * 101
    assert records.of_parties([(5, 7)]) == [
        at for at in range(10_000) if at % 97 == 4 and at % 101 == 7
    ]


@examples(40)
@given(LISTS)
def test_the_packed_form(contents: list[Content | None]) -> None:
    records = records_of(contents)
    kept = [records.content(position) for position in good(contents)]
    columns: list[list[Any]] = [list(column) for column in zip(*kept, strict=True)] or [[]] * 10
    expected = b""
    for integers in (0, 2, 5, 6, 7, 8, 9):
        column = [-1 if value is None else value for value in columns[integers]]
        expected += struct.pack(f"<{len(kept)}q", *column)
    for texts in (3, 4, 1):
        expected += "\0".join(columns[texts]).encode() + b"\0"
    assert records.packed() == expected


def test_values_beyond_a_field_are_refused() -> None:
    records_of([content(duration_seconds=2**31 - 1)])
    for duration_seconds in (-1, 2**31, 2**32):
        with pytest.raises(ValueError, match="duration_seconds"):
            records_of([content(duration_seconds=duration_seconds)])
    for wrong in ({"started_at_ns": 2**63}, {"direction": 256}, {"duration_seconds": 2**64}):
        with pytest.raises(OverflowError):
            records_of([content(**wrong)])
    with pytest.raises(TypeError):
        Records()


def test_only_good_calls_have_contents() -> None:
    records = records_of([content(), None])
    for position in (-1, 1, 2, 2**40):
        for ask in (records.key, records.call_id, records.content, records.outcome):
            with pytest.raises(IndexError):
                ask(position)
    for positions in (array("I", [0, 1]), array("I", [2])):
        for use in (
            lambda order: split(records, order),
            lambda order: rate_records(records, order, DECKS),
            lambda order: count_outcomes(records, order),
            lambda order: copy_data(records, order, 1, 0, 0),
            lambda order: RowTuples(records, order, 0, 0),
        ):
            with pytest.raises(ValueError, match="no good call"):
                use(positions)
    with pytest.raises(ValueError, match="type I"):
        count_outcomes(records, array("i", [0]))


# Order, and new calls.


@examples(100)
@given(LISTS, st.booleans())
def test_the_order_of_the_keys(contents: list[Content | None], leave_out: bool) -> None:
    records = records_of(contents)
    unknown = records.parties()[:1] if leave_out else []
    kept = sorted(
        (position for position in good(contents) if position not in records.of_parties(unknown)),
        key=records.key,
    )
    assert list(in_key_order(records, unknown)) == kept


def expected_split(
    records: Records, order: Sequence[int], recorded: set[tuple[int, str]]
) -> tuple[list[int], list[int], list[int]]:
    new: dict[tuple[int, str], int] = {}
    old, refused = [], []
    for position in order:
        key = records.key(position)
        if key in recorded:
            old.append(position)
        elif records.outcome(position)[0] == ratingcore.REFUSED:
            refused.append(position)
        elif key in new:
            old.append(position)
        else:
            new[key] = position
    return list(new.values()), old, refused


@examples(100)
@given(LISTS, st.data())
def test_the_new_calls_of_a_list(contents: list[Content | None], data: st.DataObject) -> None:
    records, order = rated(contents)
    keys = [records.key(position) for position in order]
    recorded = set(data.draw(st.lists(st.sampled_from(keys), max_size=3))) if keys else set()
    parts = split(records, order, recorded)
    assert tuple(map(list, parts)) == expected_split(records, order, recorded)


def test_the_first_of_a_key_that_has_a_cost_is_new() -> None:
    overflowing = content(1, "a", **COST_OVERFLOW)
    records, order = rated(
        [overflowing, content(1, "a"), overflowing, content(1, "a", duration_seconds=8)]
    )
    assert [list(part) for part in split(records, order)] == [[1], [3], [0, 2]]
    assert [list(part) for part in split(records, order, {(1, "a")})] == [[], [0, 1, 2, 3], []]


# Ratings.


@examples(100)
@given(LISTS)
def test_the_rating_is_that_of_the_deck(contents: list[Content | None]) -> None:
    records, order = rated(contents)
    unrated = 0
    for position in order:
        one = records.content(position)
        billable = one[5:7] == (2, 1)
        rating = DECKS[one[0]].rate(one[4], one[8], one[7], billable)
        cost_scaled = rating.cost_scaled
        assert records.outcome(position) == (
            rating.status,
            rating.unrated_reason or None,
            rating.bill_seconds,
            None if cost_scaled is None else cost_scaled // 10**8,
            None if cost_scaled is None else cost_scaled % 10**8,
            rating.version_id if rating.status == ratingcore.RATED else None,
            DECKS[one[0]].revision,
        )
        unrated += rating.status == ratingcore.UNRATED
    assert count_outcomes(records, order).unrated() == unrated


def test_a_tenant_without_a_deck() -> None:
    records = records_of([content(1), content(3)])
    with pytest.raises(KeyError):
        rate_records(records, in_key_order(records), DECKS)
    with pytest.raises(TypeError):
        rate_records(records, in_key_order(records), {1: object(), 3: None})  # type: ignore[dict-item]


# Rows.


def copied(data: bytes) -> Iterator[list[bytes | None]]:
    """The rows of PostgreSQL's binary COPY data."""
    header = b"PGCOPY\n\xff\r\n\0" + bytes(8)
    assert data.startswith(header)
    at = len(header)
    while True:
        (fields,) = struct.unpack_from(">h", data, at)
        at += 2
        if fields == -1:
            break
        row: list[bytes | None] = []
        for _ in range(fields):
            (size,) = struct.unpack_from(">i", data, at)
            at += 4
            row.append(None if size == -1 else data[at : at + size])
            at += max(size, 0)
        yield row
    assert at == len(data)


@examples(100)
@given(LISTS, st.sampled_from([0, 1, 2**63 - 1]), st.sampled_from([1, 255, 2**62]))
def test_rows(contents: list[Content | None], upload_id: int, first_id: int) -> None:
    records, order = rated(contents)
    new, _, _ = split(records, order)
    tuples = list(RowTuples(records, new, upload_id, 77))
    for position, row in zip(new, tuples, strict=True):
        one = records.content(position)
        expected = (*one[:2], one[2] or None, *one[3:], *records.outcome(position))
        assert row == (*expected, upload_id or None, 77, 0)
    written = []
    for cdr_id, row in enumerate(tuples, first_id):
        values: list[bytes | None] = [cdr_id.to_bytes(8, "big")]
        for value, (_, size) in zip(row, ROW_FIELDS, strict=True):
            if value is None or isinstance(value, str):
                values.append(value.encode() if value is not None else None)
            else:
                values.append(value.to_bytes(size, "big"))
        written.append(values)
    data = copy_data(records, new, first_id, upload_id, 77)
    assert list(copied(data)) == written
    columns = [elements(array) for array in column_arrays(data, len(new))]
    assert [oid for oid, _ in columns] == [20, *(OIDS[size] for _, size in ROW_FIELDS)]
    assert [list(values) for values in zip(*(values for _, values in columns), strict=True)] == (
        written
    )


@examples(100)
@given(LISTS, st.sampled_from([0, 1, 2**63 - 1]), st.integers(1, 5))
def test_several_rows_in_a_tuple(
    contents: list[Content | None], upload_id: int, rows_each: int
) -> None:
    records, order = rated(contents)
    new, _, _ = split(records, order)
    single = list(RowTuples(records, new, upload_id, 77))
    names = [name for name, _ in ROW_FIELDS]
    columns = dict(zip(names, zip(*single, strict=True), strict=True)) if single else {}
    shared = shared_fields(records, new)
    assert shared == tuple(
        name
        for name in names
        if name in SHAREABLE_FIELDS and (not single or len(set(columns[name])) == 1)
    )
    for once in ((), shared):
        others = [at for at, name in enumerate(names) if name not in once]
        expected = []
        for begin in range(0, len(single) - rows_each + 1, rows_each):
            part = single[begin : begin + rows_each]
            values = [part[0][names.index(name)] for name in once]
            expected.append((*values, *(row[at] for row in part for at in others)))
        assert list(RowTuples(records, new, upload_id, 77, rows_each, once)) == expected


def test_rows_in_a_tuple_are_one_or_more() -> None:
    records, order = rated([])
    with pytest.raises(ValueError, match="rows_each must be 1 or above, not 0"):
        RowTuples(records, order, 0, 77, 0)


# The types of PostgreSQL, by the bytes of their integers.
OIDS = {8: 20, 4: 23, 2: 21, 0: 25}


def elements(array: bytes) -> tuple[int, list[bytes | None]]:
    """The type and the elements of PostgreSQL's binary form of an array of one dimension."""
    dimensions, _, oid, count, lower_bound = struct.unpack_from(">5i", array)
    assert (dimensions, lower_bound) == (1, 1)
    values: list[bytes | None] = []
    at = 20
    for _ in range(count):
        (size,) = struct.unpack_from(">i", array, at)
        at += 4
        values.append(None if size < 0 else array[at : at + size])
        at += max(size, 0)
    assert at == len(array)
    return oid, values


# Memory.


def test_every_allocation_may_fail() -> None:
    contents = [content(1 + at % 3, f"{at}", extension_id=at % 5) for at in range(100)]
    decks = {tenant_id: deck() for tenant_id in (1, 2, 3)}

    def attempt() -> bytes:
        records = records_of(contents).part(0, 90)
        order = in_key_order(records)
        rate_records(records, order, decks)
        return copy_data(records, order, 1, 0, 0)

    expected = attempt()
    made, count = each_allocation_fails(attempt)
    assert count > 10
    assert made == expected
