"""Servicers over fake subjects, and the calls of the tests through grpcio-testing.

The fakes record their calls. The error map and the interceptors, which turn errors into statuses,
are tested on a real server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import grpc

from tollwire.v1 import access_service_pb2 as access_pb
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb

SERVICES = {
    file.services_by_name[name].name: file.services_by_name[name]
    for file, name in (
        (rating_pb.DESCRIPTOR, "RatingService"),
        (cdr_pb.DESCRIPTOR, "CdrService"),
        (tenant_pb.DESCRIPTOR, "TenantService"),
        (access_pb.DESCRIPTOR, "AccessService"),
    )
}

# method, request, the subject's result, its arguments, response
UnaryRow = tuple[str, Any, Any, tuple[Any, ...], Any]
UNARY_NAMES = ("path", "request_message", "answer", "call", "response")


class Fake:
    """Answers each call with the next of ``answers`` and records it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        def method(*arguments: Any, **named: Any) -> Any:
            given = (*arguments, *named.values())
            self.calls.append((name, *(_taken(argument) for argument in given)))
            return self.answers.pop(0)

        return method


def _taken(argument: Any) -> Any:
    return list(argument) if isinstance(argument, Iterator) else argument


def method(path: str) -> Any:
    service, name = path.split("/")
    return SERVICES[service].methods_by_name[name]


def check_unary(
    server: Any,
    subject: Fake,
    path: str,
    request_message: Any,
    answer: Any,
    call: tuple[Any, ...],
    response: Any,
) -> None:
    subject.answers = [answer]
    rpc = server.invoke_unary_unary(method(path), (), request_message, 10)
    found, _, code, _ = rpc.termination()
    assert code is grpc.StatusCode.OK
    assert subject.calls == [call]
    assert method(path).output_type == found.DESCRIPTOR
    if response is not None:
        assert found == response
    else:
        assert found.ByteSize() > 0


def stream(server: Any, path: str, requests: Iterable[Any]) -> tuple[Any, list[Any]]:
    """The rpc and its responses, of which there is one for each request."""
    rpc = server.invoke_stream_stream(method(path), (), 10)
    responses = []
    for request in requests:
        rpc.send_request(request)
        responses.append(rpc.take_response())
    rpc.requests_closed()
    assert rpc.termination()[1] is grpc.StatusCode.OK
    return rpc, responses
