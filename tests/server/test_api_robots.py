"""Robots over REST beside their sessions, and the gate in front of both: the whole server but for its policy."""

from __future__ import annotations

import json
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import grpc
import httpx
import pytest
import uvicorn
from certificates import Authority
from prometheus_client.parser import text_string_to_metric_families
from starlette.routing import Route

from pirl_contract import Contract, codec
from pirl_contract.connection import MAX_MESSAGE_BYTES
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc
from pirl_server.api import create_api
from pirl_server.episodes import EpisodeStore
from pirl_server.jobs import Supervisor
from pirl_server.layout import TOKENS
from pirl_server.registry import Registry
from pirl_server.security import ROUTES, SCOPES, CallInterceptor, Gate, GateWatcher, Limiter, TlsFiles, TokenFile
from pirl_server.serving import Engine, PolicyService, Recorder, start_grpc
from pirl_server.serving.deployment import Deployment
from pirl_server.serving.router import Router
from pirl_server.serving.shadow import Shadow
from pirl_server.telemetry import CallWatcher, Latencies, Metrics

ANY, PEOPLE, OPERATOR, TRAINER = (
    {"robot", "operator", "trainer", "admin"},
    {"operator", "trainer", "admin"},
    {"operator", "admin"},
    {"trainer", "admin"},
)
ID, HEX = "0" * 24, "0" * 32
CALLS = [
    ("GET", "/v1/info", ANY), ("GET", "/metrics", PEOPLE), ("GET", "/openapi.json", ANY), ("GET", "/docs", ANY),
    ("GET", "/v1/jobs", PEOPLE), ("POST", "/v1/jobs", TRAINER), ("GET", f"/v1/jobs/job_{ID}", PEOPLE),
    ("POST", f"/v1/jobs/job_{ID}/cancel", TRAINER), ("GET", f"/v1/jobs/job_{ID}/events", PEOPLE),
    ("GET", "/v1/episodes", PEOPLE), ("GET", f"/v1/episodes/{HEX}", PEOPLE), ("GET", "/v1/models", PEOPLE),
    ("POST", "/v1/models/promote", OPERATOR), ("POST", "/v1/models/rollback", OPERATOR), ("GET", "/v1/robots", PEOPLE),
    ("GET", "/v1/routing", PEOPLE), ("PUT", "/v1/routing/canary", OPERATOR), ("DELETE", "/v1/routing/canary", OPERATOR),
    ("PUT", "/v1/routing/shadow", OPERATOR), ("DELETE", "/v1/routing/shadow", OPERATOR),
    ("PUT", "/v1/routing/pins/arm-1", OPERATOR), ("DELETE", "/v1/routing/pins/arm-1", OPERATOR),
    ("POST", "/v1/robots/arm-1/emergency-stop", PEOPLE), ("POST", "/v1/emergency-stop", PEOPLE),
]  # fmt: skip


