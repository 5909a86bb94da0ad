"""The service config beside the protos: which methods clients retry."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from tollwire.client.connection import CHANNEL_OPTIONS, SERVICE_CONFIG
from tollwire.v1 import (
    access_service_pb2,
    cdr_service_pb2,
    rating_service_pb2,
    tenant_service_pb2,
)

METHODS = {
    f"{service.full_name}/{method.name}": method
    for module in (access_service_pb2, cdr_service_pb2, rating_service_pb2, tenant_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
# A second request changes nothing more and has the same response: by rule 10, because the entry
# exists, or because the method rates calls and stores nothing.
HARMLESS = {
    *("RateCall", "BatchRateCalls", "CreateCdr", "ReverseCdr", "ReverseCdrs", "ReverseUpload"),
    "RevokeToken",
}
READING = ("Get", "List", "Export", "Summarize", "Verify", "Explain")
CONFIG = json.loads(SERVICE_CONFIG)


def retried() -> list[str]:
    (config,) = CONFIG["methodConfig"]
    return [f"{name['service']}/{name['method']}" for name in config["name"]]


def test_only_repeatable_methods_are_retried() -> None:
    expected = {
        name
        for name, method in METHODS.items()
        if method.name.startswith(READING) or method.name in HARMLESS
    }
    assert sorted(retried()) == sorted(expected)
    assert not any(METHODS[name].client_streaming for name in retried())
    policy = CONFIG["methodConfig"][0]["retryPolicy"]
    assert policy["retryableStatusCodes"] == ["UNAVAILABLE"]


class Server:
    """Fails the first request of each RPC with ``code``, and answers the next."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code = code
        self.asked: list[str] = []

    def handle(self, name: str) -> Any:
        def answer(requests: Any, context: grpc.ServicerContext) -> bytes:
            self.asked.append(name)
            if len(self.asked) == 1:
                context.abort(self.code, "for now")
            return b""

        return grpc.stream_unary_rpc_method_handler(answer)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_our_client_uses_it(name: str, code: grpc.StatusCode) -> None:
    service, _, method = name.partition("/")
    answers = Server(code)
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
    server.add_registered_method_handlers(service, {method: answers.handle(name)})
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS) as channel:
        call = channel.stream_unary(f"/{name}").future(iter([b""]), timeout=20)
        ended = call.code()
    server.stop(0).wait()
    again = name in retried() and code is grpc.StatusCode.UNAVAILABLE
    assert answers.asked == [name] * (2 if again else 1)
    assert ended is (grpc.StatusCode.OK if again else code)
