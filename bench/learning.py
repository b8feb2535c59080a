"""Does it learn? Supervised start, online RL, evaluation before and after, over tasks and seeds: one command per table.

    python bench/learning.py [--quick] [--json] [--tasks PushCube-v1 PickCube-v1] [--seeds 0 1 2]
                             [--ppo KEY=VALUE ...] [--out runs/learning/manipulation] [--write docs/results/NAME.md]
                             [--ablation NAME] [--camera]

Every success rate is of 200 fixed initial states through ManiSkill's own step, by the deterministic sampler (ODE). A
run that is finished is kept below --out and not made again, so a command that was stopped goes on where it was.
`--ablation` compares settings, everything else equal, with a smaller budget; runs of other tables are found again.
`--camera`: the policy sees the object in an image of 64 pixels and reads its own arm; the critic alone is told more.
`--quick` shows that it runs, not what it learns.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent / "learning_run"))

from ablations import ABLATIONS, BUDGET
from ablations import TASK as ABLATION_TASK
from one_run import Plan, carry_out
from starts import CAMERA_PPO, CAMERA_PRETRAINING, CAMERA_STARTS, TASKS, start_of
from table import figures, write_page

QUICK_SFT = {"demonstrations": 2, "steps": 10}
QUICK_PPO = {"env_steps": 600, "envs": 4, "decisions": 4, "warmup_updates": 1}


def plans(options: argparse.Namespace) -> list[Plan]:
    """One run per task, case and seed."""
    asked = dict(setting(word) for word in options.ppo)
    cases = ABLATIONS[options.ablation] if options.ablation else {"": {}}
    made = []
    for task in options.tasks:
        for label, choices in cases.items():
            for seed in options.seeds:
                start, before = start_of(task, seed, options.camera), CAMERA_PRETRAINING if options.camera else {}
                budget = TASKS[task] | (BUDGET if options.ablation else {}) | (CAMERA_PPO if options.camera else {})
                if options.quick:
                    start, budget = start | QUICK_SFT, quick(choices)
                    before = before and before | {"sft": before["sft"] | QUICK_SFT}
                episodes = 4 if options.quick else 200
                made.append(Plan(task, seed, start, budget | choices | asked, episodes, label, before))
    return made


def quick(choices: dict[str, Any]) -> dict[str, Any]:
    """Hardly any training; a group must fit into the environments."""
    return QUICK_PPO | ({"workers": 1, "group": 2} if choices.get("advantage") == "grpo" else {})


def setting(word: str) -> tuple[str, Any]:
    """KEY=VALUE, the value as a number where it is one."""
    key, _, text = word.partition("=")
    try:
        return key, json.loads(text)
    except json.JSONDecodeError:
        return key, text


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one task, one seed, hardly any training")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    parser.add_argument("--tasks", nargs="+", choices=sorted(TASKS), help="default: all; for an ablation PullCube-v1")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--ppo", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of PpoConfig fields")
    parser.add_argument("--ablation", choices=sorted(ABLATIONS), help="compare settings instead")
    parser.add_argument("--camera", action="store_true", help="policies that see; default task: PushCube-v1")
    parser.add_argument("--out", type=Path, default=Path("runs/learning/manipulation"))
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the table and the curves")
    options = parser.parse_args()
    default = sorted(CAMERA_STARTS) if options.camera else sorted(TASKS)
    options.tasks = options.tasks or ([ABLATION_TASK] if options.ablation else default)
    if options.quick:
        options.tasks, options.seeds = options.tasks[:1], options.seeds[:1]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) if options.quick else options.out
        rows = [carry_out(plan, out, control=not options.quick) for plan in plans(options)]
    if options.write:
        write_page(options.write, rows, " ".join(sys.argv))
    shown = figures(rows)
    print(json.dumps(shown) if options.json else "\n".join(f"{name:56}{value:>10.3f}" for name, value in shown.items()))


if __name__ == "__main__":
    main()
