"""Rollout workers as processes: shared evenly, gone when they should be, missed in words when they die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from patience import Patience
from toy_arm import make_toy, save_toy

from pirl_server.config.training import PpoConfig
from pirl_server.training.rollout.worker_pool import WorkerPool


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("pool"))


def gone(pid: int, within_s: float = 10.0) -> bool:
    """Whether this process is no more (a zombie that nobody waited for counts as left behind)."""
    patience = Patience(within_s)
    while Path(f"/proc/{pid}").exists():
        if patience.left_s <= 0:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.slow
def test_two_workers_share_the_work_and_one_that_is_killed_is_an_error_in_words(checkpoint: Path) -> None:
    make = make_toy(length=1000, slow_s=0.01)
    with closing(WorkerPool(make, checkpoint, 1000, config=PpoConfig(workers=2, envs=4), seed=1)) as pool:
        pids = [process.pid for process in pool._processes]
        batch = pool.collect({}, 2, noise_level=0.5, version=7)
        assert batch.reward_TN.shape == (2, 4)
        assert batch.env_steps.tolist() == [16]
        assert batch.policy_version_TN.tolist() == [[7] * 4] * 2
        assert len(np.unique(batch.features_TNF[0, :, 0])) == 4, "each environment has an episode of its own"
        assert pids[1] is not None
        threading.Timer(0.3, os.kill, (pids[1], signal.SIGKILL)).start()
        with pytest.raises(RuntimeError, match=r"a rollout worker died .*'rollout-1': -9"):
            pool.collect({}, 40, noise_level=0.5, version=0)
    assert all(pid is not None and gone(pid) for pid in pids)
    assert multiprocessing.active_children() == []


def test_environments_that_cannot_be_shared_evenly_are_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="5 environments can't be shared evenly by 2 workers"):
        WorkerPool(make_toy(), checkpoint, 1, config=PpoConfig(workers=2, envs=5), seed=1)


LEARNER = """
import sys, time
from pathlib import Path
sys.path.append({tests!r})
from toy_arm import make_toy
from pirl_server.config.training import PpoConfig
from pirl_server.training.rollout.worker_pool import WorkerPool

if __name__ == "__main__":
    pool = WorkerPool(make_toy(), Path({checkpoint!r}), 1, config=PpoConfig(workers=1, envs=1), seed=1)
    pool.collect({{}}, 1, noise_level=0.5, version=0)
    print(pool._processes[0].pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_worker_ends_when_its_learner_is_killed(checkpoint: Path) -> None:
    """SIGKILL leaves no time to tell it."""
    code = LEARNER.format(tests=str(Path(__file__).parent), checkpoint=str(checkpoint))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as learner:
        assert learner.stdout is not None
        pid = int(learner.stdout.readline())
        learner.kill()
    assert gone(pid)
