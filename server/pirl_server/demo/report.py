"""The demo's report folder: table, learning curves, and the robot before and after as a GIF."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

GIF_EPISODES = 4
SCALE = 4
COLOURS = 96


@dataclass(frozen=True)
class Outcome:
    """What one demo run measured."""

    task: str
    seed: int
    before: dict[str, Any]
    """result of the evaluate job of the base version"""
    after: dict[str, Any]
    robot_before: dict[str, Any]
    """summary of run_episodes"""
    robot_after: dict[str, Any]
    env_steps: int
    rl_wall_s: float
    total_wall_s: float
    learner_share: float
    """of the RL wall time"""
    first_log_ratio: float
    """largest |log ratio| at the first actor update, before any step"""

    @property
    def improved(self) -> bool:
        """True when the two 95 % intervals do not overlap and the later one is higher."""
        return bool(self.after["wilson_low"] > self.before["wilson_high"])

    def table(self) -> str:
        """The result as text."""
        rows = [
            f"{'':22}{'base policy':>26}{'after RL':>26}",
            f"{'policy version':22}{self.before['version']:>26}{self.after['version']:>26}",
            f"{'fixed initial states':22}{_rate(self.before):>26}{_rate(self.after):>26}",
            f"{'  Wilson 95 %':22}{_interval(self.before):>26}{_interval(self.after):>26}",
            f"{'mean episode, steps':22}{self.before['mean_steps']:>26.1f}{self.after['mean_steps']:>26.1f}",
            f"{'on the robot (ROS)':22}{_robot(self.robot_before):>26}{_robot(self.robot_after):>26}",
        ]
        facts = (
            f"{self.task}, seed {self.seed}: {self.env_steps} env steps of RL in {self.rl_wall_s:.0f} s "
            f"(learner {100 * self.learner_share:.0f} %), {self.total_wall_s:.0f} s in all"
        )
        return "\n".join([*rows, facts])


def write_report(folder: Path, outcome: Outcome, metrics: Sequence[dict[str, float]]) -> None:
    """Write result.json, result.txt, curves.png and robot.gif."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(asdict(outcome), indent=1))
    (folder / "result.txt").write_text(outcome.table() + "\n")
    (folder / "metrics.json").write_text(json.dumps(list(metrics)))
    draw_curves(folder / "curves.png", outcome, metrics)
    draw_robot(folder / "robot.gif", folder.parent / "robot_before", folder.parent / "robot_after")


def draw_curves(path: Path, outcome: Outcome, metrics: Sequence[dict[str, float]]) -> None:
    """Success over env steps with both evaluations, and the health metrics of the updates."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    steps = [row["env_steps"] for row in metrics]
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True)
    success, kl, variance, length = axes.flat
    success.plot(steps, [row["rollout_success"] for row in metrics], label="stochastic rollouts, last 256 episodes")
    for result, where, label in (
        (outcome.before, 0, "base, evaluated"),
        (outcome.after, steps[-1], "after RL, evaluated"),
    ):
        error = [[result["success_rate"] - result["wilson_low"]], [result["wilson_high"] - result["success_rate"]]]
        success.errorbar([where], [result["success_rate"]], yerr=error, fmt="o", capsize=4, label=label)
    success.set(ylabel="success", ylim=(0, 1))
    success.legend(fontsize=7)
    kl.plot(steps, [row.get("approx_kl", np.nan) for row in metrics], label="approximate KL")
    kl.plot(steps, [row.get("clip_fraction", np.nan) for row in metrics], label="clip fraction")
    kl.legend(fontsize=7)
    variance.plot(steps, [row["explained_variance"] for row in metrics])
    variance.set(ylabel="critic's explained variance", xlabel="env steps", ylim=(-0.5, 1))
    length.plot(steps, [row["episode_length"] for row in metrics])
    length.set(ylabel="episode length, steps", xlabel="env steps")
    figure.suptitle(f"{outcome.task}, seed {outcome.seed}: hybrid Flow-SDE + PPO")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_robot(path: Path, before: Path, after: Path) -> None:
    """The same initial states with the base policy (left) and after RL (right), one episode after the other.

    Raises RuntimeError when no frame was recorded.
    """
    from PIL import Image

    names = sorted(file.name for file in before.glob("*.npz") if (after / file.name).exists())[:GIF_EPISODES]
    frames: list[Image.Image] = []
    for name in names:
        left, right = (np.load(folder / name)["frames"] for folder in (before, after))
        for index in range(max(len(left), len(right))):
            pair = [view[min(index, len(view) - 1)] for view in (left, right)]
            picture = Image.fromarray(np.concatenate(pair, axis=1))
            picture = picture.resize((picture.width * SCALE, picture.height * SCALE), Image.Resampling.NEAREST)
            frames.append(picture.quantize(COLOURS, dither=Image.Dither.NONE))
        frames += [frames[-1]] * 10
    if not frames:
        raise RuntimeError("no camera frame was recorded: no message arrived on the camera's topic")
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, loop=0)


def _rate(result: dict[str, Any]) -> str:
    return f"{result['successes']}/{result['episodes']} = {result['success_rate']:.3f}"


def _interval(result: dict[str, Any]) -> str:
    return f"{result['wilson_low']:.3f} to {result['wilson_high']:.3f}"


def _robot(summary: dict[str, Any]) -> str:
    return f"{summary['successes']}/{len(summary['episodes'])}"
