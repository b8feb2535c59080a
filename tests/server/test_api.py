"""The REST API over a real socket."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
import uvicorn
from patience import patient
from test_episode_store import make_episode

from pirl_contract import Contract, StepOutcome
from pirl_server import atomic_files
from pirl_server.api.application import create_api
from pirl_server.config.jobs import JobSpec
from pirl_server.config.training import PpoConfig
from pirl_server.jobs.supervisor import Supervisor
from pirl_server.registry.evaluation import Evaluation, list_hash
from pirl_server.registry.trial_limit import TrialLimit
from pirl_server.registry.versions import Registry
from pirl_server.security.access_control import AccessControl
from pirl_server.serving.connections import RobotConnections
from pirl_server.serving.deployment import Deployment
from pirl_server.serving.router import Router
from pirl_server.serving.shadow import Shadow
from pirl_server.telemetry.metrics import Latencies, Metrics

JOB = """
import json, sys, time
from pathlib import Path
from pirl_server.jobs.reporter import Reporter
directory = Path(sys.argv[1])
seed = json.loads((directory / "spec.json").read_text())["seed"]
with Reporter(directory) as report:
    for i in range(0 if seed == 99 else 3):
        report.progress(i, 3)
    while seed == 99 and not report.cancelled:
        time.sleep(0.01)
