"""OpenTelemetry spans of each inference: the client's span -> the call -> queue -> device.

The parent is the W3C `traceparent` of the request, else of the call's metadata. The stages are drawn after the reply
from its own timings, which are measured with the device synchronised: tracing costs nothing before that, and nothing
at all where `spans_from_environment` returns None.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.grpc_options import SERVICE_NAME
from pirl_server.rpc.interceptor import Call

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

STAGES = ("decode", "queue", "infer", "encode")
_ASKED_BY = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def spans_from_environment(version: str) -> Spans | None:
    """Return what traces calls as the standard OTEL_* variables say; None when they ask for nothing.

    Raises ValueError when they ask for an exporter that is not installed.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(map(os.environ.get, _ASKED_BY)):
        return None
    try:
        exporter = importlib.import_module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter").OTLPSpanExporter()
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ValueError("OTEL_EXPORTER_OTLP_ENDPOINT needs OpenTelemetry: install pirl[otel], or unset it") from None
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before ours
    ours = Resource({"service.name": "pirl", "service.version": version})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Spans(provider.get_tracer("pirl", version))


class Spans:
    """Draws the spans of each Infer on a tracer."""

    def __init__(self, tracer: Tracer) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer, self._kind = tracer, SpanKind.SERVER
        self._error = Status(StatusCode.ERROR)
        self._propagator = TraceContextTextMapPropagator()

    def began(self, call: Call) -> None:
        """Nothing yet: the span is drawn whole when the call has ended."""

    def ended(self, call: Call, reply: Message | None, code: str) -> None:
        """Draw the call and its stages."""
        if not isinstance(call.request, pb.InferRequest):
            return
        from opentelemetry.trace import set_span_in_context

        traceparent = call.request.traceparent or call.metadata.get("traceparent", "")
        parent = self._propagator.extract({"traceparent": traceparent} if traceparent else {})
        end_ns = call.began_ns + round(1e9 * call.seconds)
        attributes: dict[str, str | int] = {
            "rpc.system": "grpc",
            "rpc.service": SERVICE_NAME,
            "rpc.method": call.rpc,
            "rpc.grpc.status_code": code,
            "pirl.robot_id": call.robot_id,
            "pirl.sequence": call.request.sequence,
        }
        span = self._tracer.start_span(
            f"{SERVICE_NAME}/{call.rpc}", parent, self._kind, attributes, start_time=call.began_ns
        )
        if not isinstance(reply, pb.InferReply):
            span.set_status(self._error)
        elif span.is_recording():
            span.set_attribute("pirl.policy_version", reply.policy_version)
            span.set_attribute("pirl.chunk_id", reply.chunk_id)
            self._draw_stages(set_span_in_context(span), call.began_ns, reply.timings_ms)
        span.end(end_ns)

    def _draw_stages(self, parent: Any, began_ns: int, timings_ms: Any) -> None:
        for stage in STAGES:
            if stage in timings_ms:
                end_ns = began_ns + round(1e6 * timings_ms[stage])
                self._tracer.start_span(f"pirl.{stage}", parent, start_time=began_ns).end(end_ns)
                began_ns = end_ns
