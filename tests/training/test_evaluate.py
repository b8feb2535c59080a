"""Evaluation: a function of checkpoint and seeds, whoever does the work; and its workers do not outlive it."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import Patience
from toy_arm import Heard, make_toy, save_toy

from pirl_contract import RolloutResult, rollout
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.local_policy import LocalPolicy
from pirl_server.training.evaluate import evaluate

SEEDS = [11, 5, 8]
MAKE = make_toy(length=3, tolerance=1.5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("evaluate"))


def in_this_process(checkpoint: Path) -> dict[int, RolloutResult]:
    policy, results = FlowPolicy.load(checkpoint), {}
    for seed in SEEDS:
        found = rollout(MAKE(), LocalPolicy(policy, seed * 1000), seed, 3)
        results[seed] = RolloutResult(found.success, found.steps, found.total_reward, ())
    return results


@pytest.mark.slow
def test_two_workers_give_the_result_of_one_process(checkpoint: Path) -> None:
    """One worker, in the simulator: test_sft.py."""
    heard = Heard()
    results = evaluate(checkpoint, MAKE, 3, SEEDS, heard, workers=2)
    assert results == in_this_process(checkpoint)
    assert heard.reports[0] == (0, 3)
    assert heard.reports[-1] == (3, 3)
    assert len(set(heard.reports)) == len(heard.reports), "without news nothing is reported"
    assert heard.messages[0] == "episodes", "no success rate of nothing"
    assert all(re.fullmatch(r"episodes, success [01]\.\d\d", message) for message in heard.messages[1:])
    assert multiprocessing.active_children() == []
    assert len({result.total_reward for result in results.values()}) == 3, "each seed is an episode of its own"


@pytest.mark.slow
def test_a_cancelled_evaluation_gives_what_it_has(checkpoint: Path) -> None:
    slow = make_toy(length=1000, slow_s=0.002)
    results = evaluate(checkpoint, slow, 20, range(500), Heard(cancel_after=8), workers=1)
    assert len(results) < 500
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_worker_that_fails_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="an evaluation worker died"):
        evaluate(tmp_path, MAKE, 3, SEEDS, Heard(), workers=1)


EVALUATOR = """
import multiprocessing, sys, time
from pathlib import Path
sys.path.append({tests!r})
from toy_arm import make_toy
from pirl_server.training.evaluate import work

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    worker = context.Process(target=work, args=(theirs, Path({checkpoint!r}), make_toy(), 1, [1]), daemon=True)
    worker.start()
    theirs.close()
    mine.recv_bytes()
    print(worker.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_worker_that_is_done_ends_when_the_evaluation_is_killed(checkpoint: Path) -> None:
    """It has nothing left to send, so no broken pipe would tell it."""
    code = EVALUATOR.format(tests=str(Path(__file__).parent), checkpoint=str(checkpoint))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as evaluation:
        assert evaluation.stdout is not None
        pid = int(evaluation.stdout.readline())
        time.sleep(0.2)
        assert Path(f"/proc/{pid}").exists(), "it waits to be ended"
        evaluation.kill()
    patience = Patience(20)
    while Path(f"/proc/{pid}").exists() and patience.left_s > 0:
        time.sleep(0.05)
    left = Path(f"/proc/{pid}").exists()
    if left:
        os.kill(pid, signal.SIGKILL)
    assert not left