"""


SILENT = 99
"""seed of a job that reports nothing and ends when it is cancelled"""


def check_job(spec: JobSpec) -> None:
    if spec.task != "PushCube-v1":
        raise ValueError(f"task '{spec.task}' is not known: use PushCube-v1")


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path / "jobs", [sys.executable, "-c", JOB], cancel_grace_s=patient(2.0))
    yield supervisor
    supervisor.close()


@pytest.fixture
def registry(tmp_path: Path, contract: Contract) -> Registry:
    made, source = Registry(tmp_path / "models"), tmp_path / "checkpoint"
    source.mkdir()
    (source / "card.json").write_text('{"task": "push"}')
    for version in ("v1", "v2"):
        made.add(version, source, contract)
    made.point("production", "v1", "test", "start")
    return made


@pytest.fixture
def web(service: Any, jobs: Supervisor, registry: Registry, make_policy: Any) -> Iterator[httpx.Client]:
    attendance = RobotConnections()
    app = create_api(
        attendance=attendance,
        gate=AccessControl(None, registry.audit_log),
        metrics=Metrics(service.engine, attendance, service.recorder),
        latencies=Latencies(),
        jobs=jobs,
        registry=registry,
        episodes=service.store,
        engine=service.engine,
        deployment=Deployment(
            service.engine,
            registry,
            Router(),
            Shadow(service.engine, lambda report: None),
            lambda version: make_policy(version=version),
            TrialLimit(registry, 0.1),
        ),
        check_job=check_job,
        grpc_port=service.port,
        heartbeat_s=0.2,
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=patient(30)) as client:
        yield client
    jobs.close()
    server.should_exit = True
    thread.join()


def submit(web: httpx.Client, **changes: Any) -> dict[str, Any]:
    reply = web.post("/v1/jobs", json={"kind": "finetune_sim", "task": "PushCube-v1"} | changes)
    assert reply.status_code == 201, reply.text
    job: dict[str, Any] = reply.json()
    assert reply.headers["Location"] == f"/v1/jobs/{job['id']}"
    return job


def wait(web: httpx.Client, job: dict[str, Any], status: str) -> dict[str, Any]:
    while (found := web.get(f"/v1/jobs/{job['id']}").json())["status"] != status:
        time.sleep(0.02)
    return dict(found)


def problem(reply: httpx.Response, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = reply.json()
    assert body["status"] == status
    assert "Traceback" not in reply.text
    return body


def events(lines: Iterator[str], count: int | None = None) -> list[dict[str, Any]]:
    """Read server-sent events until the stream ends or `count` are there."""
    found: list[dict[str, Any]] = []
    current: dict[str, Any] = {}
    for line in lines:
        if line.startswith(":"):
            found.append({"event": "comment"})
        elif line:
            key, _, value = line.partition(": ")
            current[key] = json.loads(value) if key in ("data", "id") else value
        elif current:
            found.append(current)
            current = {}
        if count is not None and len(found) >= count:
            break
    return found


def test_a_job_from_post_to_success(web: httpx.Client) -> None:
    job = submit(web, seed=3)
    assert job["spec"]["base"] == "production"
    done = wait(web, job, "succeeded")
    assert done["error"] is None
    assert "pid" not in done
    page = web.get("/v1/jobs", params={"status": "succeeded"}).json()
    assert [each["id"] for each in page["data"]] == [job["id"]]
    assert not page["has_more"]


def test_events_stream_to_the_end_and_resume(web: httpx.Client) -> None:
    job = submit(web)
    with web.stream("GET", f"/v1/jobs/{job['id']}/events") as reply:
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        seen = [event for event in events(reply.iter_lines()) if event["event"] != "comment"]
    assert [event["id"] for event in seen] == list(range(1, 7))
    assert [event["event"] for event in seen] == ["status", "status", "progress", "progress", "progress", "status"]
    assert seen[-1]["data"]["status"] == "succeeded"
    with web.stream("GET", f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": "4"}) as reply:
        assert events(reply.iter_lines()) == seen[4:]
    assert web.get(f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": "6"}).status_code == 204


def test_a_silent_job_keeps_the_line_open_until_it_is_cancelled(web: httpx.Client) -> None:
    job = submit(web, seed=SILENT)
    wait(web, job, "running")
    with web.stream("GET", f"/v1/jobs/{job['id']}/events") as reply:
        lines = reply.iter_lines()
        while events(lines, 1)[0]["event"] != "comment":
            pass
        assert web.post(f"/v1/jobs/{job['id']}/cancel").status_code == 200
        assert events(lines)[-1]["data"]["status"] == "cancelled"
    assert "already cancelled" in problem(web.post(f"/v1/jobs/{job['id']}/cancel"), 409)["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "finetune_sim", "task": "PushCube-v1", "stepz": 3}, "body.finetune_sim.stepz"),
        ({"kind": "dance", "task": "PushCube-v1"}, "body"),
        ({"kind": "finetune_sim", "task": "JuggleCube-v1"}, "job"),
        ({"kind": "finetune_sim", "task": "PushCube-v1", "base": "v9"}, "base"),
        ({"kind": "evaluate", "task": "PushCube-v1", "version": "../v1"}, "body.evaluate.version"),
    ],
)
def test_a_wrong_job_is_refused_with_its_field(web: httpx.Client, body: dict[str, Any], field: str) -> None:
    found = problem(web.post("/v1/jobs", json=body), 422)
    assert [error["field"] for error in found["errors"]] == [field]
    assert web.get("/v1/jobs").json()["data"] == []


def test_pages_of_jobs_do_not_overlap(web: httpx.Client) -> None:
    made = [submit(web)["id"] for _ in range(3)]
    first = web.get("/v1/jobs", params={"limit": 2}).json()
    rest = web.get("/v1/jobs", params={"limit": 2, "after": first["last_id"]}).json()
    assert [job["id"] for job in first["data"] + rest["data"]] == made[::-1]
    assert (first["has_more"], rest["has_more"]) == (True, False)


def test_ids_that_are_none_are_refused(web: httpx.Client) -> None:
    for path in ("/v1/jobs/..", "/v1/jobs/%2e%2e%2f%2e%2e", "/v1/episodes/..%2f..%2fetc%2fpasswd", "/nothing"):
        assert web.get(path).status_code in (404, 422), path
    problem(web.get("/v1/jobs/job_x"), 422)
    problem(web.get("/v1/jobs/" + "job_" + "0" * 24), 404)
    problem(web.get("/v1/episodes/" + "0" * 32), 404)
    problem(web.get("/v1/episodes", params={"robot": "../x"}), 422)
    problem(web.post("/v1/models/promote", json={"version": "../../etc"}), 422)
    problem(web.delete("/v1/jobs"), 405)


def test_episodes_are_listed_and_found(web: httpx.Client, service: Any, contract: Contract, observe: Any) -> None:
    client = service.connect()
    for label in ("success", "failure"):
        client.start_episode(contract, observe(0).instruction)
        chunk = client.infer(observe(0))
        step = StepOutcome(chunk.chunk_id, 0, chunk.actions[0], observe(0).state)
        client.end_episode(label, "sim", "time_limit", outcomes=[step])
    page = web.get("/v1/episodes").json()
    assert [episode["success"] for episode in page["data"]] == [False, True]
    newest, oldest = page["data"]
    assert web.get(f"/v1/episodes/{newest['id']}").json() == newest
    assert web.get("/v1/episodes", params={"success": True}).json()["data"] == [oldest]
    after = web.get("/v1/episodes", params={"after": newest["id"]}).json()
    assert (after["data"], after["has_more"]) == ([oldest], False)
    assert web.get("/v1/episodes", params={"robot": "arm-2"}).json()["data"] == []


def test_a_damaged_episode_is_named_and_the_rest_is_listed(web: httpx.Client, service: Any, tmp_path: Path) -> None:
    whole, damaged = service.store.write(make_episode()), service.store.write(make_episode())
    path = (service.store.root / damaged.path).with_name("MANIFEST.json")
    path.write_text(path.read_text().replace('"success": true', '"success": null'))
    os.utime(path, (1.0, 1.0))
    page = web.get("/v1/episodes").json()
    assert [each["id"] for each in page["data"]] == [whole.id]
    assert [each["name"] for each in page["damaged"]] == [damaged.id]
    assert str(path) in page["damaged"][0]["reason"]
    assert "SHA-256" in problem(web.get(f"/v1/episodes/{damaged.id}"), 404)["detail"]
    ready = web.get("/readyz").json()
    assert (ready["status"], damaged.id in ready["degraded"][0]) == ("degraded", True)
    problem(web.get("/v1/episodes", params={"after": damaged.id}), 404)


def test_promotion_reaches_the_robots_and_rolls_back(
    web: httpx.Client, service: Any, registry: Registry, observe: Any
) -> None:
    robot = service.connect()
    refused = problem(web.post("/v1/models/promote", json={"version": "v2"}), 409)
    assert "no evaluation on the same fixed list" in refused["errors"][0]["message"]
    for version, successes in (("v1", 40), ("v2", 90)):
        hash_ = list_hash("push", range(100))
        outcomes = tuple(at < successes for at in range(100))
        registry.evaluations.put(Evaluation(version, "push", hash_, 100, successes, "2026-01-01", outcomes=outcomes))
    promoted = web.post("/v1/models/promote", json={"version": "v2", "reason": "better"}).json()
    assert promoted["comparisons"][0]["candidate"]["success_rate"] == 0.9
    assert robot.infer(observe(0)).policy_version == "v2"
    listed = web.get("/v1/models").json()
    assert listed["aliases"] == {"production": "v2"}
    assert {model["version"]: model["aliases"] for model in listed["data"]} == {"v1": [], "v2": ["production"]}
    assert web.post("/v1/models/rollback", json={}).json()["version"] == "v1"
    assert robot.infer(observe(0)).policy_version == "v1"
    problem(web.post("/v1/models/rollback", json={}), 409)
    problem(web.post("/v1/models/promote", json={"version": "v9"}), 404)


def test_a_promotion_that_the_disk_refuses_and_a_rollback_to_nothing_change_nothing(
    web: httpx.Client, service: Any, registry: Registry, observe: Any
) -> None:
    robot, body = service.connect(), {"version": "v2", "force": True, "reason": "arm is parked"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic_files, "sync", Mock(side_effect=OSError(28, "No space left on device")))
        assert "No space left" in problem(web.post("/v1/models/promote", json=body), 503)["detail"]
    assert (robot.infer(observe(0)).policy_version, registry.aliases()["production"]) == ("v1", "v1")
    assert web.post("/v1/models/promote", json=body).status_code == 200, "negative control"
    shutil.rmtree(registry.get("v1").path)
    assert "v1" in problem(web.post("/v1/models/rollback", json={}), 409)["detail"]
    assert (robot.infer(observe(0)).policy_version, registry.aliases()["production"]) == ("v2", "v2")


def test_force_needs_a_reason(web: httpx.Client) -> None:
    assert "reason" in problem(web.post("/v1/models/promote", json={"version": "v2", "force": True}), 409)["detail"]
    forced = web.post("/v1/models/promote", json={"version": "v2", "force": True, "reason": "arm is parked"})
    assert len(forced.json()["overridden"]) == 1


def test_health_and_info(web: httpx.Client, service: Any) -> None:
    assert web.get("/healthz").json() == {"status": "ok"}
    assert web.get("/readyz").status_code == 200
    info = web.get("/v1/info").json()
    assert (info["policy_version"], info["grpc_port"], info["robot"]) == ("v1", service.port, "test-arm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)  # of a file system that was mounted to be read only
        assert "can't be written to" in problem(web.get("/readyz"), 503)["detail"]
    assert web.get("/readyz").status_code == 200
    service.engine._shelf.current = None
    assert "no policy" in problem(web.get("/readyz"), 503)["detail"]
    service.engine._shelf.current = Mock()
    service.engine.close()
    assert "model thread" in problem(web.get("/readyz"), 503)["detail"]


def test_a_job_is_shown_with_every_default_and_off_is_null(web: httpx.Client) -> None:
    shown = submit(web, config={"dual_clip": 0, "envs": 4})["spec"]["config"]
    assert (shown["dual_clip"], shown["envs"], shown["epochs"]) == (None, 4, PpoConfig().epochs)
    found = problem(web.post("/v1/jobs", json={"kind": "sft", "task": "T-1", "config": {"step": 1, "draws": 0}}), 422)
    assert {error["field"]: error["message"] for error in found["errors"]} == {
        "body.sft.config.step": "is not known; did you mean steps?",
        "body.sft.config.draws": "must be greater than or equal to 1, got 0",
    }


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "x" * 60_000},
        {"kind": "sft", "task": "T-1"} | {f"{'k' * 100}{number}": 1 for number in range(500)},
        {"kind": "sft", "task": "x" * 60_000},
        {"kind": "sft", "task": "T-1", "config": {"k" * 60_000: 1}},
        {"kind": "\ud800\n"},
    ],
    ids=["tag", "keys", "value", "config", "no unicode"],
)
def test_an_error_does_not_send_the_request_back(web: httpx.Client, body: dict[str, Any]) -> None:
    reply = web.post("/v1/jobs", content=json.dumps(body), headers={"Content-Type": "application/json"})
    found = problem(reply, 422)
    assert len(reply.content) < 12_000
    assert "x" * 81 not in reply.text
    assert "k" * 101 not in reply.text
    assert all(error["message"].isprintable() for error in found["errors"])
    assert found["detail"]


def test_lists_are_made_two_at_a_time_and_hold_no_thread_while_they_wait(web: httpx.Client, service: Any) -> None:
    """More than there are threads for handlers; what else needs one is answered meanwhile."""
    inside, most, free = [0], [0], threading.Event()
    page, lock = service.store.page, threading.Lock()

    def slow(*arguments: Any) -> Any:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        free.wait(patient(20))
        with lock:
            inside[0] -= 1
        return page(*arguments)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(50) as pool:
        patch.setattr(service.store, "page", slow)
        url = web.base_url.join("/v1/episodes")
        asked = [pool.submit(httpx.get, url, timeout=patient(30)) for _ in range(50)]
        while inside[0] < 2:
            assert not any(each.done() for each in asked)
            time.sleep(0.005)
        for path in ("/v1/routing", "/v1/info", f"/v1/episodes/{'0' * 32}"):
            assert web.get(path).status_code in (200, 404)
        assert not any(each.done() for each in asked)
        free.set()
        assert {each.result().status_code for each in asked} == {200}
    assert most == [2]
