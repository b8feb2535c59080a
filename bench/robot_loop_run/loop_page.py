"""Finished runs as a page, and their numbers in the document of learning from episodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pirl_server.atomic_files import read_json

DOCUMENT = "robot-learning.json"
HOW = """Robots are ManiSkill's Panda behind `sim_arm_node`, each in a ROS domain of its own, with `arm_node`,
`policy_node` and `run_episodes`. Nothing in the loop knows that they are simulated. The simulator steps as soon as it
is commanded, so that an episode takes less time than on an arm. One server serves them, one `loop` job collects
episodes, learns, compares on initial states of its own, tries on one robot, promotes and watches. No person acts
in between. Robots rest while the server learns and compares: they share two cores with it.

With an *operator*, `scripted_operator` watches a share of the episodes and takes over by `teleop/joint_targets` in
those that have not succeeded after 24 of 48 actions. The loop counts such an episode as a failure of the policy,
whatever its label, and robot minutes contain what the operator drove.

*Success* is of 400 fixed initial states that no round saw, by the simulator's own step and the deterministic sampler,
with the Wilson 95 % interval. Each version is compared with the base on the same states: *gained* and *lost* changed
sides, p is the exact McNemar test's. *Episodes* and *human steps* are those that the version was learnt from, all
rounds together; *robot minutes* is simulated time in episodes since the loop began, of all robots, canary and watch
included.

What stands here was measured on 2026-11-30 beside much other work, so that wall time says little. PushCube with one
robot and the operator, and seed 0 of PickCube, were learnt while a window could still run on into the next chunk, and
all one-robot runs before candidates were compared on held-out episodes; the same commands give somewhat other figures
today."""


def write_page(path: Path, out: Path) -> None:
    """Write the page of all runs below `out`, and their rounds into the document beside it."""
    rows = [_read(found) for found in sorted(out.glob("*/result.json"))]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["plan"]["seed"]):
        groups.setdefault(_title(row["plan"]), []).append(row)
    lines = ["# The learning loop on robots over ROS", "", HOW, ""]
    for title, mine in sorted(groups.items()):
        commands = dict.fromkeys(f"`python {row['command']}`" for row in mine)
        lines += [
            f"## {title}",
            "",
            f"Made by {', '.join(commands)}.",
            "",
            *_table(mine),
            "",
            *_means(mine),
            *_without(mine),
        ]
    path.write_text("\n".join(lines).rstrip() + "\n")
    _write_document(path.with_name(DOCUMENT), groups)


def _read(path: Path) -> dict[str, Any]:
    """A run, with what its first round teaches without takeovers where that was asked for."""
    beside = path.with_name("without.json")
    return dict(read_json(path)) | ({"without": read_json(beside)} if beside.is_file() else {})


def _title(plan: dict[str, Any]) -> str:
    helped = f", operator in {plan['operator']:.0%} of the episodes" if plan["operator"] else ", no operator"
    robots = "one robot" if plan["robots"] == 1 else f"{plan['robots']} robots"
    return f"{plan['task']}, {plan['method']}{helped}, {robots}, {plan['episodes']} episodes a round"


def steps(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The base and what each round left in production, with what that had cost by then."""
    rated = {each["version"]: each for each in row["versions"]}
    found = [{"round": 0, **row["versions"][0], "outcome": "base", "robot_minutes": 0.0, "wall_s": 0.0}]
    for each in row["rounds"]:
        version = each["candidate"] if each["outcome"] == "promoted" else found[-1]["version"]
        paid = {name: each[name] for name in ("outcome", "robot_minutes", "wall_s")}
        found.append({"round": each["number"] + 1, **rated[version], **paid})
    return [each | _learnt(row["lineages"].get(each["version"], {})) for each in found]


def _learnt(lineage: dict[str, str]) -> dict[str, Any]:
    return {"episodes": int(lineage.get("episodes", 0)), "human": float(lineage.get("human_share", 0.0))}


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| seed | round | outcome | success | gained, lost | p | episodes (human steps) | robot minutes | wall, min |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for each in steps(row):
            low, high = each["interval"]
            cells = [row["seed"], each["round"], each["outcome"], f"{each['success']:.3f} ({low:.3f} to {high:.3f})"]
            if each["round"]:
                cells += [f"+{each['gained']} -{each['lost']} of {each['n']}", f"{each['p']:.2g}"]
                cells += [f"{each['episodes']} ({each['human']:.0%})"]
            else:
                cells += ["", "", ""]
            cells += [f"{each['robot_minutes']:.1f}", f"{each['wall_s'] / 60:.0f}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _means(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Mean success by round over the seeds, and robot minutes per point at the end."""
    listed = [steps(row) for row in rows]
    count = min(map(len, listed))
    means = [sum(each[n]["success"] for each in listed) / len(listed) for n in range(count)]
    points = 100.0 * (means[-1] - means[0])
    minutes = sum(each[count - 1]["robot_minutes"] for each in listed) / len(listed)
    paid = f", {minutes / points:.2f} robot minutes per point" if points > 0 else ""
    return [f"Mean of {len(rows)} seeds by round: {', '.join(f'{mean:.3f}' for mean in means)}{paid}.", ""]


def _without(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The first round's episodes with and without those that an operator helped in."""
    found = [row for row in rows if "without" in row]
    if not found:
        return []
    lines = [
        "The same first round without the episodes that the operator helped in, learnt from by `filtered_bc`:",
        "",
        "| seed | base | without: episodes | success | gained, lost | p | with: episodes (human steps) | success |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        base, first, without = *steps(row)[:2], row["without"]
        lines.append(
            f"| {row['seed']} | {base['success']:.3f} | {without['episodes']} | {without['success']:.3f}"
            f" | +{without['gained']} -{without['lost']} of {without['n']} | {without['p']:.2g}"
            f" | {first['episodes']} ({first['human']:.0%}) | {first['success']:.3f} |"
        )
    return [*lines, ""]


def _write_document(path: Path, groups: dict[str, list[dict[str, Any]]]) -> None:
    """Replace the rounds of these runs; tasks, and rounds of others, stay."""
    document = read_json(path) if path.is_file() else {"tasks": {}}
    rounds = document.setdefault("rounds", {})
    for methods in rounds.values():
        for method in [name for name in methods if name.endswith(" over ROS")]:
            del methods[method]
    for title, rows in groups.items():
        task, rest = title.split(", ", 1)
        cells = [_cell(row, each) for row in rows for each in steps(row)[1:]]
        rounds.setdefault(task, {})[f"{rest} over ROS"] = cells
    path.write_text(json.dumps(document, indent=1) + "\n")


def _cell(row: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
    names = ("round", "outcome", "episodes", "n", "p", "gained", "lost", "robot_minutes", "wall_s", "version")
    return {
        "seed": row["seed"],
        "robots": row["robots"],
        "operator": row["plan"]["operator"],
        "before": row["versions"][0]["success"],
        "after": step["success"],
        **{name: step[name] for name in names},
    }
