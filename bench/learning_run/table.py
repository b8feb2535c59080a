"""Runs as figures, as a Markdown table with its curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from pirl_server.registry.wilson import wilson_interval

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SAID = (
    "rollout_success", "explained_variance", "approx_kl", "clip_fraction", "actor_grad_norm", "actor_steps"
)  # fmt: skip
"""what cases are compared by beside their success"""
HEALTH = (
    "approx_kl", "clip_fraction", "first_log_ratio", "explained_variance", "actor_grad_norm", "ess", "sigma_k0_d0",
    "episode_return", "samples_per_second",
)  # fmt: skip


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Flat numbers by name."""
    shown: dict[str, float] = {}
    for row in rows:
        name = f"{row['plan']['task']} seed {row['plan']['seed']} {row['plan']['label']}".rstrip()
        for when in ("before", "after"):
            shown[f"{name}, {when}"] = row[when]["successes"] / row[when]["episodes"]
        if "elsewhere" in row:
            shown[f"{name}, images of another scene"] = row["elsewhere"]["successes"] / row["elsewhere"]["episodes"]
        shown[f"{name}, env steps"] = row["env_steps"]
        shown[f"{name}, RL s"] = row["rl_s"]
    return shown


def write_page(path: Path, rows: list[dict[str, Any]], command: str) -> None:
    """Write the table to `path` and the curves beside it."""
    picture = path.with_suffix(".png")
    draw(rows, picture)
    health = path.with_name(f"{path.stem}-health.png")
    draw_health(rows, health)
    lines = [
        f"Made by `python {command}`. What is not named is the default of `SftConfig` and `PpoConfig`:",
        "",
        *settings(rows),
        "",
        *pooled(rows),
        "| task | seed | case | before (95 %) | after (95 %) | disjoint | env steps | RL wall, s | mean steps |",
        "|---|---|---|---|---|---|---|---|---|",
        *(line(row) for row in rows),
        "",
        *(text for row in rows if len(row["before"].get("parts", ())) > 1 for text in parts(row)),
        *controls(rows),
        f"![curves]({picture.name})",
        "",
        f"![what each update said of itself]({health.name})",
    ]
    path.write_text("\n".join(lines) + "\n")


