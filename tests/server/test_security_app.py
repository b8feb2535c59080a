"""`pirl serve` as it is put on a network: the shipped checkpoint, certificates, tokens, the robot's own client."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import pytest
from certificates import Authority
from patience import patient

import pirl_server
from pirl_contract.client import PolicyClient, Tls
from pirl_contract.v1 import policy_pb2 as pb
from pirl_server.api.stop_listener import stop_door
from pirl_server.app import build, serve
from pirl_server.config.serve import ServeConfig
from pirl_server.paths import TOKENS
from pirl_server.registry.audit import AuditLog
from pirl_server.rpc.denied import DeniedError
from pirl_server.security.access_control import AccessControl
from pirl_server.security.tls import TlsFiles
from pirl_server.security.tokens import TokenFile

CHECKPOINT = Path(pirl_server.__path__[0]) / "checkpoints" / "pushcube-base"


@pytest.mark.parametrize("given", [{}, {"tls": True}, {"token": True}], ids=["nothing", "certificate", "tokens"])
def test_a_public_address_is_refused_without_both(tmp_path: Path, given: dict[str, bool]) -> None:
    issued = Authority(tmp_path / "ca", "ours").issue("server")
    files: Any = {"tls_cert": issued.cert, "tls_key": issued.key} if "tls" in given else {}
    if "token" in given:
        TokenFile(tmp_path / TOKENS).create("arm1", ["robot"])
    with pytest.raises(ValueError, match="is reachable from other machines, which requires"):
        serve(ServeConfig(CHECKPOINT, tmp_path, host="0.0.0.0", rest_port=0, **files))


def test_half_a_certificate_and_a_broken_token_file_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs its key"):
        serve(ServeConfig(CHECKPOINT, tmp_path, tls_cert=tmp_path / "x"))
    (tmp_path / TOKENS).write_text("{}")
    with pytest.raises(ValueError, match="chmod 600"):
        serve(ServeConfig(CHECKPOINT, tmp_path, rest_port=0))


def test_a_taken_port_for_stops_is_refused_at_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"{port} for emergency stops is in use.*--stop-port"):
            serve(ServeConfig(CHECKPOINT, tmp_path, rest_port=0, stop_port=port))


def test_stops_over_tls_and_ipv6(tmp_path: Path) -> None:
    """The robot's session, the stop port with the certificate, both at ::1."""
    if not has_ipv6():
        pytest.skip("no IPv6 here")
    ours = Authority(tmp_path / "ca", "ours")
    issued = ours.issue("server")
    file = TokenFile(tmp_path / TOKENS)
    robot, anna = file.create("arm1", ["robot"]), file.create("anna", ["operator"])
    config = ServeConfig(CHECKPOINT, tmp_path, host="::1", grpc_port=0, tls_cert=issued.cert, tls_key=issued.key)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
        port = free.getsockname()[1]
    told: Queue[pb.ServerEvent] = Queue()
    files = TlsFiles(issued.cert, issued.key)
    with stop_door("::1", port, files) as open_door, build(config) as (api, _):
        open_door(api)
        address = f"[::1]:{api.state.services.grpc_port}"
        client = PolicyClient(address, "arm-1", patient(20.0), token=robot, tls=Tls(ours.cert), on_event=told.put)
        client.info()
        trust = ssl.create_default_context(cafile=str(ours.cert))
        with httpx.Client(base_url=f"https://[::1]:{port}", verify=trust, timeout=patient(60)) as web:
            headers = {"Authorization": f"Bearer {anna}"}
            assert web.post("/v1/emergency-stop", headers=headers).json()["notified"] == ["arm-1"]
        assert told.get(timeout=patient(60)).HasField("emergency_stop")
        client.close()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_the_robots_client_over_mutual_tls_with_its_token(tmp_path: Path) -> None:
    ours = Authority(tmp_path / "ca", "ours")
    issued, robot = ours.issue("server"), ours.issue("robot")
    text = TokenFile(tmp_path / TOKENS).create("arm1", ["robot"], ["arm-1"])
    config = ServeConfig(
        CHECKPOINT, tmp_path, grpc_port=0, tls_cert=issued.cert, tls_key=issued.key, tls_client_ca=ours.cert
    )
    with build(config) as (api, _):
        address = f"127.0.0.1:{api.state.services.grpc_port}"
        tls = Tls(ours.cert, robot.cert, robot.key)
        for robot_id, token, words in (("arm-1", text, ""), ("arm-2", text, "another robot"), ("arm-1", None, "token")):
            for transport in ("session", "unary"):
                client = PolicyClient(address, robot_id, patient(20.0), transport=transport, token=token, tls=tls)
                if words:
                    with pytest.raises(ValueError, match=words):
                        client.info()
                else:
                    assert client.info().policy_version
                client.close()


def test_openpis_header_names_the_robot(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / TOKENS)
    gate = AccessControl(file, AuditLog(tmp_path / "audit.jsonl"))
    one, any_ = file.create("one", ["robot"], ["arm-1"]), file.create("any", ["robot"])
    assert gate.robot(f"Api-Key {one}", "here") == gate.robot(f"Bearer {one}", "here") == "arm-1"
    assert gate.robot(f"Api-Key {any_}", "here") == "any"
    for wrong in (None, "", one, f"Api-Key {one}x", f"Api-Key {file.create('anna', ['operator'])}"):
        with pytest.raises(DeniedError):
            gate.robot(wrong, "here")


def test_a_context_for_asyncio_asks_for_client_certificates_only_when_told(tmp_path: Path) -> None:
    ours = Authority(tmp_path / "ca", "ours")
    issued = ours.issue("server")
    assert TlsFiles(issued.cert, issued.key).context().verify_mode.name == "CERT_NONE"
    assert TlsFiles(issued.cert, issued.key, ours.cert).context().verify_mode.name == "CERT_REQUIRED"
