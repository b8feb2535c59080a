"""The learning loop on the whole server: scripted robots over gRPC, a policy that learns in seconds, REST."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patience import patient, until
from starlette.testclient import TestClient
from toy_arm import CONTRACT, INSTRUCTIONS, save_toy

from pirl_contract import Alteration, Observation, StepOutcome
from pirl_contract.client import PolicyClient
from pirl_server.app import build
from pirl_server.config.serve import ServeConfig
from pirl_server.paths import MODELS
from pirl_server.policy.checkpoint import checkpoint_version

BODY: dict[str, Any] = {
    "kind": "loop", "task": "wipe-table", "evaluation": None, "rounds": 2, "episodes_per_round": 20,
    "explore_share": 0.5, "watch_episodes": 4, "canary": {"episodes": 4},
    "config": {"method": "filtered_bc", "steps": 2, "batch_size": 8, "min_episodes": 4, "learning_rate": 1e-2},
}  # fmt: skip


class Robot:
    """Runs one episode at a time; how it ends depends on the version that drove it."""

    def __init__(self, robot_id: str, port: int) -> None:
        self.client = PolicyClient(f"127.0.0.1:{port}", robot_id, timeout_s=patient(20.0))
        self.client.info()
        self.id, self.runs = robot_id, 0
        self.versions: list[str] = []

    def run(self, bad: set[str], better: set[str]) -> str:
        """A failure for bad versions, a success for better ones, else each in turn. Returns the version."""
        self.client.start_episode(CONTRACT, INSTRUCTIONS[0])
        random = np.random.default_rng(self.runs)
        self.runs += 1
        for _ in range(2):
            seen = Observation({}, random.normal(size=21).astype(np.float32) * 0.1, INSTRUCTIONS[0], self.id)
            chunk = self.client.infer(seen)
            done = [
                StepOutcome(chunk.chunk_id, index, action, seen.state, alterations=Alteration.NONE)
                for index, action in enumerate(chunk.actions)
            ]
            self.client.report_outcomes(done)
        version = chunk.policy_version
        self.versions.append(version)
        success = version not in bad and (version in better or self.runs % 4 != 0)
        self.client.end_episode("success" if success else "failure", "operator", "operator")
        return version


class Site:
    """A running server, its REST API and two robots."""

    def __init__(self, api: Any, settings: ServeConfig, root: Path) -> None:
        self.web, self.root = TestClient(api, base_url="http://127.0.0.1"), root
        self.robots = [Robot(name, settings.grpc_port) for name in ("arm-1", "arm-2")]

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.web.get(f"/v1/jobs/{job_id}").json()
        return found

    def phase(self, job_id: str) -> str:
        return str((self.job(job_id)["result"] or {}).get("phase", ""))

    def aliases(self) -> dict[str, str]:
        found: dict[str, str] = self.web.get("/v1/models").json()["aliases"]
        return found

    def record(self, job_id: str, bad: set[str], better: set[str]) -> None:
        """Both robots make what a round needs, once it collects: what began before is none of its episodes."""
        until(lambda: self.phase(job_id) == "collect", lambda: self.job(job_id), limit_s=60.0, every_s=0.05)
        for turn in range(BODY["episodes_per_round"]):
            self.robots[turn % 2].run(bad, better)

    def collect(self, job_id: str, round_: int, bad: set[str], better: set[str]) -> None:
        """Both robots work until the round has what it needs, then until its canary begins."""
        self.record(job_id, bad, better)
        until(lambda: self.phase(job_id) == "canary", lambda: self.job(job_id), limit_s=120.0, every_s=0.1)
        assert self.job(job_id)["result"]["round"] == round_


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = {"grpc_port": one.getsockname()[1], "rest_port": other.getsockname()[1]}
    settings = ServeConfig(save_toy(tmp_path / "base"), tmp_path / "root", **ports)
    with build(settings) as (api, _):
        here = Site(api, settings, tmp_path / "root")
        yield here
        for robot in here.robots:
            robot.client.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_robots_feed_one_loop_that_withdraws_a_bad_version_and_promotes_a_better_one(
    site: Site, tmp_path: Path
) -> None:
    base = checkpoint_version(tmp_path / "base")
    created = site.web.post("/v1/jobs", json=BODY)
    assert created.status_code == 201, created.text
    job = created.json()["id"]
    site.collect(job, 0, set(), set())
    bad = site.job(job)["result"]["candidate"]
    assert site.aliases() == {"production": base, "candidate": bad}

    seen = [robot.run({bad}, set()) for _ in range(3) for robot in site.robots]
    until(lambda: site.phase(job) == "collect", lambda: site.job(job), limit_s=60.0, every_s=0.05)
    drivers = {robot.id for robot in site.robots if bad in robot.versions}
    assert len(drivers) == 1, f"one robot tries it: {seen}"
    (first,) = site.job(job)["result"]["rounds"]
    assert first["outcome"] == "worse"
    assert first["canary"]["episodes"] <= 3
    assert site.aliases() == {"production": base}

    site.collect(job, 1, {bad}, set())
    good = site.job(job)["result"]["candidate"]
    while site.phase(job) == "canary":
        for robot in site.robots:
            robot.run({bad}, {good})
        time.sleep(0.05)
    until(lambda: site.aliases()["production"] == good, site.aliases)
    while site.job(job)["status"] == "running":
        site.robots[0].run({bad}, {good})
        time.sleep(0.05)
    done = site.job(job)
    assert (done["status"], done["error"]) == ("succeeded", None)
    assert [each["outcome"] for each in done["result"]["rounds"]] == ["worse", "promoted"]
    check_trace(site, job, good)


def check_trace(site: Site, job: str, good: str) -> None:
    """What is left: children, episodes of both robots and both modes, events and the audit log."""
    children = [each for each in site.web.get("/v1/jobs").json()["data"] if each["parent"]]
    assert [each["spec"]["kind"] for each in children] == ["finetune_episodes"] * 2
    assert all(each["parent"].startswith(job) for each in children)
    episodes = site.web.get("/v1/episodes?limit=100").json()["data"]
    for robot in ("arm-1", "arm-2"):
        assert {each["sampler"] for each in episodes if each["robot_id"] == robot} == {"ode", "flow_sde"}
    stream = site.web.get(f"/v1/jobs/{job}/events").text
    assert stream.count("event: loop") > 6
    audit = [json.loads(line) for line in (site.root / MODELS / "audit.jsonl").read_text().splitlines()]
    moved = [line for line in audit if line.get("alias") == "production" and line["event"] in ("forced", "promoted")]
    (promoted,) = moved
    assert (promoted["event"], promoted["version"], promoted["actor"]) == ("promoted", good, f"loop {job}")
    assert f"loop {job}, round 1" in promoted["reason"]
    assert "labelled episodes of the candidate succeeded" in promoted["reason"]
    (last,) = [each for each in site.job(job)["result"]["rounds"] if each["candidate"] == good]
    assert last["canary"]["episodes"] > BODY["canary"]["episodes"], "so few are not enough for the gate"
    assert re.search(r"canary: (\d+) of \1 episodes succeeded.* production: \d+ of \d+", promoted["reason"])


@pytest.mark.slow
def test_a_version_that_held_out_episodes_speak_against_never_reaches_a_robot(site: Site, tmp_path: Path) -> None:
    """No result has half of its base's error: the offline gate of a task without a simulator rejects it."""
    base = checkpoint_version(tmp_path / "base")
    body = BODY | {"rounds": 1, "config": BODY["config"] | {"max_action_error": 0.5}}
    job = site.web.post("/v1/jobs", json=body).json()["id"]
    site.record(job, set(), set())
    until(lambda: site.job(job)["status"] == "succeeded", lambda: site.job(job), limit_s=120.0, every_s=0.1)
    (only,) = site.job(job)["result"]["rounds"]
    assert only["outcome"] == "rejected"
    assert "held-out action error" in only["reason"]
    assert only["candidate"] not in (robot.run(set(), set()) for robot in site.robots)
    assert site.aliases() == {"production": base}
    (shown,) = [each for each in site.web.get("/v1/models").json()["data"] if each["version"] == only["candidate"]]
    assert shown["offline"]["refusals"] == [only["reason"]]
    assert shown["offline"]["held_out"] == 2
    refused = site.web.put("/v1/routing/canary", json={"version": only["candidate"], "robots": ["arm-1"]})
    assert refused.status_code == 409
    assert "held-out action error" in refused.text
    audit = [json.loads(line) for line in (site.root / MODELS / "audit.jsonl").read_text().splitlines()]
    (measured,) = [line for line in audit if line["event"] == "measured offline"]
    assert (measured["version"], measured["result"]) == (only["candidate"], "refused")