def settings(rows: list[dict[str, Any]]) -> list[str]:
    """How the runs began and went on, once for all that agree."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for plan in (row["plan"] for row in rows):
        words = f"supervised start `{spelled(plan['sft'])}`, then RL `{spelled(plan['ppo'])}`"
        if first := plan["pretraining"]:
            words = f"{first['task']} `{spelled(first['sft'])}`, one seed for all, then its own {words}"
        seeds.setdefault((f"{plan['task']} {plan['label']}".rstrip(), words), []).append(str(plan["seed"]))
    return [f"- {name}, seed {', '.join(found)}: {words}" for (name, words), found in seeds.items()]


def spelled(chosen: dict[str, Any]) -> str:
    """Settings as they are typed."""
    return " ".join(f"{name}={value}" for name, value in chosen.items())


def pooled(rows: list[dict[str, Any]]) -> list[str]:
    """Cases beside each other, over their seeds; the interval is that of all their episodes, not of the seeds."""
    labels = list(dict.fromkeys(row["plan"]["label"] for row in rows))
    if len(labels) == 1:
        return []
    lines = [
        "| case, over its seeds | before (95 %) | after (95 %) | by seed | RL wall, s | of it learning | updates |",
        "|---|---|---|---|---|---|---|",
    ]
    for label in labels:
        runs = [row for row in rows if row["plan"]["label"] == label]
        each = ", ".join(f"{run['after']['successes'] / run['after']['episodes']:.3f}" for run in runs)
        wall, updates = sum(run["rl_s"] for run in runs), sum(len(run["curve"]) for run in runs)
        learning = sum(run["curve"][-1]["learner_s"] for run in runs) / wall
        before, after = together(runs, "before"), together(runs, "after")
        lines.append(f"| {label} | {before} | {after} | {each} | {wall:.0f} | {learning:.0%} | {updates} |")
    return [*lines, "", *said(rows, labels)]


def said(rows: list[dict[str, Any]], labels: list[str]) -> list[str]:
    """What the updates of each case said of themselves, the mean over them and over its seeds; warm-up is included."""
    lines = ["| mean over all updates | " + " | ".join(SAID) + " |", "|---|" + "---|" * len(SAID)]
    for label in labels:
        points = [point for row in rows if row["plan"]["label"] == label for point in row["curve"]]
        means = []
        for name in SAID:
            found = [point[name] for point in points if point.get(name) is not None]
            means.append(f"{np.mean(found):.3g}" if found else "")
        lines.append(f"| {label} | " + " | ".join(means) + " |")
    return [*lines, ""]


def together(runs: list[dict[str, Any]], when: str) -> str:
    """The rate of all episodes of some runs, with its interval."""
    successes, episodes = (sum(run[when][what] for run in runs) for what in ("successes", "episodes"))
    low, high = wilson_interval(successes, episodes)
    return interval({"successes": successes, "episodes": episodes, "low": low, "high": high})


def line(row: dict[str, Any]) -> str:
    """One run as a row of the table."""
    plan, before, after = row["plan"], row["before"], row["after"]
    disjoint = "yes" if before["high"] < after["low"] else "no"
    return (
        f"| {plan['task']} | {plan['seed']} | {plan['label']} | {interval(before)} | {interval(after)} | {disjoint} "
        f"| {row['env_steps']:,.0f} | {row['rl_s']:.0f} | {before['mean_steps']:.1f} -> {after['mean_steps']:.1f} |"
    )


def controls(rows: list[dict[str, Any]]) -> list[str]:
    """What the images were needed for, of policies that see."""
    told = [
        f"- seed {row['plan']['seed']} after RL, shown images of another scene: {interval(row['elsewhere'])}"
        for row in rows
        if "elsewhere" in row
    ]
    return [*told, ""] if told else []


def parts(row: dict[str, Any]) -> list[str]:
    """The tasks of a suite, one by one."""
    plan, before, after = row["plan"], row["before"]["parts"], row["after"]["parts"]
    return [
        f"| {plan['task']} seed {plan['seed']} {plan['label']} | before (95 %) | after (95 %) |",
        "|---|---|---|",
        *(f"| {name} | {interval(before[name])} | {interval(after[name])} |" for name in before),
        "",
    ]


def interval(found: dict[str, Any]) -> str:
    """Rate with its interval."""
    rate = found["successes"] / found["episodes"]
    return f"{rate:.3f} ({found['low']:.3f}-{found['high']:.3f})"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Success of the stochastic rollouts over env steps, one panel per task; a colour per case, a line per seed."""
    tasks = sorted({row["plan"]["task"] for row in rows})
    figure, axes = plt.subplots(1, len(tasks), figsize=(4.5 * len(tasks), 3.2), squeeze=False, sharey=True)
    for axis, task in zip(axes[0], tasks):
        _lines(axis, [row for row in rows if row["plan"]["task"] == task], "rollout_success")
        axis.set(title=task, xlabel="env steps", ylim=(0, 1))
        axis.legend(fontsize=7)
    axes[0][0].set_ylabel("rollout success (last 256 episodes)")
    _save(figure, path)


def draw_health(rows: list[dict[str, Any]], path: Path) -> None:
    """What each update said of itself: divergence, clip, ratio, critic, gradient, noise, speed."""
    figure, axes = plt.subplots(3, 3, figsize=(12, 8), sharex=True)
    for axis, name in zip(axes.flat, HEALTH):
        _lines(axis, rows, name)
        axis.set(title=name)
    axes[0][0].legend(fontsize=6)
    for axis in axes[-1]:
        axis.set(xlabel="env steps")
    _save(figure, path)


def _lines(axis: Any, rows: list[dict[str, Any]], name: str) -> None:
    labels = list(dict.fromkeys(row["plan"]["label"] for row in rows))
    for row in rows:
        label, seed = row["plan"]["label"], row["plan"]["seed"]
        steps = [point["env_steps"] for point in row["curve"]]
        values = [np.nan if point.get(name) is None else point[name] for point in row["curve"]]
        if len(labels) == 1:
            axis.plot(steps, values, label=f"{label} seed {seed}".strip())
        else:
            first = seed == min(each["plan"]["seed"] for each in rows)
            axis.plot(steps, values, color=f"C{labels.index(label)}", alpha=0.7, label=label if first else None)
    axis.grid(alpha=0.3)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
