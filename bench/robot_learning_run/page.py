"""Cells as one document and as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("seed", "episodes", "before", "after", "n", "p", "robot_minutes", "wall_s")
HOW = """Episodes are logged in explore mode by the lean stepper from a base of 20 to 60 %. The method trains on them
with the defaults of `EpisodesConfig`. Base and result are evaluated on the same fixed states, on which no setting was
chosen, by the simulator's own step and the deterministic sampler. *Gained* and *lost* count the states that changed
sides; p is the exact McNemar test's: it is of these two versions on these states. What another log would give is seen
from the seeds. *Robot minutes* is the motion in the log.

The log of `dagger` is another one: in half of its episodes, once half of the time is over, the scripted expert takes
over and finishes the task. What it learns from is a person's skill, so it is to be compared with demonstrations, not
with the methods that are alone with their own mistakes."""

TUNING = """PPO's step is the mean gradient of a whole log, of the expert's attention alone, so long that the policy
is at KL 0.3 from the base, with advantages that decay by 0.5 a decision. How long it is was chosen on other states and
other logs than those of the tables, by the lean stepper, 200 episodes a log and 400 states, where the base has 0.422
(`--tuning --episodes 200 --set max_kl=0.8` measures the like):

| KL | one log | another |
|---|---|---|
| 0.3 (the default) | 0.605 (+91 -18 of 400, p 6e-13) | 0.460 (+44 -29 of 400, p 0.1) |
| 0.8 | 0.545 (+101 -52 of 400, p 9e-5) | 0.422 (+53 -53 of 400) |

The log matters more than the setting. Before, PPO took three Adam steps on all of the expert, at 4e-5 and up to KL 0.1,
with a decay of 0.95. With PPO's clip at 0.2, twelve such steps on attention alone end at KL 0.02 to 0.04: it is the
clip that then bounds the step, not the log."""


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
    lines = ["# Learning from a robot's own episodes", "", f"Made by `python {command}`.", "", HOW, ""]
    titles = {
        "tasks": "One round",
        "rounds": "Rounds, each from the version before",
        "controls": "Controls: labels dealt out anew, or exchanged",
    }
    for name, title in titles.items():
        if table := whole[name]:
            lines += [f"## {title}", "", *_table(table), ""]
    path.write_text("\n".join([*lines, "## How PPO's settings were chosen", "", TUNING, ""]))


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
