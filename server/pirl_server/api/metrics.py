"""/metrics: what Prometheus scrapes. The handler reads counters and never waits for a thread or the device."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from pirl_server.api.dependencies import ServicesDep

router = APIRouter(tags=["health"])
EXAMPLE = {"example": {"value": "# TYPE pirl_queue_length gauge\npirl_queue_length 0.0\n"}}
_TEXT: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/plain": {"schema": {"type": "string"}, "examples": EXAMPLE}},
        "description": "Prometheus metrics",
    }
}


@router.get("/metrics", operation_id="getMetrics", response_class=Response, responses=_TEXT)
async def metrics(services: ServicesDep, request: Request) -> Response:
    """Show all counters and gauges in Prometheus' text form, or OpenMetrics where it is asked for."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(services.metrics.registry), media_type=content_type)
