"""The gate before both doors of a whole server: scopes, robots, rates, sizes, certificates, pages of other sites."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from certificates import Authority
from starlette.routing import Route
from whole_server import Robot, Server

from pirl_contract import Contract
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire import codec
from pirl_contract.wire.grpc_options import MAX_MESSAGE_BYTES
from pirl_server.security.permissions import ROUTES, SCOPES
from pirl_server.security.rate_limiter import Limiter
from pirl_server.security.tls import TlsFiles

ANY, PEOPLE, OPERATOR, TRAINER = (
    {"robot", "operator", "trainer", "admin"},
    {"operator", "trainer", "admin"},
    {"operator", "admin"},
    {"trainer", "admin"},
)
ID, HEX = "0" * 24, "0" * 32
CALLS = [
    ("GET", "/v1/info", ANY), ("GET", "/metrics", PEOPLE), ("GET", "/openapi.json", ANY),
    ("GET", "/v1/jobs", PEOPLE), ("POST", "/v1/jobs", TRAINER), ("GET", f"/v1/jobs/job_{ID}", PEOPLE),
    ("POST", f"/v1/jobs/job_{ID}/cancel", TRAINER), ("GET", f"/v1/jobs/job_{ID}/events", PEOPLE),
    ("GET", "/v1/episodes", PEOPLE), ("GET", f"/v1/episodes/{HEX}", PEOPLE), ("GET", "/v1/models", PEOPLE),
    ("GET", f"/v1/episodes/{HEX}/labels", PEOPLE), ("POST", f"/v1/episodes/{HEX}/labels", OPERATOR),
    ("POST", f"/v1/episodes/{HEX}/labels/undo", OPERATOR), ("DELETE", f"/v1/episodes/{HEX}", OPERATOR),
    ("GET", "/v1/datasets", PEOPLE), ("POST", "/v1/datasets", TRAINER), ("GET", "/v1/datasets/first", PEOPLE),
    ("POST", "/v1/models/promote", OPERATOR), ("POST", "/v1/models/rollback", OPERATOR), ("GET", "/v1/robots", PEOPLE),
    ("GET", "/v1/routing", PEOPLE), ("PUT", "/v1/routing/canary", OPERATOR), ("DELETE", "/v1/routing/canary", OPERATOR),
    ("PUT", "/v1/routing/shadow", OPERATOR), ("DELETE", "/v1/routing/shadow", OPERATOR),
    ("PUT", "/v1/routing/pins/arm-1", OPERATOR), ("DELETE", "/v1/routing/pins/arm-1", OPERATOR),
    ("GET", "/v1/system", PEOPLE), ("GET", f"/v1/jobs/job_{ID}/log", PEOPLE),
    ("GET", f"/v1/jobs/job_{ID}/checkpoints", PEOPLE), ("GET", f"/v1/jobs/job_{ID}/artefacts", PEOPLE),
    ("GET", f"/v1/jobs/job_{ID}/artefacts/checkpoint/card.json", TRAINER),
    ("GET", f"/v1/episodes/{HEX}/frames/wrist/0.jpg", PEOPLE), ("GET", f"/v1/episodes/{HEX}/video.mp4", PEOPLE),
    ("GET", f"/v1/episodes/{HEX}/steps", PEOPLE), ("GET", "/v1/models/v1", PEOPLE),
    ("GET", "/v1/models/v1/lineage", PEOPLE), ("GET", "/v1/evaluations", PEOPLE), ("GET", "/v1/evaluations/x", PEOPLE),
    ("POST", "/v1/robots/arm-1/emergency-stop", PEOPLE), ("POST", "/v1/emergency-stop", PEOPLE),
]  # fmt: skip


def test_refusals_within_a_real_session_leave_it_open(server: Server, contract: Contract, observe: Any) -> None:
    robot = Robot(server.stub, server.tokens.create("arm1", ["robot"], ["arm-1"]), "arm-1")
    picture = codec.observation_to_proto(observe(0))
    for i in range(2, 7):
        ask = pb.InferRequest(robot_id="arm-1", sequence=i, contract_hash=contract.hash, observation=picture)
        robot.ask(i, ask)
        reply = next(robot.replies)
        assert reply.id == i
        assert reply.WhichOneof("reply") == ("infer" if i < 5 else "error")
    busy = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert (reply.error.code, reply.error.retry_after_ms) == (busy, 1000)
    server.now += 10**9
    robot.ask(7, ask)
    assert next(robot.replies).HasField("infer")
    robot.ask(8, pb.InferRequest(robot_id="arm-2"))
    assert next(robot.replies).error.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
    server.tokens.revoke("arm1")
    robot.ask(9, ask)
    with pytest.raises(grpc.RpcError) as ended:
        next(robot.replies)
    assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_what_is_too_large_never_reaches_the_policy(server: Server, contract: Contract, observe: Any) -> None:
    headers = (("authorization", f"Bearer {server.tokens.create('fleet', ['robot'])}"),)
    batches = len(server.engine.current.batches)
    for data, height, words in (
        (bytes(MAX_MESSAGE_BYTES), 8, "larger than max"),
        (bytes(8 * 6 * 3), 2**31, "camera 'wrist'"),
        (bytes(100), 8, "wrist"),
    ):
        picture = codec.observation_to_proto(observe(0))
        picture.images["wrist"].CopyFrom(pb.Image(encoding=pb.IMAGE_ENCODING_RGB8, height=height, width=6, data=data))
        ask = pb.InferRequest(robot_id="arm-1", contract_hash=contract.hash, observation=picture)
        with pytest.raises(grpc.RpcError) as refused:
            server.stub.Infer(ask, metadata=headers)
        assert refused.value.code().name in ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")
        assert words in refused.value.details()
    assert len(server.engine.current.batches) == batches


def test_health_over_grpc_needs_no_token(server: Server) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

    stub = health_pb2_grpc.HealthStub(server.channel)
    assert stub.Check(health_pb2.HealthCheckRequest(service="")).status == 1
    assert next(stub.Watch(health_pb2.HealthCheckRequest(service=""))).status == 1


def test_each_scope_may_call_what_its_row_says(server: Server) -> None:
    texts = {scope: server.tokens.create(scope, [scope]) for scope in SCOPES}
    for scope, text in texts.items():
        with server.web(text) as web:
            for method, path, allowed in CALLS:
                status = web.request(method, path).status_code
                assert (status != 403) == (scope in allowed), (scope, method, path, status)
                assert status not in (401, 500)
    with server.web() as web:
        found = {(method, path): web.request(method, path).status_code for method, path, _ in CALLS}
        assert set(found.values()) == {401}
        assert [web.get(path).status_code for path in ("/healthz", "/readyz", "/nothing")] == [200, 200, 401]


def test_every_route_has_its_row_and_every_row_its_route(server: Server) -> None:
    described = {(verb.upper(), path) for path, verbs in server.api.openapi()["paths"].items() for verb in verbs}
    pages = {("GET", route.path) for route in server.api.routes if type(route) is Route}  # the document
    assert len(pages) == 1
    written = {("GET", path) for path in ("/docs", "/dashboard", "/dashboard/{name}")}
    assert described | pages | written == set(ROUTES)


def test_a_route_without_a_row_is_refused_even_to_admin(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with server.web(server.tokens.create("root", ["admin"])) as web:
        assert web.get("/v1/robots").status_code == 200
        monkeypatch.delitem(ROUTES, ("GET", "/v1/robots"))
        assert web.get("/v1/robots").status_code == 403


def test_refusals_are_problems_that_leak_nothing(server: Server) -> None:
    revoked = server.tokens.create("gone", ["admin"])
    server.tokens.revoke("gone")
    bodies = set()
    for text in ("", "pirl_x_y", revoked):
        with server.web(text) as web:
            reply = web.get("/v1/jobs")
            assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert reply.headers["Content-Type"] == "application/problem+json"
            bodies.add(reply.text)
    assert len(bodies) == 1
    with server.web(server.tokens.create("arm", ["robot"])) as web:
        reply = web.post("/v1/models/promote", json={"version": "v2"})
        assert (reply.status_code, reply.json()["type"]) == (403, "/problems/forbidden")
        assert "v2" not in reply.text


def test_force_takes_an_admin(server: Server) -> None:
    wish = {"version": "v9", "force": True, "reason": "parked"}
    for scope, status in (("operator", 403), ("admin", 404)):
        with server.web(server.tokens.create(scope, [scope])) as web:
            assert web.post("/v1/models/promote", json=wish).status_code == status


def test_rest_over_tls_and_a_limit_that_spares_the_stop(tmp_path: Path, make_policy: Any) -> None:
    ours = Authority(tmp_path / "ca", "ours")
    issued = ours.issue("server")
    limiter = Limiter(2 * 10**9, 2, clock=lambda: 0)
    server = Server(tmp_path, make_policy(), TlsFiles(issued.cert, issued.key), limiter)
    try:
        with server.web(
            server.tokens.create("anna", ["operator"]), verify=ssl.create_default_context(cafile=str(ours.cert))
        ) as web:
            assert [web.get("/v1/info").status_code for _ in range(3)] == [200, 200, 429]
            assert web.get("/v1/info").headers["Retry-After"] == "2"
            assert web.post("/v1/emergency-stop").status_code == 404  # nobody there, but asked
            assert web.get("/healthz").status_code == 200
        with pytest.raises(httpx.ConnectError), server.web() as web:
            web.get("/healthz")
        with (
            pytest.raises(httpx.RemoteProtocolError),
            httpx.Client(base_url=server.url.replace("https", "http")) as web,
        ):
            web.get("/healthz")
    finally:
        server.close()


def test_without_tokens_pages_of_other_sites_are_refused(server: Server) -> None:
    server.gate.open, server.gate._tokens = True, None
    with server.web() as web:
        own = web.base_url.netloc.decode()
        for headers, status in (
            ({}, 200),
            ({"Origin": f"http://{own}"}, 200),
            ({"Host": "localhost:8000"}, 200),
            ({"Host": "[::1]:8000"}, 200),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Host": "evil.example:8000", "Origin": "http://evil.example:8000"}, 403),
            ({"Host": "evil.example"}, 403),
            ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
            ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
            (
                {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Origin": "http://evil.example"},
                403,
            ),
        ):
            assert web.get("/v1/robots", headers=headers).status_code == status, headers
