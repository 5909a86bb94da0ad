"""An UploadCdrsRequest as the core reads it, compared with the protobuf library and the service."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from ratingcore.wire.rate_calls import MalformedRequest
from tollwire.service.domain.model import BadCall, Call
from tollwire.service.domain.record_model import ControlTotals
from tollwire.service.record.recording import content_of
from tollwire.service.rpc.conversion import calls, uploads
from tollwire.v1 import cdr_service_pb2 as pb

Read = tuple[int, int, list[Call | BadCall], ControlTotals | None]


def by_library(request_bytes: bytes) -> Read | None:
    try:
        request = pb.UploadCdrsRequest.FromString(request_bytes)
    except DecodeError:
        return None
    totals = None
    if request.HasField("control_totals"):
        stated = request.control_totals
        totals = ControlTotals(stated.calls, stated.duration_seconds)
    read = calls.read_calls(request.calls, now_ns=None)
    for at, call in enumerate(request.calls):
        if call.HasField("unreadable"):
            read[at] = calls.bad_call(call.SerializeToString())
    return request.upload_id, request.offset, read, totals


def compared(request_bytes: bytes) -> int | None:
    """The number of compared calls; None: both refuse the request.

    AssertionError if the two differ.
    """
    expected = by_library(request_bytes)
    try:
        upload_id, offset, chunk = uploads.chunk(request_bytes)
    except MalformedRequest:
        assert expected is None, "only the library accepts it"
        return None
    assert expected is not None, "only the core accepts it"
    assert (upload_id, offset, len(chunk)) == (*expected[:2], len(expected[2]))
    bad = {at: one for at, one in enumerate(expected[2]) if isinstance(one, BadCall)}
    assert chunk.bad == bad
    assert chunk.control_totals == expected[3]
    durations = sum(one.duration_seconds for one in expected[2])
    assert chunk.duration_seconds() == durations
    for at, one in enumerate(expected[2]):
        if isinstance(one, Call):
            content = content_of(one)
            kept = chunk.records.content(at)
            assert kept[1] == one.call_id or kept[1].startswith("auto-")
            assert kept == (content[0], kept[1], *content[2:])
    return len(expected[2])
