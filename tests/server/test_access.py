"""Who reaches what below the root, on a disk that rejects writes, and after the certificates were renewed."""

from __future__ import annotations

import errno
import fcntl
import shutil
import ssl
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority
from patience import patient
from whole_server import Server

from pirl_contract import Contract, StepOutcome
from pirl_contract.client import PolicyClient
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc
from pirl_server import atomic_files
from pirl_server.atomic_files import locked
from pirl_server.openpi_wire.server import start_openpi
from pirl_server.registry import audit
from pirl_server.rpc.interceptor import Watched
from pirl_server.security.tls import TlsFiles


def read_only(path: Path, line: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system", str(path))


def test_an_audit_log_that_cannot_be_written_changes_no_answer(
    server: Server, contract: Contract, observe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot, admin = server.tokens.create("arm", ["robot"]), server.tokens.create("root", ["admin"])
    client = PolicyClient(f"127.0.0.1:{server.port}", "arm-1", 20.0, token=robot)
    episode_id = client.start_episode(contract, observe(0).instruction)
    chunk = client.infer(observe(0))
    step = StepOutcome(chunk.chunk_id, 0, chunk.actions[0], observe(0).state)
    client.end_episode("failure", "sim", "time_limit", outcomes=[step])
    monkeypatch.setattr(audit, "append_line", read_only)
    for token in ("", "pirl_x_y"):
        with server.web(token) as web:
            assert web.get("/v1/jobs").status_code == 401
        with pytest.raises(grpc.RpcError) as caught:
            server.stub.GetInfo(pb.GetInfoRequest(), metadata=(("authorization", f"Bearer {token}"),))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "audit" not in (caught.value.details() or "")
    client.label_episode("success", "operator", episode_id=episode_id)
    client.close()
    with server.web(admin) as web:
        job = web.post("/v1/jobs", json={"kind": "sft", "task": "PushCube-v1"})
        assert job.status_code == 201
        assert web.post(f"/v1/jobs/{job.json()['id']}/cancel").status_code in (200, 409)
        assert server.registry.audit_log.failures >= 6
        refused = web.post("/v1/models/promote", json={"version": "v2", "force": True, "reason": "x"})
        assert (refused.status_code, server.engine.current and server.engine.current.version) == (503, "v1")
        assert "free disk space" not in refused.text, "that would not help"
    assert server.audited("call refused") == []


def test_an_error_of_ours_reaches_no_client_over_grpc(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Watched, metadata: object, peer: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "/secret/place")

    monkeypatch.setattr(Watched, "open", fail)
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.GetInfo(pb.GetInfoRequest())
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.INTERNAL,
        "internal error: see the server's log",
    )


def test_a_lock_is_closed_to_others_and_is_not_waited_for_for_ever(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = server.registry.audit_log.path.with_name(".lock")
    assert path.stat().st_mode & 0o077 == 0
    path.chmod(0o644)
    monkeypatch.setattr(atomic_files, "LOCK_S", 0.05)
    body = {"version": "v2", "force": True, "reason": "arm is parked"}
    with server.web(server.tokens.create("root", ["admin"])) as web:
        with path.open() as other:  # to read it is enough to lock it
            fcntl.flock(other, fcntl.LOCK_EX)
            refused = web.post("/v1/models/promote", json=body)
        assert (refused.status_code, str(path) in refused.json()["detail"]) == (503, True)
        assert server.registry.aliases() == {"production": "v1"}
        assert web.post("/v1/models/promote", json=body).status_code == 200, "negative control"
    assert path.stat().st_mode & 0o077 == 0, "an earlier version's is closed, too"


def test_a_link_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / ".lock").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic"), locked(tmp_path / ".lock"):
        pass


def served(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port))


def renew(files: TlsFiles, cert: Path, key: Path) -> None:
    shutil.copyfile(cert, files.cert)
    shutil.copyfile(key, files.key)


def test_a_renewed_certificate_serves_without_a_restart_on_every_port(tmp_path: Path, make_policy: Any) -> None:
    ours = Authority(tmp_path / "ca", "ours")
    days = {"first": 3, "second": 5, "third": 8}
    first, second, third = (ours.issue(name, (-1, until)) for name, until in days.items())
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key")
    renew(files, first.cert, first.key)
    (tmp_path / "root").mkdir()
    server = Server(tmp_path / "root", make_policy(), files)
    openpi = start_openpi(server.service.dispatcher, "127.0.0.1", 0, tls=files.context())
    try:
        ports = (server.port, server.rest.port, openpi.port)
        assert [served(port) for port in ports] == [first.cert.read_text()] * 3
        assert days_left(server) == {"server": 3}
        renew(files, second.cert, second.key)
        assert [served(port) for port in ports] == [second.cert.read_text()] * 3
        assert days_left(server) == {"server": 5}
        shutil.copyfile(third.cert, files.cert)  # half of a renewal
        assert [served(port) for port in ports] == [second.cert.read_text()] * 3
        assert days_left(server) == {"server": 5}
        files.key.unlink()
        assert [served(port) for port in ports] == [second.cert.read_text()] * 3
        shutil.copyfile(third.key, files.key)
        assert [served(port) for port in ports] == [third.cert.read_text()] * 3
        assert days_left(server) == {"server": 8}
    finally:
        openpi.close()
        server.close()


def days_left(server: Server) -> dict[str, int]:
    """By certificate, as a scrape has it."""
    (ends,) = [each for each in server.api.state.services.metrics.registry.collect() if "expiry" in each.name]
    return {each.labels["certificate"]: round((each.value - time.time()) / 86400) for each in ends.samples}


def test_a_renewed_authority_admits_its_clients_only(tmp_path: Path, make_policy: Any) -> None:
    ours, before, after = (Authority(tmp_path / name, name) for name in ("ours", "before", "after"))
    issued, clients = ours.issue("server"), (before.issue("robot"), after.issue("robot"))
    authority = tmp_path / "clients.pem"
    shutil.copyfile(before.cert, authority)
    (tmp_path / "root").mkdir()
    server = Server(tmp_path / "root", make_policy(), TlsFiles(issued.cert, issued.key, authority))
    try:
        assert [admitted(server, ours, each) for each in clients] == [[True, True], [False, False]]
        shutil.copyfile(after.cert, authority)
        assert [admitted(server, ours, each) for each in clients] == [[False, False], [True, True]]
        assert days_left(server) == {"server": 30, "client_ca": 30}
    finally:
        server.close()


def admitted(server: Server, ours: Authority, client: Any) -> list[bool]:
    """Whether REST, and gRPC, take the client's certificate."""
    trust = ssl.create_default_context(cafile=str(ours.cert))
    trust.load_cert_chain(client.cert, client.key)
    credentials = grpc.ssl_channel_credentials(*(path.read_bytes() for path in (ours.cert, client.key, client.cert)))
    answers = []
    try:
        with server.web("", verify=trust) as web:
            answers.append(web.get("/healthz").status_code == 200)
    except Exception:
        answers.append(False)
    with grpc.secure_channel(f"127.0.0.1:{server.port}", credentials) as channel:
        with pytest.raises(grpc.RpcError) as caught:  # without a token: refused by whom?
            policy_pb2_grpc.PolicyServiceStub(channel).GetInfo(pb.GetInfoRequest(), timeout=patient(20.0))
        answers.append(caught.value.code() is grpc.StatusCode.UNAUTHENTICATED)
    return answers