class Server:
    """gRPC and REST of one server, with tokens."""

    def __init__(
        self, root: Path, policy: Any, files: TlsFiles | None = None, rest_limiter: Limiter | None = None
    ) -> None:
        self.engine, store = Engine(), EpisodeStore(root / "episodes")
        self.engine.swap(policy)
        self.recorder, self.registry = Recorder(store), Registry(root / "models")
        self.tokens, self.now = TokenFile(root / TOKENS), 0
        self.router = Router(self.recorder.is_open)
        service = PolicyService(self.engine, self.recorder, explore=False, router=self.router)
        self.service, audit = service, self.registry.audit_log
        self.gate = Gate(self.tokens, audit, Limiter(10**9, 3, clock=lambda: self.now))
        for version in ("v1", "v2"):
            (source := root / version).mkdir()
            (source / "card.json").write_text("{}")
            self.registry.add(version, source, policy.contract)
        self.registry.point("production", "v1", "test", "start")
        shadow = Shadow(self.engine, lambda report: None)
        self.engine.observe(shadow.watch)
        self.deployment = Deployment(
            self.engine,
            self.registry,
            self.router,
            shadow,
            lambda version: type(policy)(version=version, mark=float(version[1:])),
        )
        metrics, latencies = Metrics(self.engine, service.attendance, self.recorder), Latencies()
        interceptor = CallInterceptor([CallWatcher([metrics, latencies]), GateWatcher(self.gate, audit)])
        credentials = files.for_grpc() if files else None
        self.grpc, self.port = start_grpc(service, "127.0.0.1:0", credentials, [interceptor])
        self.jobs = Supervisor(root / "jobs", [sys.executable, "-c", ""])
        self.api = create_api(
            jobs=self.jobs,
            registry=self.registry,
            episodes=store,
            engine=self.engine,
            deployment=self.deployment,
            check_job=lambda spec: None,
            grpc_port=self.port,
            attendance=service.attendance,
            gate=self.gate,
            metrics=metrics,
            latencies=latencies,
            limiter=rest_limiter,
        )
        config = uvicorn.Config(self.api, port=0, log_level="critical", **(files.for_uvicorn() if files else {}))
        self.rest = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.rest.run)
        self.thread.start()
        while not self.rest.started:
            time.sleep(0.005)
        scheme = "https" if files else "http"
        self.url = f"{scheme}://127.0.0.1:{self.rest.servers[0].sockets[0].getsockname()[1]}"
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.stub: Any = policy_pb2_grpc.PolicyServiceStub(self.channel)

    def web(self, token: str = "", **settings: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, **settings)

    def close(self) -> None:
        self.channel.close()
        self.rest.should_exit = True
        self.thread.join()
        self.grpc.stop(None).wait()
        self.jobs.close()
        self.engine.close()
        self.recorder.close()

    def audited(self, event: str) -> list[dict[str, str]]:
        lines = map(json.loads, self.registry.audit_log.path.read_text().splitlines())
        return [line for line in lines if line["event"] == event]


@pytest.fixture
def server(tmp_path: Path, make_policy: Any) -> Iterator[Server]:
    made = Server(tmp_path, make_policy())
    yield made
    made.close()


class Robot:
    """A session that is written to by hand."""

    def __init__(self, stub: Any, token: str, robot_id: str) -> None:
        self.requests: Queue[pb.SessionRequest | None] = Queue()
        self.replies = stub.Session(iter(self.requests.get, None), metadata=(("authorization", f"Bearer {token}"),))
        self.ask(1, pb.GetInfoRequest(robot_id=robot_id))
        assert next(self.replies).WhichOneof("reply") == "get_info"

    def ask(self, id: int, request: Any) -> None:
        name = {"GetInfoRequest": "get_info", "InferRequest": "infer"}[type(request).__name__]
        self.requests.put(pb.SessionRequest(id=id, **{name: request}))

    def close(self) -> None:
        self.requests.put(None)
        assert list(self.replies) == []


def test_a_stop_reaches_the_robots_session_and_says_what_it_is(server: Server) -> None:
    fleet, anna = server.tokens.create("fleet", ["robot"]), server.tokens.create("anna", ["operator"])
    one, two = Robot(server.stub, fleet, "arm-1"), Robot(server.stub, fleet, "arm-2")
    with server.web(anna) as web:
        listed = web.get("/v1/robots").json()["data"]
        assert [(robot["id"], robot["connected"]) for robot in listed] == [("arm-1", True), ("arm-2", True)]
        reply = web.post("/v1/robots/arm-1/emergency-stop", json={"reason": "hand in the way"})
        assert (reply.status_code, reply.json()["told"]) == (202, ["arm-1"])
        assert "not safety-rated" in reply.json()["note"]
        stop = next(one.replies).event.emergency_stop
        assert stop.reason == "hand in the way"
        assert stop.by == "anna (rest:127.0.0.1)"
        everyone = web.post("/v1/emergency-stop")
        assert everyone.json()["told"] == ["arm-1", "arm-2"]
        assert next(one.replies).WhichOneof("reply") == next(two.replies).WhichOneof("reply") == "event"
        one.close(), two.close()
        while any(robot["connected"] for robot in web.get("/v1/robots").json()["data"]):
            time.sleep(0.005)
        for path in ("/v1/robots/arm-1/emergency-stop", "/v1/robots/arm-9/emergency-stop", "/v1/emergency-stop"):
            gone = web.post(path)
            assert (gone.status_code, gone.json()["type"]) == (404, "/problems/not-connected"), path
        assert web.post("/v1/robots/arm-1/emergency-stop/clear").status_code == 404
        assert web.delete("/v1/robots/arm-1/emergency-stop").status_code == 405
    audited = server.audited("emergency stop")
    assert [line["result"] for line in audited] == ["told", "told", "nobody told", "nobody told", "nobody told"]
    assert {line["actor"] for line in audited} == {"anna (rest:127.0.0.1)"}


