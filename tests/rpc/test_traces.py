"""Spans of RPCs: in their client's trace, with their results, and without their content."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tollwire.service.domain.errors import NotFound, Reason
from tollwire.service.rpc import traces
from tollwire.service.rpc.pipeline import RpcContext
from tollwire.service.rpc.status import StatusCode as RpcCode

pytest.importorskip("opentelemetry.sdk", reason="the extra tollwire[otel] is not installed")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Call:
    def __init__(self, *metadata: tuple[str, str | bytes]) -> None:
        self.metadata = metadata

    def remaining_seconds(self) -> None:
        return None

    def is_wanted(self) -> bool:
        return True


@pytest.fixture
def exported() -> Iterator[tuple[InMemorySpanExporter, TracerProvider]]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter, provider
    provider.shutdown()


def rpc(method: str, *metadata: tuple[str, str | bytes]) -> RpcContext:
    call: Any = Call(*metadata)
    return RpcContext(method, call)


def test_a_span_in_the_clients_trace(exported: Any) -> None:
    exporter, provider = exported
    seen = rpc("CdrService/GetCdr", ("traceparent", f"00-{TRACE}-{PARENT}-01"), ("b-bin", b"\xff"))
    seen.request.concerns(7)
    traces.observer(provider)(seen)
    [span] = exporter.get_finished_spans()
    assert span.name == "tollwire.v1.CdrService/GetCdr"
    assert span.kind is SpanKind.SERVER
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None and f"{span.parent.span_id:016x}" == PARENT
    assert dict(span.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": "tollwire.v1.CdrService",
        "rpc.method": "GetCdr",
        "rpc.grpc.status_code": 0,
        "tollwire.tenant_id": 7,
    }
    assert span.status.status_code is StatusCode.UNSET
    assert 0 <= span.end_time - span.start_time < 60 * 10**9


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (RpcCode.NOT_FOUND, StatusCode.UNSET),
        (RpcCode.UNAVAILABLE, StatusCode.ERROR),
        (RpcCode.INTERNAL, StatusCode.ERROR),
    ],
)
def test_a_refusal(exported: Any, code: RpcCode, status: StatusCode) -> None:
    exporter, provider = exported
    seen = rpc("RatingService/RateCall", ("traceparent", "no trace"))
    seen.code = code
    seen.reason = NotFound(Reason.NO_RATE, "no rate for 447911123456").reason
    traces.observer(provider)(seen)
    [span] = exporter.get_finished_spans()
    assert span.parent is None
    assert span.attributes["rpc.grpc.status_code"] == code.value
    assert span.attributes["tollwire.reason"] == "NO_RATE"
    assert span.status.status_code is status
    assert "4479" not in span.to_json()


def test_the_resource_of_the_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    provider = traces.start_exporter()
    assert provider.resource.attributes["service.name"] == "tollwire"
    provider.shutdown()


def test_without_the_library_the_error_says_so() -> None:
    code = """
import sys
sys.modules["opentelemetry"] = None
from tollwire.service.rpc import traces
try:
    traces.start_exporter()
except traces.TracesUnavailable as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("--traces: needs the extra tollwire[otel]"), done.stderr


def test_a_server_without_traces_does_not_load_the_library() -> None:
    code = "import sys, tollwire.service.process.app; print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr
