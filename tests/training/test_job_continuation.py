"""Jobs of the server that are paused, killed and continued: the very weights of a run that was left alone."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from patience import patient, until
from toy_arm import save_toy
from toy_log import BAD, GOOD, episode

from pirl_contract import RolloutResult
from pirl_server.app import adopt
from pirl_server.config.jobs import FinetuneEpisodes
from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.store import EpisodeStore
from pirl_server.job_continuation import Outcomes, Pins
from pirl_server.jobs.job import Job, Status
from pirl_server.jobs.supervisor import Supervisor
from pirl_server.paths import EPISODES, JOBS, MODELS
from pirl_server.registry.versions import Registry

STEPS = 800
SPEC = FinetuneEpisodes(
    task="toy",
    retries=3,
    config=EpisodesConfig(
        method="advantage_weighted", steps=STEPS, batch_size=4, value_steps=2, min_episodes=2, held_out_share=0.0
    ),
)
OFTEN = """
import sys
from pirl_server import job_continuation, job_main
job_continuation.EVERY_S, job_continuation.SHARE = 0.2, 0.9
sys.argv = ["job_main", *sys.argv[1:]]
job_main.main()
"""
"""saves a state five times a second"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store = EpisodeStore(tmp_path / "root" / EPISODES)
    for number in range(4):
        store.write(episode(number, number % 2 == 0, GOOD if number % 2 == 0 else BAD))
    adopt(Registry(tmp_path / "root" / MODELS), save_toy(tmp_path / "base"))
    return tmp_path / "root"


@pytest.fixture
def jobs(root: Path) -> Iterator[Supervisor]:
    made = Supervisor(root / JOBS, [sys.executable, "-c", OFTEN, str(root)], close_grace_s=patient(5.0))
    yield made
    made.close()


def saved(root: Path, job: Job) -> int:
    """Steps of the last state."""
    path = root / JOBS / job.id / "resume" / "state.json"
    return int(json.loads(path.read_text())["step"]) if path.exists() else 0


def ended(jobs: Supervisor, job: Job) -> Job:
    until(lambda: jobs.get(job.id).status.ended, limit_s=120)
    found = jobs.get(job.id)
    assert (found.status, found.error) == (Status.SUCCEEDED, None)
    return found


def trainer(root: Path, job: Job) -> int:
    """The job's own process, below its reaper."""
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    return int(children[0])


def test_a_job_that_was_killed_and_paused_ends_as_one_that_was_left_alone(root: Path, jobs: Supervisor) -> None:
    """Meanwhile an episode comes, a label changes, and another version is in production: it began without them."""
    alone = ended(jobs, jobs.submit(SPEC))
    assert alone.attempt == 1
    assert saved(root, alone) > 100
    job = jobs.submit(SPEC)
    until(lambda: 0 < saved(root, job) < STEPS, limit_s=60)
    os.kill(trainer(root, jobs.get(job.id)), signal.SIGKILL)
    until(lambda: jobs.get(job.id).attempt == 2, limit_s=60)
    assert jobs.get(job.id).causes == ("attempt 1: its process was killed by signal 9",)
    EpisodeStore(root / EPISODES).write(episode(9, True, BAD))
    EpisodeStore(root / EPISODES).label(f"{0:032x}", False, "operator")
    assert alone.result is not None
    Registry(root / MODELS).point("production", alone.result["version"], "test", "a promotion meanwhile")
    before = saved(root, job)
    until(lambda: before < saved(root, job) < STEPS, limit_s=60)
    jobs.pause(job.id)
    until(lambda: jobs.get(job.id).status is Status.PAUSED, limit_s=60)
    assert before < saved(root, job) < STEPS
    assert not (root / JOBS / job.id / "result.json").exists()
    assert jobs.resume(job.id).status is Status.QUEUED
    done = ended(jobs, job)
    assert done.result == alone.result


def test_an_evaluation_keeps_what_has_ended(tmp_path: Path) -> None:
    outcomes, result = Outcomes(tmp_path), RolloutResult(True, 7, 0.25, ())
    outcomes.add(3, result)
    outcomes.add(5, replace(result, success=False))
    with (tmp_path / "outcomes.jsonl").open("a") as file:
        file.write('{"seed": 6, "success"')
    assert Outcomes(tmp_path).read() == {3: result, 5: replace(result, success=False)}
    outcomes.add(6, result)
    assert sorted(outcomes.read()) == [3, 5, 6]


def test_what_is_pinned_stays(tmp_path: Path) -> None:
    assert (Pins(tmp_path).pinned, Pins(tmp_path).episodes) == (None, None)
    assert Pins(tmp_path).version("v1") == "v1"
    assert Pins(tmp_path).version("v2") == Pins(tmp_path).pinned == "v1"
