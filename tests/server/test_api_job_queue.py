"""Dry runs, pause, resume, priority and dependencies of jobs over REST, on a whole server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from whole_server import Server

from pirl_server.jobs.leases import take

SPEC = {"kind": "finetune_sim", "task": "PushCube-v1", "config": {"env_steps": 500}}


@pytest.fixture
def web(tmp_path: Path, make_policy: Any) -> Iterator[httpx.Client]:
    server = Server(tmp_path, make_policy())
    with server.web(server.tokens.create("root", ["admin"])) as client:
        yield client
    server.close()


def rejected(reply: httpx.Response, status: int) -> str:
    assert (reply.status_code, reply.headers["Content-Type"]) == (status, "application/problem+json"), reply.text
    return reply.text


def wait(web: httpx.Client, job: dict[str, Any], status: str) -> dict[str, Any]:
    while (found := web.get(f"/v1/jobs/{job['id']}").json())["status"] != status:
        time.sleep(0.02)
    return dict(found)


def test_a_dry_run_checks_a_job_and_queues_nothing(web: httpx.Client) -> None:
    found = web.post("/v1/job-plans", json=SPEC)
    assert (found.status_code, found.json()["amount"], found.json()["waits_for"]) == (200, 500, 0)
    assert "v9" in rejected(web.post("/v1/job-plans", json=SPEC | {"base": "v9"}), 422)
    assert "there is no job" in rejected(web.post("/v1/jobs", json=SPEC | {"after": ["job_" + 24 * "0"]}), 422)
    assert web.get("/v1/jobs").json()["data"] == []


def test_a_waiting_job_is_held_and_let_go_and_one_that_follows_it_waits(web: httpx.Client, tmp_path: Path) -> None:
    """The test itself has the device's lease at first."""
    held = take("cpu:0", tmp_path / "jobs")
    assert held is not None
    first = web.post("/v1/jobs", json=SPEC | {"priority": 7}).json()
    second = web.post("/v1/jobs", json=SPEC | {"after": [first["id"]]}).json()
    assert web.post(f"/v1/jobs/{first['id']}/pause").json()["status"] == "paused"
    rejected(web.post(f"/v1/jobs/{first['id']}/pause"), 409)
    rejected(web.post(f"/v1/jobs/{second['id']}/resume"), 409)
    os.close(held)
    other = web.post("/v1/jobs", json=SPEC).json()
    wait(web, other, "succeeded")
    assert [web.get(f"/v1/jobs/{job['id']}").json()["status"] for job in (first, second)] == ["paused", "queued"]
    assert web.post(f"/v1/jobs/{first['id']}/resume").json()["status"] == "queued"
    wait(web, second, "succeeded")
    done = wait(web, first, "succeeded")
    assert (done["spec"]["priority"], done["attempt"], done["causes"], done["device"]) == (7, 1, [], "cpu:0")
