"""Calls in, ratings out.

What rates calls from their bytes (ratingcore.wire) comes here only for the exceptions; CreateCdr
comes here for every call. ``read_call`` and ``write_rated`` touch each field once and build nothing
they do not need.
"""

from __future__ import annotations

from collections.abc import Sequence

from tollwire.service.domain.errors import FieldViolation, Reason, invalid_field
from tollwire.service.domain.model import (
    MAX_BATCH_CALLS,
    MAX_CALL_ID_CHARS,
    MAX_DURATION_SECONDS,
    BadCall,
    Call,
    Direction,
    Disposition,
    Explanation,
    RatedCall,
)
from tollwire.service.domain.money import format_cost, format_price
from tollwire.service.rating.calls import check_call, resolve_duration
from tollwire.service.rpc.conversion import fields
from tollwire.service.rpc.conversion.fields import REQUIRED, Violations
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1 import types_pb2

# Of an explanation in an error's details.
MAX_CONSIDERED = 50
MAX_STEP_CHARS = 60

MAX_UNREADABLE_MESSAGE_CHARS = 1_000

UNEXPLAINED = "the record breaks a rule of which this server cannot say which one it is"
_DIRECTIONS = fields.members(Direction)
_DISPOSITIONS = fields.members(Disposition)
# To the stubs' own types of enum numbers, which are plain integers when the program runs.
_status = types_pb2.RatingStatus.ValueType
_reason = types_pb2.UnratedReason.ValueType


def required_call(message: types_pb2.Call, *, present: bool, now_ns: int | None) -> Call:
    """The one call of a request, in its field "call". InvalidInput with all that is wrong."""
    if not present:
        raise invalid_field("call", REQUIRED)
    call, found = read_call(message, now_ns)
    if found:
        violations = Violations()
        violations.merge(found, "call.")
        violations.raise_if_any()
    return call


def read_calls(messages: Sequence[types_pb2.Call], *, now_ns: int | None) -> list[Call | BadCall]:
    """The calls of a batch, in the field "calls", in order. A bad one is no reason to refuse the
    others; too many are."""
    check_count(len(messages))
    return [_call_or_bad(message, now_ns) for message in messages]


def check_count(calls: int) -> None:
    """InvalidInput where a message has too many calls."""
    if calls > MAX_BATCH_CALLS:
        raise invalid_field("calls", f"at most {MAX_BATCH_CALLS} in one message, got {calls}")


def _call_or_bad(message: types_pb2.Call, now_ns: int | None) -> Call | BadCall:
    call, found = read_call(message, now_ns)
    return _bad(message, found) if found else call


def bad_call(data: bytes) -> BadCall:
    """What is wrong with a call, given as its bytes, that breaks a rule of those to be recorded.

    The core says that it breaks one. Should nothing be found wrong with it here, it is refused all
    the same: a record that is kept as it was sent is safer than a chunk that fails.
    """
    message = types_pb2.Call.FromString(data)
    if message.HasField("unreadable"):
        return _unreadable(message)
    _, found = read_call(message, now_ns=None)
    return _bad(message, found or [FieldViolation("", UNEXPLAINED)])


def _bad(message: types_pb2.Call, found: Sequence[FieldViolation]) -> BadCall:
    call_id = message.call_id
    if len(call_id) > MAX_CALL_ID_CHARS or "\0" in call_id:
        call_id = ""
    first = found[0]
    return BadCall(
        field=first.field,
        message=first.description,
        call_id=call_id,
        duration_seconds=_usable_seconds(message),
    )


def _unreadable(message: types_pb2.Call) -> BadCall:
    """A record that its sender could not read."""
    record = message.unreadable
    # NUL is left out before the message is judged: no text that is stored has it.
    said = record.message.replace("\0", "")[:MAX_UNREADABLE_MESSAGE_CHARS]
    said = said or "the sender could not read the record"
    return BadCall(
        field="",
        message=f"line {record.line}: {said}" if record.line > 0 else said,
        reason=Reason.UNREADABLE_RECORD,
        duration_seconds=_usable_seconds(message),
    )


def _usable_seconds(message: types_pb2.Call) -> int:
    """What a call that is refused adds to an upload's control totals: 0 where it has no duration
    that a call may have."""
    seconds = 0
    if message.HasField("duration_seconds"):
        seconds = message.duration_seconds
    elif message.HasField("started_at") and _has_end(message):
        violations = Violations()
        started_at_ns = fields.time_ns(message.started_at, "started_at", violations)
        ended_at_ns = fields.time_ns(message.ended_at, "ended_at", violations)
        seconds = 0 if violations else (ended_at_ns - started_at_ns) // fields.NS
    return seconds if 0 <= seconds <= MAX_DURATION_SECONDS else 0


