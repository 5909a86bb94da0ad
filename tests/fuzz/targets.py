"""The targets of the fuzzer. Each reads any bytes with the core and with the protobuf library, and
raises ``Difference`` if the two differ. Any other exception is a finding as well.

A target depends on a module of the core and on the messages; not on the source of the inputs.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from google.protobuf import descriptor_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ratingcore import Deck
from ratingcore.wire import call_parse, rate_calls
from tests.fuzz import columns, decks
from tests.fuzz.agreement import Difference, Target, accepted_alike, message_class, parsed
from tests.fuzz.fields import Grammar, Values, varint
from tests.rpc import upload_chunks
from tests.rpc.known_decks import DECKS, NOW_NS, by_messages
from tollwire.service.domain.errors import NotFound
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1 import types_pb2

MAX_CALLS = 50
_CALLS_TAG = 1 << 3 | 2


def rate(data: bytes) -> int | None:
    """Compares every RatedCall of the bulk path with the path of message objects."""
    request = parsed(pb.StreamRateCallsRequest, data)
    too_many = False
    answer, options = None, (0, 0)
    try:
        answer, options = _rated(data)
    except rate_calls.MalformedRequest:
        pass
    except rate_calls.TooManyCalls:
        too_many = True
    if too_many:
        # Calls above the limit are not read, so they may be malformed.
        if request is not None and len(request.calls) <= MAX_CALLS:
            raise Difference(f"too many calls: {len(request.calls)}")
        return None
    if not accepted_alike(answer, request) or answer is None:
        return None
    if options != (expected_options := (request.min_rate_revision, request.view)):
        raise Difference(f"{options} are not {expected_options}")
    if answer != (expected := by_messages(data)):
        raise Difference(
            f"{pb.StreamRateCallsResponse.FromString(answer)} is not\n"
            f"{pb.StreamRateCallsResponse.FromString(expected)}"
        )
    return len(request.calls)


def _rated(data: bytes) -> tuple[bytes, tuple[int, int]]:
    """The response, and the options of the request."""
    try:
        return rate_calls.rate_request(data, _find_deck, _refer, NOW_NS, MAX_CALLS), (0, 0)
    except rate_calls.OtherOptions as other:
        options = other.min_rate_revision, other.view
    refer = partial(_refer, view=options[1])
    answer = rate_calls.rate_request(data, _find_deck, refer, NOW_NS, MAX_CALLS, *options)
    return answer, options


def _find_deck(tenant_id: int) -> Deck | None:
    try:
        return DECKS.deck(tenant_id).deck
    except NotFound:
        return None


def _refer(call: bytes, view: int = 0) -> bytes:
    """The response of the path of message objects to one call, without its frame."""
    options = pb.StreamRateCallsRequest(view=view).SerializeToString()  # type: ignore[arg-type]
    framed = by_messages(varint(_CALLS_TAG) + varint(len(call)) + call + options)
    rated = pb.StreamRateCallsResponse.FromString(framed).rated
    if len(rated) != 1:
        raise Difference(f"{call!r} was passed to the library as one call")
    return rated[0].SerializeToString()


def lone(data: bytes) -> int | None:
    """Compares the response to one call with message objects, unless the core leaves the call to
    them."""
    request = parsed(pb.RateCallRequest, data)
    answer = rate_calls.rate_lone_call(data, _find_deck, NOW_NS)
    if answer is None:
        return None if request is None else 0
    if request is None:
        raise Difference("only the core accepts it")
    if request.explain or request.min_rate_revision:
        raise Difference("the core ignores a field that demands more than a price")
    # Both requests and both responses have the compared data in field 1.
    if answer != (expected := by_messages(data)):
        raise Difference(
            f"{pb.RateCallResponse.FromString(answer)} is not\n"
            f"{pb.RateCallResponse.FromString(expected)}"
        )
    return 1


def read(data: bytes) -> int | None:
    """Compares every field of every call of the parser."""
    request = parsed(pb.StreamRateCallsRequest, data)
    try:
        calls = call_parse.parse_calls(data)
    except ValueError:
        calls = None
    if not accepted_alike(calls, request):
        return None
    expected = list(map(fields_of, request.calls))
    if calls != expected:
        raise Difference(f"{calls} is not {expected}")
    return len(expected)


def fields_of(call: types_pb2.Call) -> tuple[object, ...]:
    """The result of parse_calls, made by the library."""

    def stamp(name: Literal["started_at", "ended_at"]) -> tuple[int, int] | None:
        value: Timestamp = getattr(call, name)
        return (value.seconds, value.nanos) if call.HasField(name) else None

    return (
        call.tenant_id,
        call.extension_id,
        call.caller_number.encode(),
        call.destination_number.encode(),
        call.direction,
        call.disposition,
        call.duration_seconds if call.HasField("duration_seconds") else None,
        stamp("started_at"),
        stamp("ended_at"),
        call.call_id.encode(),
        call.occurrence,
        call.HasField("unreadable"),
    )


def options(data: bytes) -> int | None:
    """The options that are found at the end, without reading the calls: so the library reads a
    message whose calls are plain bytes."""
    request = parsed(_OUTERMOST, data)
    try:
        found = rate_calls.likely_options(data)
    except rate_calls.MalformedRequest:
        found = None
    if request is None:
        return None
    expected = request.min_rate_revision, request.view
    if found not in ((0, 0), expected):
        raise Difference(f"{found} is not {expected}")
    return 1


def _outermost() -> type[Message]:
    """StreamRateCallsRequest, with bytes instead of calls."""
    whole = descriptor_pb2.DescriptorProto()
    pb.StreamRateCallsRequest.DESCRIPTOR.CopyToProto(whole)
    for field in whole.field:
        if field.type == field.TYPE_MESSAGE:
            field.type = field.TYPE_BYTES
            field.ClearField("type_name")
        elif field.type == field.TYPE_ENUM:
            field.type = field.TYPE_INT32
            field.ClearField("type_name")
    return message_class(whole)


_OUTERMOST = _outermost()

# Values of calls with which the decks of known_decks give all outcomes.
_NUMBERS = b"0 1 12 +123 0012 3210321032103210 2222 sip:+12@x tel:0-12 (1)2/3.4 3333 23 0101"
_CALL: Values = {
    "tenant_id": [1, 2, 3],
    "extension_id": [0, 0, 1],
    "caller_number": [b"", b"1000", b"+49 30 1234567"],
    "destination_number": _NUMBERS.split(),
    "direction": [2, 2, 2, 1, 3],
    "disposition": [1, 1, 1, 2, 6],
    "duration_seconds": [0, 1, 59, 60, 61, 121, 2**31 - 1],
    "seconds": [1_762_999_999, 1_763_000_000, 1_763_000_060],
    "nanos": [0, 0, 0, 1, 999_999_999],
    "call_id": [b"", b"a", b"0123456789abcdef", "é".encode() * 100],
    "occurrence": [0, 1, 1, 2, 2**31 - 1],
    "line": [0, 11],
    "text": [b"", b"1,2", b"\xff\0"],
    "header": [b"", b"call_id"],
    "message": [b"", b"not CSV"],
    "explain": [1],
    "min_rate_revision": [0, 1, 300, 900],
}
_ODD: Values = {
    "tenant_id": [2**40, 4, 0, 2**64 - 1],
    "extension_id": [2**64 - 1],
    "destination_number": [b"", b"+", b"anonymous", b"1" * 32, b"1" * 33, "é".encode()],
    "direction": [0, 4, 2**64 - 1, 2**32 + 2],
    "disposition": [0, 7, 2**64 - 1, 2**32 + 1],
    "duration_seconds": [2**31, 2**64 - 1],
    "seconds": [0, 2**64 - 1, 9_223_372_036],
    "nanos": [10**9, 2**64 - 1],
    "occurrence": [2**31, 2**64 - 1],
    "min_rate_revision": [2**63 - 1, 2**64 - 1],
}
_RARE = frozenset({"ended_at", "occurrence", "unreadable"})
_CALLS = Grammar(pb.StreamRateCallsRequest.DESCRIPTOR, _CALL, _ODD, _RARE)
_CHUNKS = Grammar(cdr_pb.UploadCdrsRequest.DESCRIPTOR, _CALL, _ODD, _RARE)
_LONE = Grammar(
    pb.RateCallRequest.DESCRIPTOR,
    _CALL,
    _ODD,
    _RARE | {"explain", "min_rate_revision"},
)

TARGETS = {
    target.name: target
    for target in (
        Target("rate", "rate_request, against message objects", _CALLS, rate),
        Target("lone", "rate_lone_call, against message objects", _LONE, lone),
        Target("read", "the parser of calls, against the library", _CALLS, read),
        Target("upload", "read_upload, against message objects", _CHUNKS, upload_chunks.compared),
        Target("deck", "ImportRates's reader, against single rates", decks.GRAMMAR, decks.check),
        Target("columns", "rate_columns, against Deck.rate", columns.GRAMMAR, columns.check),
        Target("options", "likely_options, against the library", _CALLS, options),
    )
}
