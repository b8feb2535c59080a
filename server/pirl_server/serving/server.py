"""The gRPC server around the policy service: threads, limits, keepalive, health, reflection, address."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc
from pirl_contract.wire.grpc_options import SERVICE_NAME, Options, wire_options
from pirl_server.serving.service import PolicyService
from pirl_server.serving.session import parsed

SPARE_THREADS = 8
"""beyond sessions and those that can wait for the device: health, GetInfo and episode calls never queue behind them"""
HANDSHAKE_MS = 10_000
"""for TLS and the first frame of HTTP/2; gRPC's own two minutes let silent connections hold every seat"""
HEALTH_PERIOD_S = 0.5
"""delay until watchers of the health service are notified of a change; a Check call gets the current state"""


class RobotServer:
    """A running server. `stop` ends it; nothing else needs to be done, but `drain` gives robots time before it."""

    def __init__(self, server: grpc.Server, service: PolicyService, health_service: _Health) -> None:
        self._server, self._service, self._health = server, service, health_service
        self._draining = False

    def drain(self, seconds: float) -> None:
        """Say NOT_SERVING and notify the robots, those that come later too; calls are answered as before."""
        self._draining = True
        self._health.drain()
        self._service.attendance.announce(pb.ServerEvent(draining=pb.DrainingEvent(grace_s=seconds)))

    def stop(self, grace_s: float | None) -> threading.Event:
        """Drain where that was not done, take no new calls, give running ones this long; the event: all is over."""
        if not self._draining:
            self.drain(grace_s or 0.0)
        stopped: threading.Event = self._server.stop(grace_s)
        return stopped


def start_grpc(
    service: PolicyService,
    address: str,
    credentials: grpc.ServerCredentials | None = None,
    interceptors: Sequence[grpc.ServerInterceptor] = (),
    max_connections: int = 256,
) -> tuple[RobotServer, int]:
    """Start serving at `host:port` (port 0: a free one) and return the server and its port.

    `credentials` of grpc.ssl_server_credentials, None: nothing is encrypted. Beyond `max_connections` new ones are
    closed at once. Stop it with `server.stop(grace_s).wait()`. Raises ValueError when the address cannot be bound.
    """
    threads = ThreadPoolExecutor(service.max_sessions + service.max_waiting + SPARE_THREADS, thread_name_prefix="grpc")
    server = grpc.server(threads, options=_options(service, max_connections), interceptors=tuple(interceptors))
    server.add_generic_rpc_handlers((_session_handler(service),))  # found before that of the stubs
    policy_pb2_grpc.add_PolicyServiceServicer_to_server(service, server)
    health_service = _Health(service)
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError:
        raise ValueError(f"cannot listen on {address}: the port is in use or the address is not local") from None
    server.start()
    health_service.start()
    return RobotServer(server, service, health_service), port


def _session_handler(service: PolicyService) -> grpc.GenericRpcHandler:
    """Session as in the stubs, but for bytes that are no message: see `parsed`."""
    handler = grpc.stream_stream_rpc_method_handler(
        service.Session, request_deserializer=parsed, response_serializer=pb.SessionReply.SerializeToString
    )
    return grpc.method_handlers_generic_handler(SERVICE_NAME, {"Session": handler})


def _options(service: PolicyService, max_connections: int) -> Options:
    return [
        *wire_options(),
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.so_reuseport", 0),  # a second server on the same port is an error, not a silent half of the traffic
        # of one connection, which the channels of a process share: beyond it calls would wait without a word
        ("grpc.max_concurrent_streams", service.max_sessions + service.max_waiting + SPARE_THREADS),
        ("grpc.http2.min_ping_interval_without_data_ms", 1000),  # a client may ask more often than gRPC would have it
        ("grpc.http2.max_ping_strikes", 0),
    ]


class _Health(health.HealthServicer):
    """SERVING while a warm policy is loaded and the server is not draining."""

    def __init__(self, service: PolicyService) -> None:
        super().__init__(experimental_non_blocking=True)
        self._service, self._draining = service, threading.Event()
        self._changing, self._told = threading.Lock(), health_pb2.HealthCheckResponse.UNKNOWN

    def start(self) -> None:
        """Keep watchers up to date, until `drain`."""
        self._refresh()
        threading.Thread(target=self._watch, name="health", daemon=True).start()

    def drain(self) -> None:
        """NOT_SERVING from now on."""
        self._draining.set()
        self._refresh()

    def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Answer without waiting for anything."""
        self._refresh()
        return super().Check(request, context)

    def _watch(self) -> None:
        while not self._draining.wait(HEALTH_PERIOD_S):
            self._refresh()

    def _refresh(self) -> None:
        serving = self._service.ready and not self._draining.is_set()
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        with self._changing:
            if status != self._told:  # watchers are notified of changes only
                self._told = status
                for name in ("", SERVICE_NAME):
                    self.set(name, status)
