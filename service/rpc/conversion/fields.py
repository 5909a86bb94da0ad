"""Single fields, for all messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.service.domain.errors import FieldViolation, invalid_field, invalid_fields
from tollwire.service.domain.model import MAX_TIMESTAMP_NS, MIN_TIMESTAMP_NS
from tollwire.service.domain.money import parse_price

E = TypeVar("E", bound=IntEnum)

NS = 10**9
_MIN_SECONDS = MIN_TIMESTAMP_NS // NS
_MAX_SECONDS = MAX_TIMESTAMP_NS // NS
REQUIRED = "is required"
_JSON_NAME = re.compile("_([a-z])")


class Violations(list[FieldViolation]):
    """The violations found in one request."""

    def add(self, field: str, description: str) -> None:
        self.append(FieldViolation(field, description))

    def merge(self, found: Iterable[FieldViolation], prefix: str = "") -> None:
        """Add violations that a subject found, except in fields that have one already: a field that
        could not be read has a placeholder value, which is not worth checking."""
        known = {violation.field for violation in self}
        for violation in found:
            field = prefix + violation.field
            if field not in known:
                self.add(field, violation.description)

    def drop_unchanged(self, changed: Iterable[str], prefix: str) -> None:
        """Remove the violations in fields of a resource that an update does not change."""
        roots = tuple(prefix + field for field in changed)
        self[:] = [
            violation
            for violation in self
            if not violation.field.startswith(prefix) or violation.field.partition("[")[0] in roots
        ]

    def raise_if_any(self) -> None:
        """Raise InvalidInput with all violations, if there are any."""
        if self:
            raise invalid_fields(self)


def members(kind: type[E]) -> dict[int, E]:
    """The members of an enum by their numbers on the wire."""
    return {member.value: member for member in kind}


def enum(
    number: int, known: Mapping[int, E], what: str, field: str, violations: Violations, stand_in: E
) -> E:
    """The member with this number. 0 and unknown numbers are violations and give ``stand_in``."""
    member = known.get(number)
    if member is not None:
        return member
    if number == 0:
        names = ", ".join(member.name for member in known.values())
        violations.add(field, f"{REQUIRED}: one of {names}")
    else:
        violations.add(field, f"unknown {what} {number}")
    return stand_in


def price_e8(
    text: str, field: str, violations: Violations, *, default_e8: int | None = None
) -> int:
    """A price, scaled by 10**8. An empty text gives the default, or is a violation without one."""
    if not text:
        if default_e8 is None:
            violations.add(field, f"{REQUIRED}: a decimal number such as 0.0120")
        return default_e8 or 0
    try:
        return parse_price(text)
    except ValueError as error:
        violations.add(field, str(error))
        return 0


def time_ns(stamp: Timestamp, field: str, violations: Violations) -> int:
    """A timestamp that is set, in nanoseconds since the Unix epoch, exact."""
    seconds, nanos = stamp.seconds, stamp.nanos
    if not 0 <= nanos < NS:
        violations.add(field, f"nanos must be 0 to 999999999, got {nanos}")
        return 0
    if not _MIN_SECONDS <= seconds <= _MAX_SECONDS:
        violations.add(
            field,
            f"must be 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z, got {seconds} seconds"
            " since 1970",
        )
        return 0
    return seconds * NS + nanos


def timestamp(time_ns: int | None) -> Timestamp | None:
    """The inverse of ``time_ns``; None is an unset field."""
    if time_ns is None:
        return None
    seconds, nanos = divmod(time_ns, NS)
    return Timestamp(seconds=seconds, nanos=nanos)


def required_id(given: int, field: str) -> int:
    """An id that a request must have. InvalidInput if it is not above 0."""
    if given <= 0:
        raise invalid_field(field, REQUIRED if given == 0 else f"must be above 0, got {given}")
    return given


def etag(given: str, field: str, violations: Violations) -> str:
    if "\0" in given:
        violations.add(field, "must not contain the NUL character")
    return given


def own_id(given: int, field: str, violations: Violations) -> None:
    """Check the id of a resource to update."""
    if given <= 0:
        violations.add(field, REQUIRED if given == 0 else f"must be above 0, got {given}")


def changed(
    paths: Sequence[str], updatable: Sequence[str], violations: Violations
) -> frozenset[str]:
    """The fields that an update mask names, also by their JSON names ("costPerMinute"). An empty
    mask and "*" mean all updatable fields."""
    by_json_name = {_JSON_NAME.sub(lambda m: m[1].upper(), name): name for name in updatable}
    paths = [by_json_name.get(path, path) for path in paths]
    unknown = [path for path in paths if path != "*" and path not in updatable]
    if unknown:
        shown = ", ".join(repr(path[:40]) for path in unknown[:5])
        violations.add(
            "update_mask", f"{shown} cannot be updated; use {', '.join(updatable)}, or * for all"
        )
    if not paths or "*" in paths:
        return frozenset(updatable)
    return frozenset(updatable).intersection(paths)


def set_in(message: Message, names: Iterable[str]) -> frozenset[str]:
    """The fields of ``names`` that are set."""
    return frozenset(names).intersection(field.name for field, _ in message.ListFields())
