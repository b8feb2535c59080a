"""Robots over REST beside their sessions: listed, stopped, routed; readiness and a scrape."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from typing import Any
from unittest.mock import Mock

import pytest
from patience import patient
from prometheus_client.parser import text_string_to_metric_families
from whole_server import Robot, Server

from pirl_contract import Contract, StepOutcome
from pirl_contract.client import PolicyClient
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire import codec
from pirl_server.config.jobs import Sft
from pirl_server.episodes import manifest
from pirl_server.episodes.store import EpisodeStore
from pirl_server.jobs.events import EventLog, EventTail


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
        monkeypatch.setattr(EpisodeStore, "free_bytes", lambda self: 0)
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


def test_a_follower_that_does_not_read_makes_little_be_read_for_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is read when it takes it, without a gap."""
    job = server.jobs.submit(Sft(task="push")).id
    while not server.jobs.has_ended(job):
        time.sleep(0.01)
    log, count = EventLog(server.jobs._store.path(job)), 8_000
    with log._path.open("a") as file:
        for number in range(log._last + 1, log._last + 1 + count):
            file.write(json.dumps({"id": number, "type": "metrics", "time": 0.0, "data": {"note": "x" * 300}}) + "\n")
    blocks: list[int] = []
    read = EventTail.read

    def counted(tail: EventTail) -> Any:
        blocks.append(1)
        return read(tail)

    monkeypatch.setattr(EventTail, "read", counted)
    token = server.tokens.create("tess", ["trainer"])
    head = f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n"
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        reader.settimeout(patient(60))
        reader.connect(("127.0.0.1", server.rest.port))
        reader.sendall(head.encode())
        quiet, seen = 0, 0
        while quiet < 20:  # until it has stalled
            time.sleep(0.05)
            quiet, seen = (quiet + 1, seen) if blocks and len(blocks) == seen else (0, len(blocks))
        assert seen < 100, "of more than 160"
        got = bytearray()
        while data := reader.recv(2**20):
            got += data
            if b"\r\n0\r\n\r\n" in got[-16:]:
                break
    ids = [int(found) for found in re.findall(rb"id: (\d+)\n", re.sub(rb"\r\n[0-9a-f]+\r\n", b"", bytes(got)))]
    assert ids == list(range(1, log._last + 1 + count))


def scraped(text: str) -> dict[str, float]:
    """Samples by name and labels."""
    return {
        " ".join([sample.name, *map("=".join, sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_scrape_shows_what_surrounds_inference(
    server: Server, contract: Contract, observe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot, anna = server.tokens.create("arm", ["robot"]), server.tokens.create("anna", ["trainer"])
    client = PolicyClient(f"127.0.0.1:{server.port}", "arm-1", 20.0, token=robot)

    def episode() -> None:
        client.start_episode(contract, observe(0).instruction)
        chunk = client.infer(observe(0))
        client.report_outcomes([StepOutcome(chunk.chunk_id, 0, chunk.actions[0], observe(0).state)])

    with server.web(anna) as web:
        before = scraped(web.get("/metrics").text)
        episode()
        client.end_episode("success", "sim", "success")
        episode()
        client.end_episode("success", "sim", "success", discard=True)
        episode()
        with monkeypatch.context() as patch:
            patch.setattr(manifest, "sync", Mock(side_effect=OSError(28, "No space left on device", "/secret")))
            with pytest.raises(ValueError, match=r"No space left.*; end it again later") as caught:
                client.end_episode("success", "sim", "success")
            assert "/secret" not in str(caught.value)
        client.end_episode("success", "sim", "success")
        client.close()
        job = web.post("/v1/jobs", json={"kind": "sft", "task": "PushCube-v1"}).json()["id"]
        while not web.get(f"/v1/jobs/{job}").json()["finished"]:
            time.sleep(0.01)
        with server.web("pirl_x_y") as stranger:
            assert stranger.get("/v1/jobs").status_code == 401
            assert stranger.request("BREW", "/coffee/7").status_code == 401
        assert web.post("/v1/models/rollback", json={}).status_code == 403
        after = scraped(web.get("/metrics").text)
    grown = {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name, 0.0)}
    for name, growth in {
        "pirl_episodes_ended_total result=published": 2.0,
        "pirl_episodes_ended_total result=dropped": 1.0,
        "pirl_episodes_ended_total result=failed": 1.0,
        "pirl_jobs status=succeeded": 1.0,
        "pirl_calls_rejected_total reason=token": 2.0,
        "pirl_calls_rejected_total reason=scope": 1.0,
        "pirl_rest_calls_total method=POST route=/v1/jobs status=201": 1.0,
        "pirl_rest_calls_total method=GET route=/v1/jobs status=401": 1.0,
        "pirl_rest_calls_total method=(other) route=(none) status=401": 1.0,
        "pirl_rest_seconds_count route=/v1/jobs": 2.0,
    }.items():
        assert grown.get(name) == growth, name
    assert after["pirl_episodes_published_bytes_total"] > 100
    for name in ("resident_memory_bytes", "open_fds", "cpu_seconds_total", "start_time_seconds"):
        assert after[f"process_{name}"] > 0
    assert after["pirl_disk_bytes what=total"] > after["pirl_disk_bytes what=free"] > 0
    assert "pirl_audit_failures_total" in after
    assert any(name.startswith("pirl_build_info") for name in after)


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