def test_a_full_disk_does_not_hide_that_the_robots_were_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    robot = Robot(server.stub, server.tokens.create("fleet", ["robot"]), "arm-1")
    anna = server.tokens.create("anna", ["operator"])

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(server.registry.audit_log, "write", full)
    with server.web(anna) as web:
        assert web.post("/v1/emergency-stop").json()["told"] == ["arm-1"]
    assert next(robot.replies).HasField("event")
    robot.close()


def test_latency_and_version_of_the_last_answer_are_listed(server: Server, contract: Contract, observe: Any) -> None:
    fleet, anna = server.tokens.create("fleet", ["robot"]), server.tokens.create("anna", ["operator"])
    picture = codec.observation_to_proto(observe(0))
    ask = pb.InferRequest(robot_id="arm-1", contract_hash=contract.hash, observation=picture)
    server.stub.Infer(ask, metadata=(("authorization", f"Bearer {fleet}"),))
    with server.web(anna) as web:
        (robot,) = web.get("/v1/robots").json()["data"]
    assert (robot["connected"], robot["policy_version"]) == (False, "v1")
    assert robot["latency_ms"] > 0


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
        (bytes(8 * 6 * 3), 2**31, "image"),
        (bytes(100), 8, "image"),
    ):
        picture = codec.observation_to_proto(observe(0))
        picture.images["wrist"].CopyFrom(pb.Image(encoding=pb.IMAGE_ENCODING_RGB8, height=height, width=6, data=data))
        ask = pb.InferRequest(robot_id="arm-1", contract_hash=contract.hash, observation=picture)
        with pytest.raises(grpc.RpcError) as refused:
            server.stub.Infer(ask, metadata=headers)
        assert refused.value.code().name in ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")
        assert words in refused.value.details()
    assert len(server.engine.current.batches) == batches


@pytest.mark.parametrize(("where", "words"), [("queue", "queue is full"), ("disk", "MiB are left")])
def test_not_ready_without_room(server: Server, monkeypatch: pytest.MonkeyPatch, where: str, words: str) -> None:
    if where == "queue":
        monkeypatch.setattr(server.engine, "queue_size", 0)
    else:
        monkeypatch.setattr("pirl_server.api.health.MIN_FREE_BYTES", 2**60)
    with server.web() as web:
        reply = web.get("/readyz")
        assert (reply.status_code, words in reply.json()["detail"]) == (503, True)
        assert web.get("/healthz").status_code == 200


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
    pages = {("GET", route.path) for route in server.api.routes if type(route) is Route}  # OpenAPI and its readers
    assert len(pages) == 4
    assert described | pages == set(ROUTES)


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


def answered_by(server: Server, contract: Contract, observe: Any, token: str, robot: str) -> str:
    picture = codec.observation_to_proto(observe(0))
    ask = pb.InferRequest(robot_id=robot, contract_hash=contract.hash, observation=picture)
    return str(server.stub.Infer(ask, metadata=(("authorization", f"Bearer {token}"),)).policy_version)


