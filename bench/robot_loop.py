"""Robots that get better by themselves: the loop job over real ROS nodes, gRPC, Zarr, REST, gate, canary and hot swap.

    python bench/robot_loop.py [--quick] [--json] [--task PushCube-v1] [--robots 1] [--rounds 3] [--episodes 200]
                               [--method ppo_logged] [--operator 0.5] [--seeds 0 1 2] [--states 400]
                               [--without-takeovers] [--set KEY=VALUE ...] [--out runs/robot-loop]
                               [--write docs/results/robot-loop.md]

Each simulated robot has a ROS domain of its own: sim_arm_node, arm_node, policy_node, run_episodes, with `--operator`
scripted_operator, which takes over in a share of the episodes by the real teleop topic. They run episodes faster than
real time, and rest while the server learns, for they share the machine with it; one loop job collects, learns,
compares, tries and promotes, unattended. Then every version that was in production is evaluated on the same initial
states, which no round saw, by ManiSkill's own step, and compared in pairs with the base (exact McNemar). A seed that is
finished is kept below --out and found again, and one that was stopped continues; `--write` makes the page of all that
are there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
if importlib.util.find_spec("pirl_msgs") is None or "AMENT_PREFIX_PATH" not in os.environ:
    os.execvp("bash", ["bash", "-c", f'. {ROOT}/docker/ros_env.sh && exec python "$0" "$@"', *sys.argv])
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parent / name) for name in ("robot_loop_run", "robot_learning_run")]

from cells import TASKS  # noqa: E402
from loop_page import write_page  # noqa: E402
from seed_run import Run, carry_out, without_takeovers  # noqa: E402

from pirl_server.config.command_line import settings  # noqa: E402


def line(row: dict[str, Any]) -> str:
    """What a person reads of a seed."""
    rates = " -> ".join(f"{each['success']:.3f}" for each in row["versions"])
    rounds = ", ".join(each["outcome"] for each in row["rounds"])
    return (
        f"seed {row['seed']}, {row['robots']} robots: {rates} (p {row['versions'][-1]['p']:.2g}), "
        f"{row['robot_minutes']:.0f} robot minutes, {row['loop_s'] / 60:.0f} min; rounds: {rounds}"
    )


def runs(options: argparse.Namespace) -> list[Run]:
    """One per seed."""
    if options.quick:
        options.seeds, options.rounds, options.episodes = options.seeds[:1], 1, 12
        options.states, options.gate_states, options.canary, options.watch = 8, 50, 3, 3
    return [
        Run(
            options.task, options.method, seed, options.robots, options.rounds, options.episodes, options.states,
            options.gate_states, options.canary, options.watch, options.operator, settings(options.set),
        )
        for seed in options.seeds
    ]  # fmt: skip


def main() -> None:
    """Run the seeds and print."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of 12 episodes: shows that it runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--task", choices=TASKS, default="PushCube-v1")
    parser.add_argument("--method", default="ppo_logged")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--robots", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=200, help="of each round")
    parser.add_argument("--states", type=int, default=400, help="of the final evaluations")
    parser.add_argument("--gate-states", type=int, default=200, help="of a round's comparison")
    parser.add_argument("--canary", type=int, default=10, help="episodes of a candidate before its promotion")
    parser.add_argument("--watch", type=int, default=20, help="episodes after it in which it may be rolled back")
    parser.add_argument("--operator", type=float, default=0.0, help="share of the episodes that an operator watches")
    parser.add_argument("--without-takeovers", action="store_true", help="learn from the first round without them, too")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="fields of EpisodesConfig")
    parser.add_argument("--out", type=Path, default=Path("runs/robot-loop"))
    parser.add_argument("--write", type=Path, metavar="PAGE", help="of all runs below --out, and robot-learning.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = (Path(folder) if options.quick else options.out).resolve()
        command = re.sub(r" --(out|write) \S+", "", " ".join(sys.argv))
        rows = [carry_out(run, out, command) for run in runs(options)]
        if options.without_takeovers:
            for row, run in zip(rows, runs(options)):
                row["without"] = without_takeovers(run, out)
        if options.write:
            write_page(options.write, out)
    print(json.dumps(rows) if options.json else "\n".join(map(line, rows)))


if __name__ == "__main__":
    main()
