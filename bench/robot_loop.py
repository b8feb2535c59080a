"""Robots that get better by themselves: the loop job over real ROS nodes, gRPC, Zarr, REST, gate, canary and hot swap.

    python bench/robot_loop.py [--quick] [--json] [--task PushCube-v1] [--robots 1] [--rounds 3] [--episodes 200]
                               [--method ppo_logged] [--seeds 0 1 2] [--states 400] [--set KEY=VALUE ...]
                               [--out runs/robot-loop]

Each simulated robot has a ROS domain of its own: sim_arm_node, arm_node, policy_node, run_episodes. They run episodes
without a pause, faster than real time, while one loop job collects, learns, compares, tries and promotes, unattended.
Then every version that was in production is evaluated on the same initial states, which no round saw, by ManiSkill's
own step, and compared in pairs with the base (exact McNemar). A seed that is finished is kept below --out and found
again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
if importlib.util.find_spec("pirl_msgs") is None or "AMENT_PREFIX_PATH" not in os.environ:
    os.execvp("bash", ["bash", "-c", f'. {ROOT}/docker/ros_env.sh && exec python "$0" "$@"', *sys.argv])
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent / "robot_learning_run"))

from cells import TASKS, start  # noqa: E402

from pirl_server.atomic_files import read_json, write_json  # noqa: E402
from pirl_server.config.command_line import settings  # noqa: E402
from pirl_server.demo.processes import Processes, free_port  # noqa: E402
from pirl_server.demo.rest import Rest  # noqa: E402
from pirl_server.demo.robot import Robot  # noqa: E402
from pirl_server.demo.terminal import Bar  # noqa: E402
from pirl_server.paths import MODELS  # noqa: E402
from pirl_server.registry.mcnemar import mcnemar  # noqa: E402
from pirl_server.registry.versions import Registry  # noqa: E402
from pirl_server.registry.wilson import wilson_interval  # noqa: E402

SEEDS_PER_ROBOT, SEEDS_PER_RUN = 2000, 10_000
REPORTED = 3
"""number of the list of initial states that the table is about; no round and no tuning uses it"""


@dataclass(frozen=True)
class Run:
    """One seed."""

    task: str
    method: str
    seed: int
    robots: int
    rounds: int
    episodes: int
    states: int
    gate_states: int
    config: dict[str, Any]

    @property
    def spec(self) -> dict[str, Any]:
        """The loop job."""
        return {
            "kind": "loop",
            "task": self.task,
            "seed": self.seed,
            "rounds": self.rounds,
            "episodes_per_round": self.episodes,
            "explore_share": 1.0,
            "config": {"method": self.method} | self.config,
            "evaluation": {"episodes": self.gate_states},
            "canary": {"episodes": 10},
            "watch_episodes": 20,
        }


def carry_out(run: Run, folder: Path) -> dict[str, Any]:
    """Return the seed's numbers, made now or found below `folder`."""
    if not (folder / "result.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "result.json", _made(run, folder))
    return dict(read_json(folder / "result.json"))


def _made(run: Run, folder: Path) -> dict[str, Any]:
    base, root = start(run.task, folder.parent), folder / "server"
    grpc, rest_port = free_port(), free_port()
    environment = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    began = time.monotonic()
    with Processes(folder / "logs", environment) as server:
        command = [sys.executable, "-m", "pirl_contract.commands.cli", "serve", str(base), "--root", str(root)]
        command += ["--rest-port", str(rest_port), "--grpc-port", str(grpc), "--stop-port", str(free_port())]
        server.start("server", command)
        rest = Rest(rest_port)
        rest.wait_until_ready(server.check)
        loop = _with_robots(run, folder, grpc, rest)
        loop_s = time.monotonic() - began
        versions = [loop["rounds"][0]["base"]]
        versions += [each["candidate"] for each in loop["rounds"] if each["outcome"] == "promoted"]
        outcomes = [_outcomes(run, rest, root, version) for version in versions]
    return {
        "seed": run.seed,
        "robots": run.robots,
        "versions": [_compared(outcomes[0], found) | {"version": name} for name, found in zip(versions, outcomes)],
        "rounds": loop["rounds"],
        "robot_minutes": loop["robot_minutes"],
        "loop_s": loop_s,
        "wall_s": time.monotonic() - began,
    }


def _with_robots(run: Run, folder: Path, grpc: int, rest: Rest) -> dict[str, Any]:
    """Run the loop job while the robots run episodes; return its result."""
    fleets = []
    try:
        for number in range(run.robots):
            fleets.append(_robot(run, folder, number, grpc))
        return rest.run_job(run.spec, Bar(f"seed {run.seed}"))[0]
    finally:
        for fleet in fleets:
            fleet.__exit__(None, None, None)


def _robot(run: Run, folder: Path, number: int, grpc: int) -> Processes:
    domain = str(1 + (os.getpid() + number) % 100)
    processes = Processes(
        folder / f"robot-{number}", {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": domain}
    )
    robot = Robot.find(processes, run.task, f"127.0.0.1:{grpc}", step_on_command=True, robot_id=f"arm-{number}")
    robot.start()
    first = 100_000 + run.seed * SEEDS_PER_RUN + number * SEEDS_PER_ROBOT
    robot.begin("episodes", 1_000_000, first, folder / f"robot-{number}", record=False)
    return processes


def _outcomes(run: Run, rest: Rest, root: Path, version: str) -> list[bool]:
    spec = {"kind": "evaluate", "task": run.task, "version": version, "seed": REPORTED, "episodes": run.states}
    result, _ = rest.run_job(spec, Bar("evaluate"))
    found = [each for each in Registry(root / MODELS).evaluations.of(version) if each.list_hash == result["list_hash"]]
    outcomes = found[-1].outcomes
    assert outcomes is not None
    return [bool(each) for each in outcomes]


def _compared(before: list[bool], after: list[bool]) -> dict[str, Any]:
    paired, n = mcnemar(before, after), len(after)
    return {
        "success": sum(after) / n,
        "interval": list(wilson_interval(sum(after), n)),
        "n": n,
        "gained": paired.gained,
        "lost": paired.lost,
        "p": paired.p,
    }


def line(row: dict[str, Any]) -> str:
    """What a person reads of a seed."""
    rates = " -> ".join(f"{each['success']:.3f}" for each in row["versions"])
    rounds = ", ".join(each["outcome"] for each in row["rounds"])
    return (
        f"seed {row['seed']}, {row['robots']} robots: {rates} (p {row['versions'][-1]['p']:.2g}), "
        f"{row['robot_minutes']:.0f} robot minutes, {row['loop_s'] / 60:.0f} min; rounds: {rounds}"
    )


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
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="fields of EpisodesConfig")
    parser.add_argument("--out", type=Path, default=Path("runs/robot-loop"))
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.rounds, options.episodes = options.seeds[:1], 1, 12
        options.states, options.gate_states = 8, 50
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) if options.quick else options.out
        rows = []
        for seed in options.seeds:
            run = Run(
                options.task, options.method, seed, options.robots, options.rounds, options.episodes, options.states,
                options.gate_states, settings(options.set),
            )  # fmt: skip
            rows.append(carry_out(run, out.resolve() / f"{run.task}-{run.method}-{run.robots}-{seed}"))
    print(json.dumps(rows) if options.json else "\n".join(map(line, rows)))


if __name__ == "__main__":
    main()
