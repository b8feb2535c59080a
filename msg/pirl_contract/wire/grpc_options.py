"""What both ends agree on besides messages: names on the wire, HTTP/2 sizes, keepalive, encryption, bearer token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire.addresses import bearer_token

SERVICE_NAME: str = pb.DESCRIPTOR.services_by_name["PolicyService"].full_name
SERVICE_PATH = f"/{SERVICE_NAME}/"
"""the HTTP/2 path of a call is this and the name of its RPC"""
SESSION_PATH = SERVICE_PATH + "Session"
RETRY_AFTER = "retry-after-ms"
"""key in the trailing metadata of a rejected call that may succeed later"""
STATUS_BY_NUMBER: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
"""the number is that of google.rpc.Code, as in `pb.Refusal.code`"""
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
WIRE = 2
"""the newest wire: 1 had unary calls and raw images only"""
KEEPALIVE_S = 5.0
"""a peer without traffic for this long gets a keepalive ping"""
KEEPALIVE_TIMEOUT_S = 3.0
"""and given up when it has not answered after this long: a cable was pulled, a router has forgotten the connection"""
WINDOW_BYTES = 4 * 1024 * 1024
"""of an HTTP/2 stream: a whole observation leaves at once, without waiting for the reader to ask for more"""

Options = list[tuple[str, Any]]


@dataclass(frozen=True)
class Tls:
    """What a client encrypts with. Paths to PEM files."""

    roots: Path | None = None
    """certificates that the server's must descend from; None: those of the system"""
    certificate: Path | None = None
    """of the client, where the server asks for one (mTLS)"""
    key: Path | None = None
    """belongs to `certificate`"""
    server_name: str = ""
    """expected in the server's certificate, when it is not the host of the address"""


def wire_options() -> Options:
    """What clients and servers have in common."""
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        ("grpc.http2.max_frame_size", 2**24 - 1),
        ("grpc.keepalive_time_ms", round(1000 * KEEPALIVE_S)),
        ("grpc.keepalive_timeout_ms", round(1000 * KEEPALIVE_TIMEOUT_S)),
        ("grpc.http2.ping_timeout_ms", round(1000 * KEEPALIVE_TIMEOUT_S)),  # else gRPC waits a minute all the same
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def client_options(tls: Tls | None) -> Options:
    """Never retries by itself: an observation would be old by then. Reconnects within a second."""
    options: Options = [
        *wire_options(),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),  # a laboratory's http_proxy is for the web, not for the server beside the robot
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1000),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def credentials(tls: Tls) -> Any:
    """Read the files. Raises ValueError that names the one at fault."""
    if (tls.certificate is None) != (tls.key is None):
        raise ValueError("a client certificate needs its key: give both or neither")
    return grpc.ssl_channel_credentials(
        root_certificates=_read(tls.roots),
        private_key=_read(tls.key),
        certificate_chain=_read(tls.certificate),
    )


def bearer(token: str | None) -> Sequence[tuple[str, str]]:
    """Return the metadata of each call. Raises ValueError for a token that no header can carry."""
    return (("authorization", f"Bearer {bearer_token(token)}"),) if token else ()


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
