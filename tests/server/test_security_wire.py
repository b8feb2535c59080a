"""What gets through a real gRPC port, and what does not: certificates, tokens, scopes, robots, rates."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority
from patience import patient
from whole_server import Server

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc
from pirl_contract.wire.grpc_options import RETRY_AFTER, STATUS_BY_NUMBER
from pirl_server.registry.audit import AuditLog
from pirl_server.rpc.interceptor import CallInterceptor
from pirl_server.security.access_control import AccessControl, CallAuthorizer
from pirl_server.security.permissions import PUBLIC_RPCS, RPCS, SCOPES
from pirl_server.security.tls import TlsFiles
from pirl_server.security.tokens import TokenFile

PIRL = pb.DESCRIPTOR.services_by_name["PolicyService"]
UNARY = [method.name for method in PIRL.methods if not method.client_streaming]
ALLOWED = {
    "GetInfo": {"robot", "operator", "trainer", "admin"},
    "Infer": {"robot", "admin"},
    "Session": {"robot", "admin"},
    "StartEpisode": {"robot", "admin"},
    "EndEpisode": {"robot", "admin"},
    "ReportOutcomes": {"robot", "admin"},
    "LabelEpisode": {"robot", "operator", "admin"},
}
OK, UNAUTHENTICATED, DENIED = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


class EmptyService(policy_pb2_grpc.PolicyServiceServicer):  # type: ignore[misc]
    """Answers every call that reaches it."""

    def Session(self, requests: Any, context: Any) -> Any:
        for request in requests:
            refused = isinstance(request, pb.SessionReply)
            yield request if refused else pb.SessionReply(id=request.id, infer=pb.InferReply())


for _method in PIRL.methods:
    if not _method.client_streaming:
        _reply = getattr(pb, _method.output_type.name)
        setattr(EmptyService, _method.name, lambda self, request, context, reply=_reply: reply())


class Port:
    """A listening server, its tokens and its audit log."""

    def __init__(self, tmp_path: Path, files: TlsFiles | None = None) -> None:
        self.tokens, self.audit = TokenFile(tmp_path / "tokens.json"), AuditLog(tmp_path / "audit.jsonl")
        gate = AccessControl(self.tokens, self.audit, None, {"of-arm-1": "arm-1", "of-arm-2": "arm-2"}.get)
        self._threads = ThreadPoolExecutor(8)
        self.server = grpc.server(
            self._threads, interceptors=[CallInterceptor([CallAuthorizer(gate, self.audit)], PUBLIC_RPCS)]
        )
        policy_pb2_grpc.add_PolicyServiceServicer_to_server(EmptyService(), self.server)
        credentials = files and files.for_grpc()
        address = "127.0.0.1:0"
        self.number = (
            self.server.add_secure_port(address, credentials) if credentials else self.server.add_insecure_port(address)
        )
        self.server.start()

    def close(self) -> None:
        self.server.stop(None).wait()
        self._threads.shutdown()

    @contextmanager
    def stub(self, credentials: grpc.ChannelCredentials | None = None) -> Iterator[Any]:
        address = f"127.0.0.1:{self.number}"
        with grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address) as channel:
            yield policy_pb2_grpc.PolicyServiceStub(channel)

    def audited(self) -> list[dict[str, str]]:
        return (
            [json.loads(line) for line in self.audit.path.read_text().splitlines()] if self.audit.path.exists() else []
        )


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    made = Port(tmp_path)
    yield made
    made.close()


def bearer(text: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {text}"),) if text else ()


def outcome(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Status, its words and the trailing metadata of a call."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details(), dict(error.trailing_metadata() or ())
    return OK, "", {}


def session(stub: Any, text: str, requests: list[pb.SessionRequest]) -> tuple[list[Any], grpc.StatusCode]:
    seen: list[Any] = []
    call = stub.Session(iter(requests), metadata=bearer(text), timeout=patient(20))
    return seen, outcome(lambda: seen.extend(call))[0]


def ask(stub: Any, name: str, text: str, **fields: Any) -> grpc.StatusCode:
    if name == "Session":
        request = pb.SessionRequest(id=1, infer=pb.InferRequest(**fields))
        replies, code = session(stub, text, [request])
        return STATUS_BY_NUMBER[replies[0].error.code] if replies else code
    request = getattr(pb, PIRL.methods_by_name[name].input_type.name)(**fields)
    return outcome(lambda: getattr(stub, name)(request, metadata=bearer(text), timeout=patient(20)))[0]


@contextmanager
def listening(tmp_path: Path, files: TlsFiles) -> Iterator[Port]:
    made = Port(tmp_path, files)
    yield made
    made.close()


def test_a_tls_port_speaks_only_to_who_trusts_its_authority(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ca", "ours"), Authority(tmp_path / "ca", "theirs")
    server = ours.issue("server")
    with listening(tmp_path, TlsFiles(server.cert, server.key)) as port:
        text = port.tokens.create("arm1", ["robot"])
        trusts, doubts = (grpc.ssl_channel_credentials(ca.cert.read_bytes()) for ca in (ours, theirs))
        for credentials, code in (
            (trusts, OK),
            (doubts, grpc.StatusCode.UNAVAILABLE),
            (None, grpc.StatusCode.UNAVAILABLE),
        ):
            with port.stub(credentials) as stub:
                assert ask(stub, "GetInfo", text) is code


def test_a_client_refuses_a_certificate_that_expired_while_the_server_ran(tmp_path: Path) -> None:
    ours = Authority(tmp_path / "ca", "ours")
    old = ours.issue("server", (-9, -1))
    files = TlsFiles(old.cert, old.key)
    with pytest.raises(ValueError, match="expired"):
        files.check()
    object.__setattr__(files, "check", lambda: None)  # started when it was valid
    with listening(tmp_path, files) as port, port.stub(grpc.ssl_channel_credentials(ours.cert.read_bytes())) as stub:
        assert ask(stub, "GetInfo", port.tokens.create("arm1", ["robot"])) is grpc.StatusCode.UNAVAILABLE


def test_mutual_tls_wants_a_certificate_of_our_clients_authority(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ca", "ours"), Authority(tmp_path / "ca", "theirs")
    server = ours.issue("server")
    with listening(tmp_path, TlsFiles(server.cert, server.key, ours.cert)) as port:
        text = port.tokens.create("arm1", ["robot"])
        for issued, code in (
            (ours.issue("robot"), OK),
            (None, grpc.StatusCode.UNAVAILABLE),
            (theirs.issue("robot"), grpc.StatusCode.UNAVAILABLE),
            (ours.issue("late", (-9, -1)), grpc.StatusCode.UNAVAILABLE),
        ):
            pair = (issued.key.read_bytes(), issued.cert.read_bytes()) if issued else (None, None)
            with port.stub(grpc.ssl_channel_credentials(ours.cert.read_bytes(), *pair)) as stub:
                assert ask(stub, "GetInfo", text) is code, issued


def test_every_rpc_has_its_row() -> None:
    assert {method.name for method in PIRL.methods} == set(ALLOWED)
    assert {f"/{PIRL.full_name}/{name}" for name in ALLOWED} == {rpc for rpc in RPCS if rpc.startswith("/pirl.")}


def test_each_scope_may_call_what_its_row_says_and_nothing_else(port: Port) -> None:
    texts = {scope: port.tokens.create(scope, [scope]) for scope in SCOPES}
    with port.stub() as stub:
        found = {(name, scope): ask(stub, name, text) for name in ALLOWED for scope, text in texts.items()}
    assert found == {(name, scope): OK if scope in ALLOWED[name] else DENIED for name, scope in found}


def test_a_call_without_a_row_is_refused_even_to_admin(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    text = port.tokens.create("root", ["admin"])
    with port.stub() as stub:
        assert ask(stub, "GetInfo", text) is OK
        monkeypatch.delitem(RPCS, "/pirl.v1.PolicyService/GetInfo")
        assert ask(stub, "GetInfo", text) is DENIED


def test_tokens_that_are_none_get_the_same_words(port: Port) -> None:
    revoked, late = port.tokens.create("gone", ["robot"]), datetime.now(timezone.utc) - timedelta(seconds=1)
    expired = port.tokens.create("late", ["robot"], expires=late)
    port.tokens.revoke("gone")
    with port.stub() as stub:
        found = {
            outcome(lambda text=text: stub.GetInfo(pb.GetInfoRequest(), metadata=bearer(text)))[:2]
            for text in ("", "pirl_x_y", revoked, expired)
        }
        assert [code for code, _ in found] == [UNAUTHENTICATED]
        basic = (("authorization", f"Basic {revoked}"),)
        assert outcome(lambda: stub.GetInfo(pb.GetInfoRequest(), metadata=basic))[0] is UNAUTHENTICATED
    assert len(port.audited()) == 5
    assert {(line["event"], line["reason"]) for line in port.audited()} == {("call refused", "token")}


def test_a_robots_token_speaks_for_that_robot_only(port: Port) -> None:
    bound, free = port.tokens.create("arm1", ["robot"], ["arm-1"]), port.tokens.create("fleet", ["robot"])
    with port.stub() as stub:
        for name in ("GetInfo", "Infer", "Session", "StartEpisode"):
            found = [ask(stub, name, bound, robot_id=robot) for robot in ("arm-1", "arm-2")]
            assert found == [OK, DENIED], name
            assert ask(stub, name, free, robot_id="arm-2") is OK
        for name in ("EndEpisode", "ReportOutcomes", "LabelEpisode"):
            found = [ask(stub, name, bound, episode_id=episode) for episode in ("of-arm-1", "of-arm-2", "of-none")]
            assert found == [OK, DENIED, OK], name
        assert ask(stub, "Infer", bound) is DENIED  # no name is nobody's name


def test_a_session_goes_on_after_a_message_for_another_robot_was_refused(port: Port) -> None:
    text = port.tokens.create("arm1", ["robot"], ["arm-1"])
    mine, other = pb.InferRequest(robot_id="arm-1"), pb.InferRequest(robot_id="arm-2")
    with port.stub() as stub:
        good = [pb.SessionRequest(id=i, infer=mine) for i in (1, 2, 3)]
        seen, code = session(stub, text, [good[0], pb.SessionRequest(id=2, infer=other), good[2]])
    assert [(reply.id, STATUS_BY_NUMBER[reply.error.code]) for reply in seen] == [(1, OK), (2, DENIED), (3, OK)]
    assert code is OK
    assert [line["reason"] for line in port.audited()] == ["robot"]


def test_a_session_ends_when_its_token_is_revoked(port: Port) -> None:
    text = port.tokens.create("arm1", ["robot"])

    answered = threading.Event()

    def requests() -> Iterator[pb.SessionRequest]:
        yield pb.SessionRequest(id=1, infer=pb.InferRequest(robot_id="arm-1"))
        assert answered.wait(patient(20))
        port.tokens.revoke("arm1")
        yield pb.SessionRequest(id=2, infer=pb.InferRequest(robot_id="arm-1"))

    with port.stub() as stub:
        call = stub.Session(requests(), metadata=bearer(text), timeout=patient(20))
        assert next(call).id == 1
        answered.set()
        assert outcome(lambda: next(call))[0] is UNAUTHENTICATED


def test_a_robot_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path, make_policy: Any) -> None:
    """Three at once, then one a second; what is wrong with these requests otherwise is said only to those let in."""
    server = Server(tmp_path, make_policy())
    text = server.tokens.create("fleet", ["robot"])
    stub, refused = server.stub, grpc.StatusCode.RESOURCE_EXHAUSTED

    def infer(robot: str) -> tuple[grpc.StatusCode, str, dict[str, str]]:
        return outcome(lambda: stub.Infer(pb.InferRequest(robot_id=robot), metadata=bearer(text)))

    assert {infer("a")[0] for _ in range(3)} == {grpc.StatusCode.FAILED_PRECONDITION}
    code, words, trailing = infer("a")
    assert (code, words, trailing[RETRY_AFTER]) == (refused, "rate limit exceeded", "1000")
    request = pb.SessionRequest(id=1, infer=pb.InferRequest(robot_id="a"))
    (reply,) = stub.Session(iter([request]), metadata=bearer(text), timeout=patient(20))
    assert (STATUS_BY_NUMBER[reply.error.code], reply.error.retry_after_ms) == (refused, 1000)
    assert infer("b")[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert ask(stub, "GetInfo", text, robot_id="a") is OK  # only what touches the device is counted
    server.now += 10**9
    assert infer("a")[0] is grpc.StatusCode.FAILED_PRECONDITION
    server.close()


def test_a_changed_label_is_written_down_with_who_did_it(port: Port) -> None:
    text = port.tokens.create("anna", ["operator"])
    with port.stub() as stub:
        ask(stub, "LabelEpisode", text, episode_id="of-arm-1", outcome=pb.OUTCOME_FAILURE, note="dropped it")
    line = port.audited()[0]
    assert (line["event"], line["episode"], line["label"], line["previous"], line["reason"]) == (
        "label changed", "of-arm-1", "OUTCOME_FAILURE", "OUTCOME_UNLABELED", "dropped it",
    )  # fmt: skip
    assert line["actor"].startswith("anna (ipv4:127.0.0.1:")


def test_refusals_cannot_fill_the_disk(port: Port) -> None:
    with port.stub() as stub:
        assert {ask(stub, "GetInfo", "pirl_x_y") for _ in range(40)} == {UNAUTHENTICATED}
    assert len(port.audited()) == 10
