"""Robots over REST beside their sessions: listed, stopped, routed; readiness and a scrape."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import patient
from prometheus_client.parser import text_string_to_metric_families
from whole_server import Robot, Server

from pirl_contract import Contract
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire import codec


@pytest.fixture
def server(tmp_path: Path, make_policy: Any) -> Iterator[Server]:
    made = Server(tmp_path, make_policy())
    yield made
    made.close()


def test_a_stop_reaches_the_robots_session_and_says_what_it_is(server: Server) -> None:
    fleet, anna = server.tokens.create("fleet", ["robot"]), server.tokens.create("anna", ["operator"])
    one, two = Robot(server.stub, fleet, "arm-1"), Robot(server.stub, fleet, "arm-2")
    with server.web(anna) as web:
        listed = web.get("/v1/robots").json()["data"]
        assert [(robot["id"], robot["connected"]) for robot in listed] == [("arm-1", True), ("arm-2", True)]
        reply = web.post("/v1/robots/arm-1/emergency-stop", json={"reason": "hand in the way"})
        assert (reply.status_code, reply.json()["notified"]) == (202, ["arm-1"])
        assert reply.json()["told"] == ["arm-1"], "the old name, for one version"
        assert "not safety-rated" in reply.json()["note"]
        stop = next(one.replies).event.emergency_stop
        assert stop.reason == "hand in the way"
        assert stop.by == "anna (rest:127.0.0.1)"
        everyone = web.post("/v1/emergency-stop")
        assert everyone.json()["notified"] == ["arm-1", "arm-2"]
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
    assert [line["result"] for line in audited] == [
        "notified",
        "notified",
        "not connected",
        "not connected",
        "not connected",
    ]
    assert {line["actor"] for line in audited} == {"anna (rest:127.0.0.1)"}


def test_a_full_disk_does_not_hide_that_the_robots_were_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    robot = Robot(server.stub, server.tokens.create("fleet", ["robot"]), "arm-1")
    anna = server.tokens.create("anna", ["operator"])

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(server.registry.audit_log, "write", full)
    with server.web(anna) as web:
        assert web.post("/v1/emergency-stop").json()["notified"] == ["arm-1"]
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


@pytest.mark.parametrize(("where", "words"), [("queue", "queue is full"), ("disk", "MiB of disk space left")])
def test_not_ready_without_room(server: Server, monkeypatch: pytest.MonkeyPatch, where: str, words: str) -> None:
    if where == "queue":
        monkeypatch.setattr(server.engine, "queue_size", 0)
    else:
        monkeypatch.setattr("pirl_server.api.health.MIN_FREE_BYTES", 2**60)
    with server.web() as web:
        reply = web.get("/readyz")
        assert (reply.status_code, words in reply.json()["detail"]) == (503, True)
        assert web.get("/healthz").status_code == 200


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
        pin = {"version": "v2"}
        refused = web.put("/v1/routing/pins/arm-2", json=pin)
        assert (refused.status_code, "no evaluation" in refused.json()["errors"][0]["message"]) == (409, True)
        assert web.put("/v1/routing/canary", json=pin | {"share": 1.0}).status_code == 409
        forced = pin | {"force": True, "reason": "it shakes"}
        assert web.put("/v1/routing/pins/arm-2", json=forced).status_code == 403, "takes an admin"
        assert web.put("/v1/routing/canary", json=forced | {"share": 1.0}).status_code == 403
        with server.web(server.tokens.create("root", ["admin"])) as admin:
            assert admin.put("/v1/routing/pins/arm-2", json=forced).json()["pins"] == {"arm-2": "v2"}
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


def test_a_scrape_answers_while_the_device_is_busy(server: Server, contract: Contract, observe: Any) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        assert go_on.wait(patient(60))

    object.__setattr__(server.engine.current, "before", block)
    fleet, anna = server.tokens.create("fleet", ["robot"]), server.tokens.create("anna", ["operator"])
    picture = codec.observation_to_proto(observe(0))
    ask = pb.InferRequest(robot_id="arm-1", contract_hash=contract.hash, observation=picture)
    pending = server.stub.Infer.future(ask, metadata=(("authorization", f"Bearer {fleet}"),))
    assert entered.wait(patient(20))
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
