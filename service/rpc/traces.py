"""OpenTelemetry traces: a span for each RPC, in the trace of its client.

The optional extra tollwire[otel] has the library, which is loaded only if traces are on. The OTEL_*
variables configure the destination and the sampling. A span is created after the end of its RPC, so
no RPC waits for it. It contains the method, the code, the reason and the tenant; no other data of
the request.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tollwire.service.rpc.pipeline import RpcContext
from tollwire.service.rpc.status import StatusCode

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

# The codes that OpenTelemetry's conventions count as errors of the server.
_FAULTS = frozenset(
    {
        StatusCode.UNKNOWN,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.UNIMPLEMENTED,
        StatusCode.INTERNAL,
        StatusCode.UNAVAILABLE,
        StatusCode.DATA_LOSS,
    }
)
_PACKAGE = "tollwire.v1."


class TracesUnavailable(Exception):
    """Traces are on, but the library is not installed."""


def start_exporter() -> TracerProvider:
    """Send spans by OTLP in the background; ``shutdown`` sends the rest. TracesUnavailable if the
    library is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracesUnavailable(
            "--traces: needs the extra tollwire[otel]: pip install 'tollwire[otel]'"
        ) from error
    own = Resource.create({SERVICE_NAME: "tollwire"})
    provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def observer(provider: TracerProvider) -> Callable[[RpcContext], None]:
    """Create the span of an RPC that has ended."""
    from opentelemetry.propagators.textmap import DefaultGetter
    from opentelemetry.trace import SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer = provider.get_tracer("tollwire")
    propagator, getter = TraceContextTextMapPropagator(), DefaultGetter()

    def observe(rpc: RpcContext) -> None:
        ended_at_ns = time.time_ns()
        took_ns = int((time.perf_counter() - rpc.started_at) * 1e9)
        metadata = {key: str(value) for key, value in rpc.call.metadata}
        service, _, method = rpc.method.partition("/")
        span = tracer.start_span(
            f"{_PACKAGE}{rpc.method}",
            context=propagator.extract(metadata, getter=getter),
            kind=SpanKind.SERVER,
            start_time=ended_at_ns - took_ns,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": f"{_PACKAGE}{service}",
                "rpc.method": method,
                "rpc.grpc.status_code": rpc.code.value,
            },
        )
        if rpc.request.tenant_id > 0:
            span.set_attribute("tollwire.tenant_id", rpc.request.tenant_id)
        if rpc.reason:
            span.set_attribute("tollwire.reason", rpc.reason)
        if rpc.code in _FAULTS:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended_at_ns)

    return observe
