"""The digest of new and of stored rows, against an independent packing."""

from __future__ import annotations

import hashlib
import struct
from array import array
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratingcore.record.key_order import split
from ratingcore.record.records import records_of
from ratingcore.record.row_digest import digest_of_new, digest_of_stored, set_unrated
from ratingcore.record.rows import RowTuples, copy_data
from ratingcore.record.stored_rows import STORED_FIELDS, StoredRows, read_copy, read_tuples
from tests.core.contents import LISTS, content, rated
from tests.examples import examples

if TYPE_CHECKING:
    from ratingcore.record.values import Content

Row = dict[str, Any]
UPLOAD_IDS = st.sampled_from([0, 1, 2**63 - 1])
FIRST_IDS = st.sampled_from([1, 255, 2**62])
CREATED_AT_NS = 1_795_000_000_123_456_789
INTEGERS = (
    *("id", "tenant_id", "extension_id", "direction", "disposition", "duration_seconds"),
    *("started_at_ns", "ended_at_ns", "status", "unrated_reason", "bill_seconds", "cost_units"),
    *("cost_fraction_e8", "rate_version_id", "rate_revision", "upload_id", "created_at_ns"),
    "generation",
)
TEXTS = ("call_id", "caller_number", "destination_number")


def stored_rows(contents: list[Content | None], first_id: int, upload_id: int) -> list[Row]:
    records, order = rated(contents)
    new, _, _ = split(records, order)
    names = [name for name, _ in STORED_FIELDS]
    return [
        dict(zip(names, (first_id + at, *row), strict=True))
        for at, row in enumerate(RowTuples(records, new, upload_id, CREATED_AT_NS))
    ]


def expected_digest(rows: list[Row]) -> bytes:
    """The digest as an auditor computes it, from the columns of the table alone."""
    data = bytearray(b"tollwire.cdrs.2")
    for name in INTEGERS:
        for row in rows:
            if row[name] is None:
                data += struct.pack("<q", -1 if name == "ended_at_ns" else 0)
            else:
                data += struct.pack("<q", row[name])
    for name in TEXTS:
        for row in rows:
            data += row[name].encode() + b"\0"
    return hashlib.sha256(data).digest()


def read(rows: list[Row]) -> StoredRows:
    return read_tuples(tuple(row.values()) for row in rows)


@examples(75)
@given(LISTS, FIRST_IDS, UPLOAD_IDS)
def test_new_rows(contents: list[Content | None], first_id: int, upload_id: int) -> None:
    records, order = rated(contents)
    new, _, _ = split(records, order)
    digest = digest_of_new(records, new, first_id, upload_id, CREATED_AT_NS)
    assert digest == expected_digest(stored_rows(contents, first_id, upload_id))
    copied = read_copy(copy_data(records, new, first_id, upload_id, CREATED_AT_NS))
    assert digest_of_stored(copied, 0, len(copied)) == digest


@examples(75)
@given(LISTS, FIRST_IDS, UPLOAD_IDS, st.data())
def test_stored_rows(
    contents: list[Content | None], first_id: int, upload_id: int, data: st.DataObject
) -> None:
    rows = stored_rows(contents, first_id, upload_id)
    begin = data.draw(st.integers(0, len(rows)))
    end = data.draw(st.integers(begin, len(rows)))
    assert digest_of_stored(read(rows), begin, end) == expected_digest(rows[begin:end])


def test_a_chunk() -> None:
    contents: list[Content | None] = [
        content(1 + at % 2, f"{at}", caller_number="7" * (at % 40), extension_id=at % 5)
        for at in range(10_000)
    ]
    records, order = rated(contents)
    digest = digest_of_new(records, order, 5, 9, CREATED_AT_NS)
    assert digest == expected_digest(stored_rows(contents, 5, 9))


OTHER: Row = {
    **dict.fromkeys(("tenant_id", "disposition"), 2),
    "direction": 1,
    **dict.fromkeys(("extension_id", "ended_at_ns", "duration_seconds", "started_at_ns"), 5),
    **dict.fromkeys(("bill_seconds", "cost_units", "rate_version_id", "rate_revision"), 77),
    **dict.fromkeys(("cost_fraction_e8", "upload_id", "created_at_ns", "id"), 78),
    **dict.fromkeys(("call_id", "caller_number", "destination_number"), "x"),
    "generation": 1,
}


