"""Cells as one document and as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("seed", "episodes", "before", "after", "n", "p", "robot_minutes", "wall_s")
HOW = """Episodes are logged in explore mode by the lean stepper from a base of 20 to 60 %. The method trains on them
with the defaults of `EpisodesConfig`. Base and result are evaluated on the same fixed states, on which no setting was
chosen, by {step} and the deterministic sampler. *Gained* and *lost* count the states that changed
sides; p is the exact McNemar test's: it is of these two versions on these states. What another log would give is seen
from the seeds. *Robot minutes* is the motion in the log.

The log of `dagger` is another one: in half of its episodes, once half of the time is over, the scripted expert takes
over and finishes the task. What it learns from is a person's skill, so it is to be compared with demonstrations, not
with the methods that are alone with their own mistakes."""

STEPS = {
    False: "the simulator's own step",
    True: "the lean stepper, whose states and success flags are ManiSkill's (`tests/sim/test_stepper_parity.py`),",
}
TUNING = """PPO's settings were chosen on 200 other states by the lean stepper, where the base has 0.385. In points
gained:

| settings | 96 episodes, seeds 0, 1, 2 | 192 episodes, seeds 0, 1 |
|---|---|---|
| 3 steps on the whole log, 4e-5, KL 0.1 (the default) | +7.0, +5.5, - | +6.0, +1.5 |
| the same with a critic of 30 steps | +3.5, -, - | - |
| the same without decay (`gae_lambda=1`) | +6.5, -, - | - |
| the same with `imitation_weight=0.2` | - | +7.5, +2.0 |
| 3 steps on the whole log, 6e-5, KL 0.2 | +5.0, -, - | - |
| 4 steps on thirds of the log, 4e-5, KL 0.1 | +7.5, +2.5, -2.5 | - |
| 4 steps on thirds of the log, 6e-5, KL 0.15 | +9.5, +1.5, - | - |
| 8 steps on the whole log, 4e-5, KL 0.15 | - | +5.0, -2.5 |
| 12 steps on thirds of the log, 3e-5, KL 0.2 | +2.0, -, - | - |
| 30 steps on thirds of the log, 1.5e-5, KL 0.1 | +1.0, -, - | - |

One evaluation of these has a standard error of about 2.5 points, and the log matters more than the setting. What
holds: a few large steps; more of them fit the log's noise and lose what the first ones gained."""

WINDOWS = """The methods of flow matching were compared on 400 other states by the lean stepper (`--tuning`), a base of
0.423 and 160 episodes. In points gained; one evaluation has a standard error of about 1.8 points:

| windows of the policy | what is imitated | seed 0 | seed 1 |
|---|---|---|---|
| at every step, across chunks, as they were cut until 956f255 | all alike | -5.5 | -4.7 |
| the same | successes | +3.3 | +5.3 |
| one per decision, within its chunk | all alike (`--methods advantage_weighted --set temperature=1e6`) | +1.3 | - |
| the same | successes (`filtered_bc`) | +4.1 | - |
| the same | by advantage (`advantage_weighted`) | +0.7 | +4.2 |

A window that begins within a chunk holds the rest of one draw and the beginning of another, each with its own
exploration noise. Imitating all of them alike should change nothing, and cost 5 points. Of the windows that RECAP's
quantile called good at a share of 0.3, 54 % were of failures, and hardly any of these had gained anything on its value:
only what did is called good now. On those 160 episodes that is 14 % of the windows (`good_share` in the job's metrics),
nine in ten of the successes'."""


def document(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Tasks, rounds and controls by method."""
    tasks: dict[str, dict[str, list[Any]]] = {}
    rounds: dict[str, dict[str, list[Any]]] = {}
    controls: dict[str, dict[str, list[Any]]] = {}
    for row in rows:
        plan = row["plan"]
        if control := plan.get("control"):
            cell = {"control": control, **_cell(row)}
            controls.setdefault(plan["task"], {}).setdefault(plan["method"], []).append(cell)
        elif plan["rounds"] == 1:
            tasks.setdefault(plan["task"], {}).setdefault(plan["method"], []).append(_cell(row))
        else:
            each = [
                {"seed": row["seed"], "round": n, **_cell(part | {"seed": row["seed"]})} for n, part in _rounds(row)
            ]
            rounds.setdefault(plan["task"], {}).setdefault(plan["method"], []).extend(each)
    return {"tasks": tasks, "rounds": rounds, "controls": controls}


def _rounds(row: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    each = row["plan"]["episodes"]
    return [(n, part | {"episodes": n * each}) for n, part in enumerate(row["rounds"], start=1)]


def _cell(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in (*COLUMNS, "gained", "lost", "logged_successes")}


def write_page(path: Path, rows: Sequence[dict[str, Any]], command: str) -> None:
    """Write the document beside the page."""
    whole = document(rows)
    path.with_suffix(".json").write_text(json.dumps(whole, indent=1) + "\n")
    how = HOW.replace("{step}", STEPS[any(row["plan"].get("lean") for row in rows)])
    lines = ["# Learning from a robot's own episodes", "", f"Made by `python {command}`.", "", how, ""]
    if whole["tasks"]:
        lines += ["## Points gained, by size of the log", "", *_summary(whole["tasks"]), ""]
    titles = {
        "tasks": "One round",
        "rounds": "Rounds, each from the version before",
        "controls": "Controls: labels dealt out anew, or exchanged",
    }
    for name, title in titles.items():
        if table := whole[name]:
            lines += [f"## {title}", "", *_table(table), ""]
    lines += ["## Why windows end with their chunk", "", WINDOWS, ""]
    path.write_text("\n".join([*lines, "## How PPO's settings were chosen", "", TUNING, ""]))


def _summary(table: dict[str, dict[str, list[Any]]]) -> list[str]:
    """Mean gain over the seeds, and each seed's, by method and number of episodes."""
    sizes = sorted({cell["episodes"] for methods in table.values() for cells in methods.values() for cell in cells})
    lines = ["| task | method |" + "".join(f" {size} episodes |" for size in sizes), "|---|---|" + "---|" * len(sizes)]
    for task, methods in table.items():
        for method, cells in methods.items():
            found = []
            for size in sizes:
                gains = [100 * (cell["after"] - cell["before"]) for cell in cells if cell["episodes"] == size]
                each = ", ".join(f"{gain:+.1f}" for gain in gains)
                found.append(f"{sum(gains) / len(gains):+.1f} ({each})" if gains else "-")
            lines.append(f"| {task} | {method} | " + " | ".join(found) + " |")
    return lines


def _table(table: dict[str, dict[str, list[Any]]]) -> list[str]:
    lines = [
        "| task | method | seed | episodes (successes) | robot minutes | before | after | gained, lost | p | wall, s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task, methods in table.items():
        for method, cells in methods.items():
            lines += [_line(task, method, cell) for cell in cells]
    return lines


def _line(task: str, method: str, cell: dict[str, Any]) -> str:
    name = f"{method}, round {cell['round']}" if "round" in cell else method
    name += f", {cell['control']}" if "control" in cell else ""
    return (
        f"| {task} | {name} | {cell['seed']} | {cell['episodes']} ({cell['logged_successes']}) "
        f"| {cell['robot_minutes']:.1f} | {cell['before']:.3f} | {cell['after']:.3f} "
        f"| +{cell['gained']} -{cell['lost']} of {cell['n']} | {cell['p']:.2g} | {cell['wall_s']:.0f} |"
    )
