"""The main job once, small, with every real part: server process, ROS 2 nodes, ManiSkill, REST jobs, Zarr on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from installed import needs
from patience import completed, patient, until

pytest.importorskip("rclpy", reason="rclpy is not importable: source docker/ros_env.sh")
pytest.importorskip("pirl_msgs.msg", reason="pirl_msgs is not built: make setup")
needs("mani_skill", reason="mani-skill is not installed")

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.render, pytest.mark.slow]

EPISODES = 2


def demo_command(out: Path, env_steps: int) -> list[str]:
    sizes = ["--robot-episodes", str(EPISODES), "--evaluation-episodes", "8", "--env-steps", str(env_steps)]
    return [sys.executable, "-m", "pirl_contract.commands.cli", "demo", "--out", str(out), *sizes]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("demo") / "run"
    done = completed(demo_command(out, 6000), limit_s=500)
    return out, done


def episodes_of(out: Path) -> list[zarr.Group]:
    paths = sorted((out / "server/episodes/episodes").glob("*/*/episode.zarr.zip"))
    return [zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r") for path in paths]


def test_it_ends_with_the_table_and_says_so_when_nothing_was_shown(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """6,000 steps teach next to nothing: the demo must print the table and still exit non-zero, or have improved."""
    out, done = finished
    assert "fixed initial states" in done.stdout, done.stdout + done.stderr
    result = json.loads((out / "report/result.json").read_text())
    improved = result["after"]["wilson_low"] > result["before"]["wilson_high"]
    assert done.returncode == (0 if improved else 1)
    assert ("FAILED" in done.stderr) is not improved


def test_the_report_has_curves_and_the_robot_before_and_after(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, _ = finished
    assert (out / "report/curves.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "report/robot.gif").read_bytes().startswith(b"GIF89a")
    frames = np.load(next((out / "robot_before").glob("*.npz")))["frames"]
    assert frames.shape[1:] == (64, 64, 3)
    assert frames.std() > 5, "the camera shows a blank picture"


def test_the_first_update_starts_from_ratio_one(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = finished
    assert json.loads((out / "report/result.json").read_text())["first_log_ratio"] <= 1e-5


def test_the_robots_episodes_open_with_plain_zarr(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Twice the robot's episodes, each with pictures, chains, versions and what was executed."""
    out, _ = finished
    groups = episodes_of(out)
    assert len(groups) == 2 * EPISODES
    for group in groups:
        calls, steps = group["call"], group["step"]
        assert calls["images/base"].shape[1:] == (64, 64, 3)
        assert np.asarray(calls["images/base"]).std() > 5
        assert calls["chain"].shape[1:] == (5, 4, 4)
        assert (np.asarray(calls["sde_index"]) >= 0).all(), "the demo's server explores"
        assert steps["executed"].shape == (steps["reward"].shape[0], 4)
        played = np.asarray(steps["call"])
        assert set(np.unique(played[played >= 0])) <= set(range(calls["chain"].shape[0]))
        assert group.attrs["success"] in (True, False)


def test_behaviour_log_probs_are_recomputed_from_the_stored_chain(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """The archived checkpoint gives the logged densities back; another checkpoint does not."""
    import torch

    from pirl_server.algorithm.hybrid_sampler import step_of_chain, transition_log_prob
    from pirl_server.policy.flow_policy import FlowPolicy

    out, _ = finished
    worst, worst_wrong = 0.0, 0.0
    for group in episodes_of(out):
        (version,) = group.attrs["policy_versions"]
        calls = {name: np.asarray(group["call"][name]) for name in ("state", "chain", "sde_index", "log_prob")}
        chain, index = torch.from_numpy(calls["chain"]), torch.from_numpy(calls["sde_index"]).long()
        for folder in (out / "server/models/versions").iterdir():
            policy = FlowPolicy.load(folder)
            state = torch.from_numpy(policy.features(calls["state"]))
            prefix = policy.prefix_table((group.attrs["instruction"],))
            with torch.inference_mode():
                again = transition_log_prob(
                    lambda x, t: policy.model.velocity(prefix, state, x, t),  # noqa: B023
                    *step_of_chain(chain, index),
                    index,
                    policy.card.denoise_steps,
                    policy.transition,
                )
            difference = float((again - torch.from_numpy(calls["log_prob"])).abs().max())
            if folder.name == version:
                worst = max(worst, difference)
            else:
                worst_wrong = max(worst_wrong, difference)
    assert worst < 1e-4
    assert worst_wrong > 1e-2


def starting(out: Path) -> bool:
    return (out / "logs/sim_arm_node.log").exists()


def with_an_open_episode(out: Path) -> bool:
    return any((out / "server/episodes/staging").glob("*"))


@pytest.mark.parametrize(
    ("number", "reached"),
    [(signal.SIGINT, starting), (signal.SIGINT, with_an_open_episode), (signal.SIGKILL, starting)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_interrupted_it_leaves_no_process_and_no_torn_episode(
    tmp_path: Path, number: int, reached: Callable[[Path], bool]
) -> None:
    """Ctrl-C while starting and while the robot runs: every process of the run is gone at its exit.

    Killed it can end nothing itself and is followed within seconds.
    """
    out, log = tmp_path / "run", tmp_path / "output.txt"
    mark = f"PIRL_TEST_MARK={uuid.uuid4().hex}"
    name, _, value = mark.partition("=")
    with log.open("wb") as output:
        demo = subprocess.Popen(
            demo_command(out, 50_000),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, name: value},
            # Who runs the tests in the background of a shell makes their children deaf to Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        until(lambda: reached(out) or demo.poll() is not None, log.read_text, limit_s=120)
        assert demo.poll() is None, log.read_text()
        assert len(processes_with(mark)) > 1, "nothing was started yet: the test would prove nothing"
        demo.send_signal(number)
        demo.wait(patient(60))
    finally:
        demo.kill()
    if number == signal.SIGKILL:
        until(lambda: not processes_with(mark), lambda: processes_with(mark), limit_s=5.0)
        return
    assert demo.returncode == 130, log.read_text()
    assert not processes_with(mark)
    staging = out / "server/episodes/staging"
    assert not staging.exists() or not list(staging.iterdir())


def processes_with(mark: str) -> list[str]:
    """Command lines of live processes whose environment carries the mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    return found
