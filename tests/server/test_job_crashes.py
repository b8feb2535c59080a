"""A few kills of what runs jobs, as `bench/crash_jobs.py` does them by the hundred; and leases of devices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from patience import patient, until

from pirl_server.config.jobs import FinetuneSim
from pirl_server.jobs.job import Status
from pirl_server.jobs.leases import check_device, environment, take
from pirl_server.jobs.process import process_start
from pirl_server.jobs.supervisor import Supervisor

BENCH = Path(__file__).parents[2] / "bench" / "crash_jobs.py"
WAITS = """
import os, pathlib, sys, time
home = pathlib.Path(sys.argv[1])
(home / "pid").write_text(str(os.getpid()))
while not (home / "go").exists(): time.sleep(0.01)
"""


def test_a_few_kills_lose_nothing_and_change_nothing() -> None:
    """Of the server, trainers, their reapers and the runner; two trainers on one device would be noticed."""
    command = [sys.executable, str(BENCH), "--server", "1", "--parts", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patient(300))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["control noticed"] is True
    assert (found["server"]["kills"], found["parts"]["kills"]) == (1, 2)
    assert found["parts"]["continued"] >= 1


def test_a_lease_is_that_of_the_processes_that_have_it_open(tmp_path: Path) -> None:
    """Also of one whose parent has died: the kernel keeps it until the last of them is gone."""
    held = take("cpu:0", tmp_path)
    assert held is not None
    assert take("cpu:0", tmp_path) is None
    other = take("cpu:1", tmp_path)
    assert other is not None
    os.close(other)
    child = subprocess.Popen(["sleep", "600"], pass_fds=[held])
    os.close(held)
    assert take("cpu:0", tmp_path) is None
    child.kill()
    child.wait()
    again = take("cpu:0", tmp_path)
    assert again is not None
    os.close(again)


def test_a_gpu_is_leased_for_all_servers_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    held = take("GPU-8f0c", tmp_path / "one")
    assert held is not None
    assert take("GPU-8f0c", tmp_path / "two") is None
    os.close(held)
    assert environment(check_device("GPU-8f0c"))["CUDA_VISIBLE_DEVICES"] == "GPU-8f0c"
    assert environment("cpu:3") == {}
    for wrong in ("cuda:0", "../x", "", "cpu:", "gpu 1"):
        with pytest.raises(ValueError, match="nvidia-smi -L"):
            check_device(wrong)


def test_a_runner_that_dies_alone_is_replaced_and_its_job_ends_first(tmp_path: Path) -> None:
    """A cancel that is on its way meanwhile is not lost; two devices run two jobs, and no third."""
    root = tmp_path / "jobs"
    jobs = Supervisor(root, [sys.executable, "-c", WAITS], devices=("cpu:0", "cpu:1"), apart=True)
    try:
        ids = [jobs.submit(FinetuneSim(task="t")).id for _ in range(3)]
        pids = [root / id_ / "pid" for id_ in ids]
        until(lambda: pids[0].exists() and pids[1].exists() and pids[1].read_text() and pids[0].read_text())
        first = int(pids[0].read_text())
        assert {jobs.get(id_).device for id_ in ids[:2]} == {"cpu:0", "cpu:1"}
        assert jobs.get(ids[2]).status is Status.QUEUED
        os.kill(jobs._runner.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        jobs.cancel(ids[1])
        until(lambda: jobs.get(ids[1]).status is Status.CANCELLED, limit_s=60)
        until(lambda: pids[2].exists() and jobs.get(ids[0]).attempt == 2, limit_s=60)
        assert process_start(first) is None
        assert jobs.get(ids[0]).causes == ("attempt 1: server restarted while the job ran",)
        for each in (ids[0], ids[2]):
            (root / each / "go").touch()
        until(lambda: all(jobs.has_ended(each) for each in ids), limit_s=60)
        assert [jobs.get(each).status.value for each in ids] == ["succeeded", "cancelled", "succeeded"]
        assert jobs.degraded == []
    finally:
        jobs.close()
