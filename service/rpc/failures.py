"""The end of an RPC that an exception ends: its status, its log line, its request id."""

from __future__ import annotations

from dataclasses import replace

from tollwire.service.observability import request_ids
from tollwire.service.rpc import error_map
from tollwire.service.rpc.pipeline import RpcContext
from tollwire.service.rpc.status import Failure, Refused


def failure_of(rpc: RpcContext, error: Exception) -> Failure:
    """The status of an RPC that ``error`` ends. Writes the log line of the error."""
    if isinstance(error, Refused):
        rpc.code = error.failure.code
        return error.failure
    rpc.reason = error_map.reason_of(error)
    failure = error_map.refusal(error, rpc.method, rpc.fields())
    rpc.code = failure.code
    rpc.is_logged = error_map.is_logged(error)
    return replace(failure, trailers=((request_ids.METADATA_KEY, rpc.request.id),))
