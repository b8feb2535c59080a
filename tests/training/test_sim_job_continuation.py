"""A `finetune_sim` job that is killed, paused and continued: the very version of a run that was left alone."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from patience import patient, until
from toy_arm import save_toy

from pirl_server.app import adopt
from pirl_server.config.jobs import FinetuneSim
from pirl_server.config.training import PpoConfig
from pirl_server.jobs.job import Job, Status
from pirl_server.jobs.supervisor import Supervisor
from pirl_server.paths import JOBS, MODELS
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.registry.versions import Registry

UPDATES, EVERY = 8, 2
SPEC = FinetuneSim(
    task="toy",
    seed=3,
    retries=3,
    checkpoint_every=EVERY,
    config=PpoConfig(
        env_steps=20 * UPDATES, envs=4, workers=1, decisions=5, warmup_updates=1, epochs=1, noise_level=0.4,
        torch_threads=1,
    ),
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    adopt(Registry(tmp_path / "root" / MODELS), save_toy(tmp_path / "base", horizon=1))
    return tmp_path / "root"


@pytest.fixture
def jobs(root: Path) -> Iterator[Supervisor]:
    command = [sys.executable, str(Path(__file__).with_name("toy_sim_job.py")), str(root)]
    made = Supervisor(root / JOBS, command, close_grace_s=patient(5.0))
    yield made
    made.close()


def saved(root: Path, job: Job) -> int:
    """Updates of the last state."""
    path = root / JOBS / job.id / "resume" / "state.json"
    return int(json.loads(path.read_text())["step"]) if path.exists() else 0


def ended(jobs: Supervisor, job: Job) -> Job:
    until(lambda: jobs.get(job.id).status.ended, lambda: jobs.get(job.id), limit_s=240)
    found = jobs.get(job.id)
    assert (found.status, found.error) == (Status.SUCCEEDED, None)
    assert found.result is not None
    return found


def processes(job: Job) -> list[int]:
    """The job's own process, below its reaper, and what that one started."""
    found = [int(each) for each in Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()]
    for pid in found:
        found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_was_killed_and_paused_makes_the_version_of_one_that_was_left_alone(
    root: Path, jobs: Supervisor
) -> None:
    """Meanwhile another version is in production: it began from the one before."""
    alone = ended(jobs, jobs.submit(SPEC))
    assert (alone.attempt, saved(root, alone)) == (1, UPDATES)
    job = jobs.submit(SPEC)
    until(lambda: 0 < saved(root, job) < UPDATES, limit_s=120)
    trainer, *workers = processes(jobs.get(job.id))
    assert len(workers) >= SPEC.config.workers, "of the environments"
    os.kill(trainer, signal.SIGKILL)
    until(lambda: jobs.get(job.id).attempt == 2, lambda: jobs.get(job.id), limit_s=120)
    assert jobs.get(job.id).causes == ("attempt 1: its process was killed by signal 9",)
    assert alone.result is not None
    Registry(root / MODELS).point("production", alone.result["version"], "test", "a promotion meanwhile")
    before, seen = saved(root, job), len(updates(root, job))
    until(lambda: len(updates(root, job)) > seen, lambda: jobs.get(job.id), limit_s=120)
    jobs.pause(job.id)
    until(lambda: jobs.get(job.id).status is Status.PAUSED, lambda: jobs.get(job.id), limit_s=120)
    assert before <= (paused := saved(root, job)) < UPDATES
    assert paused % EVERY == 0
    assert not (root / JOBS / job.id / "result.json").exists()
    jobs.resume(job.id)
    done = ended(jobs, job)
    assert done.attempt == 3
    assert done.result == alone.result, "version, parent and all"
    assert updates(root, alone) == list(range(1, UPDATES + 1))
    assert updates(root, job).count(1) == 1, "no attempt began again"
    assert set(updates(root, job)) == set(updates(root, alone))
    base, made = (weights(root, alone.result[name]) for name in ("parent", "version"))
    assert any(not torch.equal(each, base[name]) for name, each in made.items()), "it learnt"


def updates(root: Path, job: Job) -> list[int]:
    """Of all attempts, as they were reported."""
    lines = (root / JOBS / job.id / "events.jsonl").read_text().splitlines()
    return [int(each["data"]["updates"]) for each in map(json.loads, lines) if each["type"] == "metrics"]


def weights(root: Path, version: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = FlowPolicy.load(Registry(root / MODELS).get(version).path).model.state_dict()
    return found
