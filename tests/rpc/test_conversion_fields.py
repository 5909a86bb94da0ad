"""Reading single fields: exact times, exact money, masks."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from tollwire.service.domain.errors import FieldViolation, InvalidInput
from tollwire.service.domain.model import MAX_TIMESTAMP_NS, MIN_TIMESTAMP_NS, Direction
from tollwire.service.rpc.conversion import fields
from tollwire.service.rpc.conversion.fields import Violations


@given(st.integers(MIN_TIMESTAMP_NS, MAX_TIMESTAMP_NS))
@example(MIN_TIMESTAMP_NS)
@example(MAX_TIMESTAMP_NS)
@example(-1)
@example(0)
def test_times_are_exact_both_ways(time_ns: int) -> None:
    violations = Violations()
    stamp = fields.timestamp(time_ns)
    assert stamp is not None
    assert 0 <= stamp.nanos < 10**9
    assert fields.time_ns(stamp, "at", violations) == time_ns
    assert violations == []


def test_an_unset_time_stays_unset() -> None:
    assert fields.timestamp(None) is None


@pytest.mark.parametrize(
    ("seconds", "nanos", "words"),
    [
        (0, -1, "nanos must be 0 to 999999999, got -1"),
        (0, 10**9, "nanos must be 0 to 999999999, got 1000000000"),
        (0, -(2**31), "nanos"),
        (-62_135_596_801, 0, "must be 0001-01-01T00:00:00Z to"),
        (253_402_300_800, 0, "must be 0001-01-01T00:00:00Z to"),
        (2**63 - 1, 999_999_999, "must be 0001"),
        (-(2**63), 0, "must be 0001"),
    ],
)
def test_a_time_outside_the_calendar_is_wrong(seconds: int, nanos: int, words: str) -> None:
    violations = Violations()
    fields.time_ns(Timestamp(seconds=seconds, nanos=nanos), "rate.effective_from", violations)
    assert [violation.field for violation in violations] == ["rate.effective_from"]
    assert words in violations[0].description


@pytest.mark.parametrize(
    ("text", "price_e8"),
    [("0", 0), ("0.012", 120_0000), ("99999999.99999999", 9_999_999_999_999_999)],
)
def test_money(text: str, price_e8: int) -> None:
    violations = Violations()
    assert fields.price_e8(text, "cost", violations) == price_e8
    assert violations == []


@pytest.mark.parametrize(
    "text",
    [
        "-1",
        "1e3",
        "1,000",
        "1.234567891",
        "1.0000000001",
        ".5",
        "5.",
        " 1",
        "٣",
        "100000000",
        "NaN",
    ],
)
def test_texts_that_are_no_money(text: str) -> None:
    violations = Violations()
    fields.price_e8(text, "rate.connect_fee", violations, default_e8=0)
    assert [violation.field for violation in violations] == ["rate.connect_fee"]


def test_empty_money_is_the_default_or_wrong() -> None:
    violations = Violations()
    assert fields.price_e8("", "connect_fee", violations, default_e8=0) == 0
    assert violations == []
    fields.price_e8("", "cost_per_minute", violations)
    assert [violation.field for violation in violations] == ["cost_per_minute"]


def test_enums() -> None:
    violations = Violations()
    known = fields.members(Direction)
    for member in Direction:
        found = fields.enum(member.value, known, "direction", "d", violations, Direction.INBOUND)
        assert found is member
    assert violations == []
    for number in (0, 4, 99, -1):
        fields.enum(number, known, "direction", "d", violations, Direction.INBOUND)
    assert violations == [
        FieldViolation("d", "is required: one of INBOUND, OUTBOUND, INTERNAL"),
        FieldViolation("d", "unknown direction 4"),
        FieldViolation("d", "unknown direction 99"),
        FieldViolation("d", "unknown direction -1"),
    ]


@pytest.mark.parametrize(
    ("paths", "changed"),
    [
        ([], {"name", "number"}),
        (["*"], {"name", "number"}),
        (["name", "*"], {"name", "number"}),
        (["name"], {"name"}),
        (["name", "number", "name"], {"name", "number"}),
    ],
)
def test_masks(paths: list[str], changed: set[str]) -> None:
    violations = Violations()
    assert fields.changed(paths, ("name", "number"), violations) == changed
    assert violations == []


@pytest.mark.parametrize("path", ["", "id", "name.x", "Name", "*.name", " name", "x" * 10_000])
def test_a_path_that_cannot_be_updated_is_wrong(path: str) -> None:
    violations = Violations()
    fields.changed(["name", path, "*"], ("name", "number"), violations)
    assert [violation.field for violation in violations] == ["update_mask"]
    assert len(violations[0].description) < 200


def test_violations_of_unreadable_fields_are_left_out() -> None:
    violations = Violations()
    violations.add("rate.intervals[1].cost_per_minute", "is no number")
    violations.merge(
        [
            FieldViolation("intervals[1].cost_per_minute", "is too small"),
            FieldViolation("intervals[1].start_seconds", "must rise"),
            FieldViolation("prefix", "is no prefix"),
            FieldViolation("prefix", "is too long"),
        ],
        "rate.",
    )
    with pytest.raises(InvalidInput) as refused:
        violations.raise_if_any()
    assert [violation.field for violation in refused.value.violations] == [
        "rate.intervals[1].cost_per_minute",
        "rate.intervals[1].start_seconds",
        "rate.prefix",
        "rate.prefix",
    ]
    assert refused.value.message.startswith(
        "rate.intervals[1].cost_per_minute: is no number; rate.intervals[1].start_seconds: must"
    )


def test_no_violation_raises_nothing() -> None:
    Violations().raise_if_any()
