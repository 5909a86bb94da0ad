"""Calls and rated calls.

The bulk path (ratingcore.wire) works on bytes and uses this module only for exceptions; CreateCdr
uses it for every call. So ``read_call`` and ``write_rated`` are fast: they read each field once.
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

# The limits of an explanation in the details of an error.
MAX_CONSIDERED = 50
MAX_STEP_CHARS = 60

MAX_UNREADABLE_MESSAGE_CHARS = 1_000

UNEXPLAINED = "the record is invalid, but the server found no invalid field in it"
_DIRECTIONS = fields.members(Direction)
_DISPOSITIONS = fields.members(Disposition)
# The stubs' types of enum numbers, for the type checker. At run time they are plain integers.
_status = types_pb2.RatingStatus.ValueType
_reason = types_pb2.UnratedReason.ValueType


def required_call(message: types_pb2.Call, *, present: bool, now_ns: int | None) -> Call:
    """The call of a request, in its field "call". InvalidInput with all violations."""
    if not present:
        raise invalid_field("call", REQUIRED)
    call, found = read_call(message, now_ns)
    if found:
        violations = Violations()
        violations.merge(found, "call.")
        violations.raise_if_any()
    return call


def read_calls(messages: Sequence[types_pb2.Call], *, now_ns: int | None) -> list[Call | BadCall]:
    """The calls of a batch, from the field "calls", in order. An invalid call becomes a BadCall;
    too many calls are InvalidInput."""
    check_count(len(messages))
    return [_call_or_bad(message, now_ns) for message in messages]


def check_count(calls: int) -> None:
    """InvalidInput if a message has too many calls."""
    if calls > MAX_BATCH_CALLS:
        raise invalid_field("calls", f"at most {MAX_BATCH_CALLS} in one message, got {calls}")


def _call_or_bad(message: types_pb2.Call, now_ns: int | None) -> Call | BadCall:
    call, found = read_call(message, now_ns)
    return _bad(message, found) if found else call


def bad_call(data: bytes) -> BadCall:
    """The error of a call that the core has rejected, from the call's bytes.

    If no violation is found here, the call is rejected all the same (UNEXPLAINED): it is safer to
    store one rejected record than to fail the whole chunk.
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
    # NUL is removed first: stored texts must not contain it.
    said = record.message.replace("\0", "")[:MAX_UNREADABLE_MESSAGE_CHARS]
    said = said or "the sender could not read the record"
    return BadCall(
        field="",
        message=f"line {record.line}: {said}" if record.line > 0 else said,
        reason=Reason.UNREADABLE_RECORD,
        duration_seconds=_usable_seconds(message),
    )


def _usable_seconds(message: types_pb2.Call) -> int:
    """The seconds that a rejected call adds to an upload's control totals: 0 if it has no valid
    duration."""
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
    """Whether a call has an end time. Some switches send the epoch if they have none."""
    return message.HasField("ended_at") and bool(message.ended_at.seconds or message.ended_at.nanos)


def read_call(message: types_pb2.Call, now_ns: int | None) -> tuple[Call, Sequence[FieldViolation]]:
    """The call and its violations, with field paths from the call. Do not use the call if there
    are violations. ``now_ns`` replaces a missing started_at; None: started_at is required."""
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
    """Fill ``message``, which must be empty."""
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
        omitted=found.omitted,
    )


def short_explanation(found: Explanation, max_bytes: int) -> pb.Explanation | None:
    """The explanation in at most ``max_bytes``. Rates that did not win are left out and counted,
    the shortest prefixes first; then long texts are cut. None if it is still too long."""
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
