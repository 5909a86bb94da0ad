"""Values of the wire's types, read from text."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.conftest import unused_address
from tollwire.service.cli import values
from tollwire.service.cli.main import main


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [
        ("1970-01-01T00:00:00Z", 0, 0),
        ("1969-12-31T23:59:59.5Z", -1, 500_000_000),
        ("2026-03-01T08:30:00+01:00", 1_772_350_200, 0),
        ("2026-03-01 08:30:00-00:30", 1_772_355_600, 0),
        ("2026-03-01t07:30:00.000000001z", 1_772_350_200, 1),
        (" 2026-03-01T07:30:00.123456789Z ", 1_772_350_200, 123_456_789),
        ("0001-01-01T00:00:00Z", -62_135_596_800, 0),
        ("9999-12-31T23:59:59Z", 253_402_300_799, 0),
    ],
)
def test_times(text: str, seconds: int, nanos: int) -> None:
    time = values.read_time(text)
    assert (time.seconds, time.nanos) == (seconds, nanos)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-03-01",
        "2026-03-01T08:30:00",  # no zone, so the instant is unknown
        "2026-03-01T08:30Z",
        "2026-02-29T00:00:00Z",
        "2026-03-01T24:00:00Z",
        "2026-03-01T08:30:60Z",
        "2026-03-01T08:30:00.1234567890Z",
        "2026-03-01T08:30:00+24:00",
        "２026-03-01T08:30:00Z",
        "1772350200",
    ],
)
def test_texts_that_are_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        values.read_time(text)


@given(st.datetimes(timezones=st.timezones(), allow_imaginary=False))
def test_times_equal_those_of_the_standard_library(moment: datetime) -> None:
    # The standard library writes offsets of the 19th century with seconds; RFC 3339 has none.
    if moment.utcoffset().total_seconds() % 60:  # type: ignore[union-attr]
        return
    try:
        expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // (moment.resolution)
    except OverflowError:
        return
    time = values.read_time(moment.isoformat())
    assert time.seconds * 1_000_000 + time.nanos // 1_000 == expected


def test_a_date_is_its_midnight() -> None:
    assert values.read_time_or_date("2026-03-01").ToJsonString() == "2026-03-01T00:00:00Z"
    berlin = values.read_time_or_date("2026-07-01", ZoneInfo("Europe/Berlin"))
    assert berlin.ToJsonString() == "2026-06-30T22:00:00Z"
    with pytest.raises(ValueError):
        values.read_time_or_date("2026-02-30")


@pytest.mark.parametrize(
    ("text", "bits", "expected"), [(" 60 ", 32, 60), ("-1", 32, -1), ("2147483648", 64, 2**31)]
)
def test_integers(text: str, bits: int, expected: int) -> None:
    assert values.read_integer(text, bits) == expected


@pytest.mark.parametrize("text", ["", "1.0", "1e3", "1_000", "1,000", "2147483648", "٣", "x"])
def test_texts_that_are_no_integer(text: str) -> None:
    with pytest.raises(ValueError):
        values.read_integer(text, 32)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("true", True), ("YES", True), ("1", True), ("False", False), ("0", False), ("", False)],
)
def test_booleans(text: str, expected: bool) -> None:
    assert values.read_boolean(text) is expected


def test_texts_that_are_no_boolean() -> None:
    with pytest.raises(ValueError, match="yes or no"):
        values.read_boolean("on")


@pytest.mark.parametrize(
    "text", ["NO_ANSWER", "no_answer", "No-Answer", "no answer", "DISPOSITION_NO_ANSWER"]
)
def test_enums(text: str) -> None:
    assert values.read_enum(values.DISPOSITION, text) == 2


@pytest.mark.parametrize("text", ["", "UNSPECIFIED", "DISPOSITION_UNSPECIFIED", "2", "RANG"])
def test_texts_that_are_no_enum(text: str) -> None:
    with pytest.raises(ValueError, match="ANSWERED, NO_ANSWER"):
        values.read_enum(values.DISPOSITION, text)


def test_names_of_enums() -> None:
    names = {enum.name: list(values.enum_names(enum)) for enum in (values.ROUNDING,)}
    assert names == {"Rounding": ["HALF_UP", "HALF_EVEN", "UP", "DOWN"]}
    assert values.enum_name(values.RATING_STATUS, 2) == "NOT_BILLABLE"
    assert values.enum_name(values.RATING_STATUS, 0) == ""
    assert values.enum_name(values.RATING_STATUS, 77) == "77"


@pytest.mark.parametrize(
    "command",
    [
        ("ledger", "verify", "--root"),
        ("rates", "delete", "7", "--yes", "--etag"),
        ("rates", "update", "7", "--destination", "UK", "--etag"),
        ("cdrs", "reverse", "--reason", "wrong", "--yes", "--tenant", "1", "--extension-number"),
        ("cdrs", "export", "--call-id"),
    ],
)
@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_text_does_not_turn_a_check_off(command: tuple[str, ...], empty: str) -> None:
    result = CliRunner().invoke(main, [*command, empty, "--server", unused_address()])
    assert result.exit_code == 2, result.output
    assert f"{command[-1]}: must not be empty" in result.stderr.replace("'", "")
