"""`pirl serve` as it is put on a network: the shipped checkpoint, certificates, tokens, the robot's own client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from certificates import Authority

import pirl_server
from pirl_contract.client import PolicyClient, Tls
from pirl_server.app import ServeConfig, build, serve
from pirl_server.layout import TOKENS
from pirl_server.registry import AuditLog
from pirl_server.security import DeniedError, Gate, TlsFiles, TokenFile

CHECKPOINT = Path(pirl_server.__path__[0]) / "checkpoints" / "pushcube-base"


@pytest.mark.parametrize("given", [{}, {"tls": True}, {"token": True}], ids=["nothing", "certificate", "tokens"])
def test_a_public_address_is_refused_without_both(tmp_path: Path, given: dict[str, bool]) -> None:
    issued = Authority(tmp_path / "ca", "ours").issue("server")
    files: Any = {"tls_cert": issued.cert, "tls_key": issued.key} if "tls" in given else {}
    if "token" in given:
        TokenFile(tmp_path / TOKENS).create("arm1", ["robot"])
    with pytest.raises(ValueError, match="can be reached from other machines: that needs"):
        serve(ServeConfig(CHECKPOINT, tmp_path, host="0.0.0.0", rest_port=0, **files))


def test_half_a_certificate_and_a_broken_token_file_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="belong together"):
        serve(ServeConfig(CHECKPOINT, tmp_path, tls_cert=tmp_path / "x"))
    (tmp_path / TOKENS).write_text("{}")
    with pytest.raises(ValueError, match="chmod 600"):
        serve(ServeConfig(CHECKPOINT, tmp_path, rest_port=0))


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
                client = PolicyClient(address, robot_id, 20.0, transport=transport, token=token, tls=tls)
                if words:
                    with pytest.raises(ValueError, match=words):
                        client.info()
                else:
                    assert client.info().policy_version
                client.close()


def test_openpis_header_names_the_robot(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / TOKENS)
    gate = Gate(file, AuditLog(tmp_path / "audit.jsonl"))
    one, any_ = file.create("one", ["robot"], ["arm-1"]), file.create("any", ["robot"])
    assert gate.robot(f"Api-Key {one}") == gate.robot(f"Bearer {one}") == "arm-1"
    assert gate.robot(f"Api-Key {any_}") == "any"
    for wrong in (None, "", one, f"Api-Key {one}x", f"Api-Key {file.create('anna', ['operator'])}"):
        with pytest.raises(DeniedError):
            gate.robot(wrong)


def test_a_context_for_asyncio_asks_for_client_certificates_only_when_told(tmp_path: Path) -> None:
    ours = Authority(tmp_path / "ca", "ours")
    issued = ours.issue("server")
    assert TlsFiles(issued.cert, issued.key).context().verify_mode.name == "CERT_NONE"
    assert TlsFiles(issued.cert, issued.key, ours.cert).context().verify_mode.name == "CERT_REQUIRED"
