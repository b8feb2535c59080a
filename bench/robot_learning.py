"""What do logged episodes teach? Log N episodes, train by a method, evaluate in pairs; a cell per task and seed.

    python bench/robot_learning.py [--quick] [--json] [--tasks PushCube-v1] [--methods ppo_logged] [--seeds 0 1 2]
                                   [--episodes 128 ...] [--states 400] [--rounds 1] [--tuning] [--lean]
                                   [--set KEY=VALUE ...] [--control shuffled|flipped]
                                   [--out runs/robot-learning] [--write docs/results/robot-learning.md]

A cell that is finished is kept below --out and found again, as are bases, logs and rates that cells share, so a command
that was stopped continues where it was. `--rounds 5` logs and trains five times, each time from the version before.
`--tuning` evaluates on other states, by the lean stepper: for choosing settings. `--lean` evaluates the states of the
tables by the lean stepper, at a quarter of the cost. `--control` deals the labels of each
log out anew, or exchanges success and failure: what then still improves was not learnt from outcomes. `--quick` shows
that it runs.

In CPU seconds, a cell of 160 episodes costs about 15 for its log, 5 (ppo_logged, dsrl) to 40 (flow matching) for
training and 90 for each version that is evaluated on 400 states; a base is evaluated once for all cells.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import get_args

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent / "robot_learning_run"))

from cells import CONTROLS, TASKS, Plan, carry_out
from page import document, write_page

from pirl_server.config.command_line import settings
from pirl_server.config.training import LoggedMethod

QUICK = {"steps": 5, "value_steps": 5, "actor_steps": 1}


def plans(options: argparse.Namespace) -> list[Plan]:
    """One cell per task, method and seed."""
    chosen = (QUICK if options.quick else {}) | settings(options.set)
    return [
        Plan(
            task,
            method,
            seed,
            episodes,
            options.states,
            options.rounds,
            options.tuning,
            chosen,
            options.control,
            options.lean,
        )
        for task in options.tasks
        for episodes in options.episodes
        for method in options.methods
        for seed in options.seeds
    ]


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed of one task, 12 episodes, 4 states")
    parser.add_argument("--json", action="store_true", help="print the document instead of a line per cell")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["PushCube-v1"])
    parser.add_argument("--methods", nargs="+", choices=get_args(LoggedMethod), default=["ppo_logged"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the log and the training")
    parser.add_argument("--episodes", nargs="+", type=int, default=[128], help="of each round; a table for several")
    parser.add_argument("--states", type=int, default=400, help="of each evaluation")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tuning", action="store_true", help="other states, lean stepper: not for a table")
    parser.add_argument("--lean", action="store_true", help="evaluate by the lean stepper, said on the page")
    parser.add_argument("--control", choices=CONTROLS, help="labels that teach nothing true")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="fields of EpisodesConfig")
    parser.add_argument("--out", type=Path, default=Path("runs/robot-learning"))
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the tables, and the document beside it")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.episodes, options.states = options.seeds[:1], [12], 4
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) if options.quick else options.out
        rows = [carry_out(plan, out) for plan in plans(options)]
    if options.write:
        write_page(options.write, rows, re.sub(r" --out \S+", "", " ".join(sys.argv)))
    if options.json:
        print(json.dumps(document(rows)))
        return
    for row in rows:
        plan = row["plan"]
        print(
            f"{plan['task']} {plan['method']}{' ' + control if (control := plan.get('control')) else ''} "
            f"seed {row['seed']}: {row['before']:.3f} -> {row['after']:.3f} "
            f"(+{row['gained']} -{row['lost']} of {row['n']}, p {row['p']:.2g}) from {row['episodes']} episodes, "
            f"{row['robot_minutes']:.1f} robot minutes, {row['wall_s']:.0f} s"
        )


if __name__ == "__main__":
    main()
