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
from the seeds. *Robot minutes* is the motion in the log. The machine was shared with other work, so wall time is an
upper bound.

The log of `dagger` is another one: in half of its episodes, once half of the time is over, the scripted expert takes
over and finishes the task. What it learns from is a person's skill, so it is to be compared with demonstrations, not
with the methods that are alone with their own mistakes."""

STEPS = {
    False: "the simulator's own step",
    True: "the lean stepper, whose states and success flags are ManiSkill's (`tests/sim/test_stepper_parity.py`),",
}
TUNING = """PPO's step is the mean gradient of a whole log, of the expert's attention alone, so long that the policy
is at KL 0.3 from the base, with advantages that decay by 0.5 a decision. How long it is was chosen on other states and
other logs than those of the tables, by the lean stepper, 200 episodes a log and 400 states, where the base has 0.422
(`--tuning --episodes 200 --set max_kl=0.8` measures the like):

| log | KL 0.3 (the default) | KL 0.8 |
|---|---|---|
| 1 | 0.588 (+79 -13, p 1e-12) | 0.545 (+101 -52, p 9e-5) |
| 2 | 0.472 (+32 -12, p 4e-3) | - |
| 3 | 0.573 (+80 -20, p 1e-9) | - |
| 4 | 0.463 (+46 -30, p 0.09) | 0.422 (+53 -53) |

Controls: with labels shuffled the first log gives 0.507 (+48 -14, p 2e-5; 0.525 without a discount), the third 0.455
(+31 -18); with success and failure exchanged the first gives 0.260 (+2 -67). One log says little here: over the ten
logs of the tables, seeds 0 to 9, PPO gains 5.4 points with the true labels and -0.5 with shuffled ones, which move each
result by -12 to +7; the true labels are better on eight of the ten (Wilcoxon's signed ranks, exact, p .01). What PPO
learns is learnt from the labels; how much a single log gives is mostly chance. `filtered_bc` gains 6.9 with the true
labels and -2.1 with shuffled ones, -6 to 0, on the same ten logs: better on all (p .002).

The log matters more than the setting. Before, PPO took three Adam steps on all of the expert, at 4e-5 and up to KL 0.1,
with a decay of 0.95. With PPO's clip at 0.2, twelve such steps on attention alone end at KL 0.02 to 0.04: it is the
clip that then bounds the step, not the log."""

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
            controls.setdefault(plan["task"], {}).setdefault(f"{plan['method']}, {control}", []).append(cell)
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
    """Write the document beside the page; what this command says nothing of stays in both."""
    whole, beside = document(rows), path.with_suffix(".json")
    kept = json.loads(beside.read_text()) if beside.is_file() else {}
    made = kept.get("commands", {})
    for name in (name for name, table in whole.items() if table):
        made[name] = [*(each for each in made.get(name, []) if each != command), command]
    shown = {"tasks": _merged(kept.get("tasks", {}), whole["tasks"]), "rounds": whole["rounds"]}
    shown["controls"] = _merged(kept.get("controls", {}), whole["controls"])
    lasting = {"rounds": _joined(kept.get("rounds", {}), whole["rounds"]), "commands": made}
    beside.write_text(json.dumps(shown | lasting, indent=1) + "\n")
    how = HOW.replace("{step}", STEPS[any(row["plan"].get("lean") for row in rows)])
    lines = ["# Learning from a robot's own episodes", "", how, ""]
    if shown["tasks"]:
        lines += ["## Points gained, by size of the log", "", *_summary(shown["tasks"]), ""]
    titles = {
        "tasks": "One round",
        "rounds": "Rounds, each from the version before",
        "controls": "Controls: labels shuffled, or exchanged",
    }
    for name, title in titles.items():
        if table := shown[name]:
            lines += [
                f"## {title}",
                "",
                "Made by " + ", ".join(f"`python {each}`" for each in made[name]) + ".",
                "",
                *_table(table),
                "",
            ]
    lines += ["## Why windows end with their chunk", "", WINDOWS, ""]
    path.write_text("\n".join([*lines, "## How PPO's settings were chosen", "", TUNING, ""]))


def _joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {task: old.get(task, {}) | new.get(task, {}) for task in {**old, **new}}


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Cells by task and method, in order of size and seed; a new one replaces that of the same size and seed."""
    both: dict[str, Any] = {}
    for table in (old, new):
        for task, methods in table.items():
            for method, cells in methods.items():
                found = both.setdefault(task, {}).setdefault(method, {})
                found.update({(cell["episodes"], cell["seed"]): cell for cell in cells})
    return {
        task: {method: [cells[key] for key in sorted(cells)] for method, cells in methods.items()}
        for task, methods in both.items()
    }


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
    return (
        f"| {task} | {name} | {cell['seed']} | {cell['episodes']} ({cell['logged_successes']}) "
        f"| {cell['robot_minutes']:.1f} | {cell['before']:.3f} | {cell['after']:.3f} "
        f"| +{cell['gained']} -{cell['lost']} of {cell['n']} | {cell['p']:.2g} | {cell['wall_s']:.0f} |"
    )