@pytest.mark.parametrize("name", list(OTHER))
def test_each_field_counts(name: str) -> None:
    call = content(1, "a", caller_number="b", destination_number="44", direction=2, disposition=1)
    rows = stored_rows([call], 1, 3)
    changed = [{**rows[0], name: OTHER[name]}]
    assert not read(changed).misfits
    before = digest_of_stored(read(rows), 0, 1)
    assert digest_of_stored(read(changed), 0, 1) != before


def expected_digest_of_format_1(rows: list[Row]) -> bytes:
    """The cost was one number, in ten-thousandths, and calls had no generation."""
    data = bytearray(b"tollwire.cdrs.1")
    for name in INTEGERS[:-1]:
        for row in rows:
            if name == "cost_units":
                cost_e4 = (row[name] or 0) * 10_000 + (row["cost_fraction_e8"] or 0) // 10_000
                data += struct.pack("<Q", cost_e4)
            elif name != "cost_fraction_e8":
                data += struct.pack("<q", row[name] or (-1 if name == "ended_at_ns" else 0))
    for name in TEXTS:
        for row in rows:
            data += row[name].encode() + b"\0"
    return hashlib.sha256(data).digest()


def test_the_format_of_older_entries() -> None:
    calls: list[Content | None] = [
        content(1, f"{at}", destination_number=number, ended_at_ns=at + 5)
        for at, number in enumerate(("44", "33", "x", "46"))
    ]
    rows = stored_rows(calls, 7, 3)
    for row in rows:
        if row["cost_units"] is not None:
            row["cost_fraction_e8"] = 40_0000
    rows[0] |= {"cost_units": 10**15 - 1, "cost_fraction_e8": 9999_0000}
    read_back = read(rows)
    for begin, end in ((0, 4), (1, 3), (2, 2)):
        expected = expected_digest_of_format_1(rows[begin:end])
        assert digest_of_stored(read_back, begin, end, 1) == expected
        assert digest_of_stored(read_back, begin, end, 2) == expected_digest(rows[begin:end])
    with pytest.raises(ValueError, match="no format 3"):
        digest_of_stored(read_back, 0, 1, 3)


@pytest.mark.parametrize("changed", [{"cost_fraction_e8": 400_001}, {"generation": 1}])
def test_values_that_the_format_of_older_entries_cannot_hold(changed: Row) -> None:
    rows = stored_rows([content(1, "a"), content(1, "b")], 1, 0)
    for row in rows:
        row["cost_fraction_e8"] = 40_0000
    assert digest_of_stored(read(rows), 0, 2, 1)
    rows[1] |= changed
    assert digest_of_stored(read(rows), 0, 2, 1) == b""
    assert digest_of_stored(read(rows), 0, 1, 1)


def test_no_text_runs_into_the_next() -> None:
    digests = set()
    for caller, called in (("12", "3"), ("1", "23"), ("123", ""), ("", "123")):
        rows = stored_rows([content(1, "a", caller_number=caller, destination_number=called)], 1, 0)
        rows[0] |= {"status": 3, "unrated_reason": 1}
        rows[0] |= dict.fromkeys(
            ("bill_seconds", "cost_units", "cost_fraction_e8", "rate_version_id")
        )
        digests.add(digest_of_stored(read(rows), 0, 1))
    assert len(digests) == 4


def test_a_call_that_was_priced_late_is_hashed_as_unrated() -> None:
    rows = stored_rows([content(1, "a", destination_number="44")], 1, 0)
    assert rows[0]["status"] == 1
    rows += stored_rows([content(1, "b", destination_number="33")], 2, 0)
    assert rows[1]["status"] == 3
    unrated = {name: rows[1][name] for name in rows[1] if name not in ("id", "call_id")}
    priced = read(rows)
    set_unrated(priced.records, 0, 2, 1)
    was = unrated | {
        "unrated_reason": 2,
        "rate_revision": 1,
        "destination_number": rows[0]["destination_number"],
    }
    expected = expected_digest([{**rows[0], **was}, rows[1]])
    assert digest_of_stored(priced, 0, 2) == expected
    with pytest.raises(IndexError):
        set_unrated(priced.records, 2, 2, 1)


def test_absent_fields() -> None:
    records = records_of([content(), None])
    for positions in (array("I", [0, 1]), array("I", [2])):
        with pytest.raises(ValueError, match="no good call"):
            digest_of_new(records, positions, 1, 0, 0)
    stored = read(stored_rows([content()], 1, 0))
    for begin, end in ((0, 2), (1, 0), (2, 2)):
        with pytest.raises(IndexError):
            digest_of_stored(stored, begin, end)
