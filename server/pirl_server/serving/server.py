"""The gRPC server around the policy service: threads, message limits, address."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc

from pirl_contract.client import MAX_MESSAGE_BYTES
from pirl_contract.v1 import policy_pb2_grpc
from pirl_server.serving.service import PolicyService

SPARE_THREADS = 8
"""beyond those that can wait for the device, so that GetInfo and episode calls never queue behind inference"""


def start_grpc(service: PolicyService, address: str) -> tuple[grpc.Server, int]:
    """Start serving at `host:port` (port 0: a free one) and return the server and its port.

    Stop it with `server.stop(grace_s).wait()`. Raises ValueError when the address cannot be bound.
    """
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.so_reuseport", 0),  # a second server on the same port is an error, not a silent half of the traffic
    ]
    threads = service.max_waiting + SPARE_THREADS
    server = grpc.server(ThreadPoolExecutor(threads, thread_name_prefix="grpc"), options=options)
    policy_pb2_grpc.add_PolicyServiceServicer_to_server(service, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        raise ValueError(f"cannot listen on {address}: the port is taken or the address is not ours") from None
    server.start()
    return server, port