def _has_end(message: types_pb2.Call) -> bool:
    """Whether a call says when it ended. Switches send the epoch where they have no end."""
    return message.HasField("ended_at") and bool(message.ended_at.seconds or message.ended_at.nanos)


def read_call(message: types_pb2.Call, now_ns: int | None) -> tuple[Call, Sequence[FieldViolation]]:
    """The call and what is wrong with it, by paths from the call itself. Where anything is wrong
    the call is not to be used. ``now_ns`` stands in for a missing started_at; None: required."""
    violations = Violations()
    if message.HasField("unreadable"):
        violations.add("unreadable", "is only for calls of UploadCdrs; leave it unset")
    direction = _DIRECTIONS.get(message.direction)
    if direction is None:
        direction = fields.enum(
            message.direction, _DIRECTIONS, "direction", "direction", violations, Direction.OUTBOUND
        )
    disposition = _DISPOSITIONS.get(message.disposition)
    if disposition is None:
        disposition = fields.enum(
            message.disposition,
            _DISPOSITIONS,
            "disposition",
            "disposition",
            violations,
            Disposition.ANSWERED,
        )
    if message.HasField("started_at"):
        started_at_ns = fields.time_ns(message.started_at, "started_at", violations)
    elif now_ns is not None:
        started_at_ns = now_ns
    else:
        started_at_ns = 0
        violations.add("started_at", REQUIRED)
    ended_at_ns = None
    if _has_end(message):
        ended_at_ns = fields.time_ns(message.ended_at, "ended_at", violations)
    duration_seconds = resolve_duration(
        message.duration_seconds if message.HasField("duration_seconds") else None,
        started_at_ns,
        ended_at_ns,
    )
    if duration_seconds is None:
        duration_seconds = 0
        violations.add("duration_seconds", f"{REQUIRED} where ended_at is not given")
    call = Call(
        tenant_id=message.tenant_id,
        destination_number=message.destination_number,
        direction=direction,
        disposition=disposition,
        duration_seconds=duration_seconds,
        started_at_ns=started_at_ns,
        ended_at_ns=ended_at_ns,
        extension_id=message.extension_id,
        caller_number=message.caller_number,
        call_id=message.call_id,
        occurrence=message.occurrence,
    )
    found = check_call(call)
    if not violations:
        return call, found
    violations.merge(found)
    return call, violations


def write_rated(rated: RatedCall, message: types_pb2.RatedCall) -> None:
    """Fills ``message``, which must be empty."""
    message.status = _status(rated.status)
    if rated.call_id:
        message.call_id = rated.call_id
    if rated.cost_e8 is not None:
        message.cost = format_cost(rated.cost_e8, rated.cost_decimals)
    if rated.bill_seconds is not None:
        message.bill_seconds = rated.bill_seconds
    if rated.unrated_reason is not None:
        message.unrated_reason = _reason(rated.unrated_reason)
    if rated.rate_id:
        message.rate_id = rated.rate_id
        message.matched_prefix = rated.matched_prefix
        message.destination = rated.destination
        message.billing_increment = rated.billing_increment
        if rated.cost_per_minute_e8 is not None:
            message.cost_per_minute = format_price(rated.cost_per_minute_e8)
    message.rate_revision = rated.rate_revision
    if rated.error is not None:
        message.error.reason = rated.error.reason
        message.error.field = rated.error.field
        message.error.message = rated.error.message


def explanation(found: Explanation) -> pb.Explanation:
    return pb.Explanation(
        normalized_number=found.normalized_number,
        considered=[
            pb.ConsideredRate(
                rate_id=rate.rate_id,
                prefix=rate.prefix,
                destination=rate.destination,
                effective_from=fields.timestamp(rate.effective_from_ns),
                effective_to=fields.timestamp(rate.effective_to_ns),
                won=rate.won,
                reason=rate.reason,
                blocked=rate.blocked,
                in_effect=rate.in_effect,
            )
            for rate in found.considered
        ],
        steps=[
            pb.ExplanationStep(name=step.name, working=step.working, result=step.result)
            for step in found.steps
        ],
    )


def short_explanation(found: Explanation, max_bytes: int) -> pb.Explanation | None:
    """The explanation in at most ``max_bytes``: rates that lost are left out and counted, the
    shortest prefixes first, then long texts are cut. None where even that is too long."""
    message = explanation(found)
    while message.considered and (
        len(message.considered) > MAX_CONSIDERED or message.ByteSize() > max_bytes
    ):
        last = len(message.considered) - 1
        losers = (at for at in range(last, -1, -1) if not message.considered[at].won)
        del message.considered[next(losers, last)]
        message.omitted += 1
    if message.ByteSize() > max_bytes:
        for step in message.steps:
            step.working = _shortened(step.working)
            step.result = _shortened(step.result)
    return message if message.ByteSize() <= max_bytes else None


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_STEP_CHARS else text[: MAX_STEP_CHARS - 1] + "…"