def test_canary_shadow_and_pins_are_set_seen_and_taken_back(server: Server, contract: Contract, observe: Any) -> None:
    fleet, anna = server.tokens.create("fleet", ["robot"]), server.tokens.create("anna", ["operator"])

    def served() -> list[str]:
        server.now += 10**10  # none of this is about rates
        return [answered_by(server, contract, observe, fleet, robot) for robot in ("arm-1", "arm-2")]

    with server.web(anna) as web:
        assert served() == ["v1", "v1"]
        seen = web.put("/v1/routing/canary", json={"version": "v2", "robots": ["arm-1"], "reason": "try it"}).json()
        assert seen["canary"] == {"version": "v2", "robots": ["arm-1"], "share": 0.0}
        assert seen["aliases"] == {"production": "v1", "candidate": "v2"}
        assert served() == ["v2", "v1"]
        assert web.put("/v1/routing/pins/arm-2", json={"version": "v2"}).json()["pins"] == {"arm-2": "v2"}
        assert web.delete("/v1/routing/canary", params={"reason": "too slow"}).json()["canary"] is None
        assert served() == ["v1", "v2"]
        assert web.delete("/v1/routing/pins/arm-2").json()["pins"] == {}
        assert served() == ["v1", "v1"]
        assert web.put("/v1/routing/shadow", json={"version": "v2"}).json()["shadow"]["share"] == 1.0
        assert served() == ["v1", "v1"]
        while (report := web.get("/v1/routing").json()["shadow"]["report"])["compared"] < 2:
            time.sleep(0.005)
        assert report["rms"] == report["worst"] == {"dq0": 1.0, "dq1": 1.0}
        assert web.delete("/v1/routing/shadow").json()["shadow"] is None
    audited = [
        line
        for line in map(json.loads, server.registry.audit_log.path.read_text().splitlines())
        if "anna" in line["actor"]
    ]
    assert {line["reason"] for line in audited} >= {"try it", "too slow"}


def test_routing_that_means_nothing_is_refused(server: Server) -> None:
    with server.web(server.tokens.create("anna", ["operator"])) as web:
        for method, path, body, status in (
            ("PUT", "canary", {"version": "v9"}, 404),
            ("PUT", "canary", {"version": "v2", "share": 1.5}, 422),
            ("PUT", "canary", {"version": "v2", "robots": ["../x"]}, 422),
            ("PUT", "pins/arm-1", {"version": "v9"}, 404),
            ("PUT", "pins/..%2fx", {"version": "v2"}, 404),
            ("DELETE", "pins/arm-1", None, 404),
            ("DELETE", "canary", None, 409),
            ("DELETE", "shadow", None, 409),
        ):
            reply = web.request(method, f"/v1/routing/{path}", json=body)
            assert reply.status_code == status, (method, path, reply.text)
            assert reply.headers["Content-Type"] == "application/problem+json"
        assert web.get("/v1/routing").json() == {
            "aliases": {"production": "v1"}, "pins": {}, "canary": None, "shadow": None,
        }  # fmt: skip


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
        ):
            assert web.get("/v1/robots", headers=headers).status_code == status, headers


def test_a_scrape_answers_while_the_device_is_busy(server: Server, contract: Contract, observe: Any) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        assert go_on.wait(60)

    object.__setattr__(server.engine.current, "before", block)
    fleet, anna = server.tokens.create("fleet", ["robot"]), server.tokens.create("anna", ["operator"])
    picture = codec.observation_to_proto(observe(0))
    ask = pb.InferRequest(robot_id="arm-1", contract_hash=contract.hash, observation=picture)
    pending = server.stub.Infer.future(ask, metadata=(("authorization", f"Bearer {fleet}"),))
    assert entered.wait(20)
    with server.web(anna) as web:
        reply = web.get("/metrics")
        assert reply.headers["Content-Type"].startswith("text/plain")
        samples = {
            (each.name, *each.labels.values()): each.value
            for one in text_string_to_metric_families(reply.text)
            for each in one.samples
        }
        assert samples["pirl_inferences_total", "answered"] == 0
        assert samples["pirl_version_loaded", "v1"] == 2
        assert web.get("/readyz").status_code == 200
    assert not pending.done()
    go_on.set()
    assert pending.result().policy_version == "v1"
