"""Runs as figures, as a Markdown table with its curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Flat numbers by name."""
    shown: dict[str, float] = {}
    for row in rows:
        name = f"{row['plan']['task']} seed {row['plan']['seed']} {row['plan']['label']}".rstrip()
        for when in ("before", "after"):
            shown[f"{name}, {when}"] = row[when]["successes"] / row[when]["episodes"]
        shown[f"{name}, env steps"] = row["env_steps"]
        shown[f"{name}, RL s"] = row["rl_s"]
    return shown


def write_page(path: Path, rows: list[dict[str, Any]], command: str) -> None:
    """Write the table to `path` and the curves beside it."""
    picture = path.with_suffix(".png")
    draw(rows, picture)
    lines = [
        f"Made by `python {command}`.",
        "",
        "| task | seed | case | before (95 %) | after (95 %) | disjoint | env steps | RL wall, s | mean steps |",
        "|---|---|---|---|---|---|---|---|---|",
        *(line(row) for row in rows),
        "",
        f"![curves]({picture.name})",
    ]
    path.write_text("\n".join(lines) + "\n")


def line(row: dict[str, Any]) -> str:
    """One run as a row of the table."""
    plan, before, after = row["plan"], row["before"], row["after"]
    disjoint = "yes" if before["high"] < after["low"] else "no"
    return (
        f"| {plan['task']} | {plan['seed']} | {plan['label']} | {interval(before)} | {interval(after)} | {disjoint} "
        f"| {row['env_steps']:,.0f} | {row['rl_s']:.0f} | {before['mean_steps']:.1f} -> {after['mean_steps']:.1f} |"
    )


def interval(found: dict[str, float]) -> str:
    """Rate with its interval."""
    rate = found["successes"] / found["episodes"]
    return f"{rate:.3f} ({found['low']:.3f}-{found['high']:.3f})"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Success of the stochastic rollouts over env steps, one panel per task."""
    tasks = sorted({row["plan"]["task"] for row in rows})
    figure, axes = plt.subplots(1, len(tasks), figsize=(4.5 * len(tasks), 3.2), squeeze=False, sharey=True)
    for axis, task in zip(axes[0], tasks):
        for row in (each for each in rows if each["plan"]["task"] == task):
            steps = [point["env_steps"] for point in row["curve"]]
            success = [
                point["rollout_success"] if point["rollout_success"] is not None else np.nan for point in row["curve"]
            ]
            axis.plot(steps, success, label=f"{row['plan']['label']} seed {row['plan']['seed']}".strip())
        axis.set(title=task, xlabel="env steps", ylim=(0, 1))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    axes[0][0].set_ylabel("rollout success (last 256 episodes)")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