def test_a_cancelled_loop_leaves_no_canary_and_a_paused_one_waits(site: Site) -> None:
    job = site.web.post("/v1/jobs", json=BODY).json()["id"]
    until(lambda: site.job(job)["status"] == "running")
    assert site.web.post(f"/v1/jobs/{job}/resume").status_code == 409
    assert site.web.post(f"/v1/jobs/{job}/pause").json()["status"] == "paused"
    assert site.web.post(f"/v1/jobs/{job}/pause").status_code == 409
    assert site.web.get("/v1/jobs?status=paused").json()["data"][0]["id"] == job
    assert site.web.post(f"/v1/jobs/{job}/resume").json()["status"] == "running"
    assert site.web.post("/v1/jobs/job_000000000000000000000000/pause").status_code == 404
    assert site.web.post(f"/v1/jobs/{job}/cancel").status_code == 200
    until(lambda: site.job(job)["status"] == "cancelled")
    assert "candidate" not in site.aliases()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rounds": 0}, "rounds"),
        ({"canary": {"episode": 3}}, "did you mean episodes"),
        ({"evaluation": {"list": 10}}, "seed 10 must be 0 to 9"),
        ({"evaluation": {}, "task": "wipe-table"}, "wipe-table"),
        ({"episodes_per_round": 3}, "below config.min_episodes"),
    ],
)
def test_a_wrong_loop_is_rejected_with_its_field(site: Site, changes: dict[str, Any], words: str) -> None:
    body = BODY | ({"task": "PushCube-v1"} if "evaluation" in changes else {}) | changes
    reply = site.web.post("/v1/jobs", json=body)
    assert reply.status_code == 422
    assert words in reply.text
