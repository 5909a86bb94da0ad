"""Converts texts of the command line and of files to values of the wire, and back.

Readers raise ValueError with a sentence that says what is expected. They check only the types of
the wire; the server checks the values.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from functools import cache
from typing import Any

import click
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.v1 import types_pb2

DIRECTION: EnumDescriptor = types_pb2.Direction.DESCRIPTOR
DISPOSITION: EnumDescriptor = types_pb2.Disposition.DESCRIPTOR
RATING_STATUS: EnumDescriptor = types_pb2.RatingStatus.DESCRIPTOR
UNRATED_REASON: EnumDescriptor = types_pb2.UnratedReason.DESCRIPTOR
ROUNDING: EnumDescriptor = types_pb2.Rounding.DESCRIPTOR
IMPORT_MODE: EnumDescriptor = types_pb2.ImportMode.DESCRIPTOR
LEDGER_ENTRY_KIND: EnumDescriptor = types_pb2.LedgerEntryKind.DESCRIPTOR
USAGE_DIMENSION: EnumDescriptor = types_pb2.UsageDimension.DESCRIPTOR

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_RFC_3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?"
    r"(?:[Zz]|([+-])(\d{2}):(\d{2}))",
    re.ASCII,
)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no", "")


def read_integer(text: str, bits: int) -> int:
    """The whole number in ``text``. It must fit a signed integer with this number of bits."""
    text = text.strip()
    if _INTEGER.fullmatch(text) is None:
        raise ValueError(f"must be a whole number, got {text!r}")
    value = int(text)
    if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise ValueError(f"does not fit {bits} bits: {text}")
    return value


def read_boolean(text: str) -> bool:
    """true/false, 1/0 or yes/no in any case; an empty text is false."""
    word = text.strip().lower()
    if word not in _TRUE + _FALSE:
        raise ValueError(f"must be true or false, 1 or 0, yes or no, got {text!r}")
    return word in _TRUE


@cache
def _days(text: str) -> int:
    """The days from 1970-01-01 to a date."""
    return date.fromisoformat(text).toordinal() - _EPOCH.toordinal()


def read_time(text: str) -> Timestamp:
    """The instant in an RFC 3339 text such as 2026-03-01T08:30:00+01:00, to the nanosecond."""
    match = _RFC_3339.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"must be a time with its zone, such as 2026-03-01T08:30:00Z"
            f" or 2026-03-01T08:30:00+01:00, got {text!r}"
        )
    day, hour, minute, second, fraction, sign, zone_hours, zone_minutes = match.groups()
    of_day = time(int(hour), int(minute), int(second))  # refuses 24:00 and leap seconds
    seconds = _days(day) * 86_400 + of_day.hour * 3600 + of_day.minute * 60 + of_day.second
    if sign is not None:
        offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
        timezone(offset)  # refuses offsets of a day or more
        seconds += (1 if sign == "-" else -1) * int(offset.total_seconds())
    return Timestamp(seconds=seconds, nanos=int((fraction or "0").ljust(9, "0")))


def read_time_or_date(text: str, zone: tzinfo = UTC) -> Timestamp:
    """As ``read_time``, and a date such as 2026-03-01 is its midnight in ``zone``."""
    if _DATE.fullmatch(text.strip()) is None:
        return read_time(text)
    midnight = datetime.combine(date.fromisoformat(text.strip()), time(), zone)
    return Timestamp(seconds=(midnight - _EPOCH) // timedelta(seconds=1))


def write_time(moment: Timestamp) -> str:
    """The time as RFC 3339 in UTC, with as many decimals as necessary."""
    return moment.ToJsonString()


# Costs have 4 to 8 decimals, a setting of the tenant.
_SCALE = 8


def scaled(money: str) -> int:
    """An amount of money in 10^-8 of its currency, to compare amounts of any number of decimals."""
    whole, _, decimals = money.partition(".")
    return int(f"{whole or 0}{decimals.ljust(_SCALE, '0')}")


def add_money(one: str, other: str) -> str:
    """The exact sum of two amounts, with the larger number of decimals."""
    decimals = max(len(amount.partition(".")[2]) for amount in (one, other))
    total = (scaled(one) + scaled(other)) // 10 ** (_SCALE - decimals)
    digits = str(abs(total)).rjust(decimals + 1, "0")
    sign = "-" if total < 0 else ""
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}" if decimals else f"{sign}{digits}"


@cache
def enum_names(enum: EnumDescriptor) -> dict[str, int]:
    """The names of an enum's values without their common prefix; UNSPECIFIED is left out."""
    # The prefix as in protobuf's style guide: RatingStatus -> RATING_STATUS_.
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper() + "_"
    return {v.name.removeprefix(prefix): v.number for v in enum.values if v.number != 0}


def read_enum(enum: EnumDescriptor, text: str) -> int:
    """The number of the value with this name, in upper or lower case, with or without prefix."""
    names = enum_names(enum)
    word = text.strip().upper().replace("-", "_").replace(" ", "_")
    if word in names:
        return names[word]
    by_full_name = enum.values_by_name.get(word)
    if by_full_name is not None and by_full_name.number != 0:
        return by_full_name.number
    raise ValueError(f"must be one of {', '.join(names)}, got {text!r}")


def enum_name(enum: EnumDescriptor, number: int) -> str:
    """The short name of a value: "" for UNSPECIFIED, the number if the value is unknown."""
    if number == 0:
        return ""
    return next((name for name, n in enum_names(enum).items() if n == number), str(number))


class EnumParameter(click.ParamType[int]):
    """An option that takes the name of an enum's value."""

    def __init__(self, enum: EnumDescriptor) -> None:
        self.enum = enum
        self.name = enum.name.lower()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return read_enum(self.enum, value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "[" + "|".join(enum_names(self.enum)).lower().replace("_", "-") + "]"


class TimeParameter(click.ParamType[Timestamp]):
    """An option that takes a time, or a date for its midnight in UTC."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Timestamp:
        if isinstance(value, Timestamp):
            return value
        try:
            return read_time_or_date(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class GivenText(click.ParamType[str]):
    """An option that takes a text that is not empty: an empty one, as from an unset variable of a
    script, would silently turn off what the option demands."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not text.strip():
            self.fail("must not be empty; leave the option out instead", param, ctx)
        return text


class IntegerParameter(click.ParamType[int]):
    """An option that takes a whole number of the wire's types, or an id, which is above 0."""

    def __init__(self, name: str, bits: int, lowest: int | None = None) -> None:
        self.name = name
        self._bits = bits
        self._lowest = lowest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = read_integer(str(value), self._bits)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if self._lowest is not None and number < self._lowest:
            self.fail(f"must be {self._lowest} or more, got {number}", param, ctx)
        return number


GIVEN_TEXT = GivenText()
TIME = TimeParameter()
ID = IntegerParameter("id", 64, lowest=1)
INT32 = IntegerParameter("integer", 32)
INT64 = IntegerParameter("integer", 64)
