"""Steps of the demo: serve, drive the robot, fine-tune over REST, evaluate, promote, drive the robot again."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pirl_server.demo.processes import Processes, free_port
from pirl_server.demo.report import Outcome, write_report
from pirl_server.demo.rest import Rest
from pirl_server.demo.robot import Robot
from pirl_server.demo.terminal import Bar, heading
from pirl_server.training.seeds import ROBOT

BASE = Path(__file__).parents[1] / "checkpoints" / "pushcube-base"
NOTE = """\
The policy is the pi0 architecture at its smallest preset without a camera ("tiny-state"): it acts on joints, tool and
object poses. The camera's images flow through ROS, over the wire and into the episodes, but this policy does not
look at them: learning from pixels does not fit the demo's time on two cores."""


@dataclass(frozen=True)
class DemoConfig:
    """One run of the demo."""

    seed: int
    out: Path
    task: str = "PushCube-v1"
    robot_episodes: int = 10
    evaluation_episodes: int = 128
    env_steps: int = 120_000


def main(arguments: Sequence[str]) -> int:
    """Parse and run; exit status 0 only when the success rate rose beyond both intervals."""
    parser = argparse.ArgumentParser(prog="pirl demo", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="folder for everything this run writes")
    parser.add_argument("--robot-episodes", type=int, default=DemoConfig.robot_episodes)
    parser.add_argument("--evaluation-episodes", type=int, default=DemoConfig.evaluation_episodes)
    parser.add_argument("--env-steps", type=int, default=DemoConfig.env_steps)
    options = parser.parse_args(arguments)
    options.out = options.out or Path("runs") / "demo" / f"{time.strftime('%Y%m%d-%H%M%S')}-seed{options.seed}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return run(DemoConfig(**vars(options)))
    except RuntimeError as error:
        print(f"\ndemo stopped: {error}\nlogs: {options.out / 'logs'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; all started processes were stopped", file=sys.stderr)
        return 130


def run(config: DemoConfig) -> int:
    """Start everything, do the main job once, write the report, print the table."""
    began = time.monotonic()
    print(NOTE)
    rest_port, grpc_port, stop_port = free_port(), free_port(), free_port()
    environment = {
        "ROS_DOMAIN_ID": str(random.SystemRandom().randint(1, 100)),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "OMP_NUM_THREADS": "1",
        "LP_NUM_THREADS": "1",
    }
    with Processes(config.out / "logs", environment) as processes:
        robot = Robot.find(processes, config.task, f"127.0.0.1:{grpc_port}")
        heading("starting the policy server and the simulated robot")
        robot.start()
        serve = [
            sys.executable,
            "-m",
            "pirl_contract.commands.cli",
            "serve",
            str(BASE),
            "--root",
            str(config.out / "server"),
        ]
        serve += ["--rest-port", str(rest_port), "--grpc-port", str(grpc_port), "--stop-port", str(stop_port)]
        serve += ["--explore", "--drain-seconds", "0"]
        processes.start("server", serve)
        rest = Rest(rest_port)
        rest.wait_until_ready(processes.check)
        print(f"REST http://127.0.0.1:{rest_port}/docs   gRPC 127.0.0.1:{grpc_port}   {config.out}")
        outcome, metrics = improve(config, rest, robot, began)
    write_report(config.out / "report", outcome, metrics)
    return conclude(config, outcome)


def improve(config: DemoConfig, rest: Rest, robot: Robot, began: float) -> tuple[Outcome, list[dict[str, float]]]:
    """The story itself."""
    heading(f"the robot runs {config.robot_episodes} episodes with the base policy (ROS 2, 20 Hz wall clock)")
    robot_before = sitting("robot_before", config, robot)
    heading("online RL: hybrid Flow-SDE + PPO in ManiSkill, as a REST job")
    started = time.monotonic()
    finetune = {
        "kind": "finetune_sim",
        "task": config.task,
        "base": "production",
        "seed": config.seed,
        "checkpoint_every": None,
        "config": {"env_steps": config.env_steps},
    }
    tuned, metrics = rest.run_job(finetune, Bar("fine-tune"))
    rl_wall_s = time.monotonic() - started
    heading(f"evaluating both versions on the same {config.evaluation_episodes} initial states (ManiSkill's own step)")
    before = evaluate(config, rest, "production", "base    ")
    after = evaluate(config, rest, tuned["version"], "after RL")
    heading("promotion: gate, then hot swap in the running server")
    promote(config, rest, tuned["version"], after["wilson_low"] > before["wilson_high"])
    heading("the robot runs again, without a restart")
    robot_after = sitting("robot_after", config, robot)
    acted = [row for row in metrics if row.get("approx_kl")]
    outcome = Outcome(
        task=config.task,
        seed=config.seed,
        before=before,
        after=after,
        robot_before=robot_before,
        robot_after=robot_after,
        env_steps=int(metrics[-1]["env_steps"]),
        rl_wall_s=rl_wall_s,
        total_wall_s=time.monotonic() - began,
        learner_share=metrics[-1]["learner_share"],
        first_log_ratio=acted[0]["first_log_ratio"],
    )
    return outcome, metrics


def sitting(name: str, config: DemoConfig, robot: Robot) -> dict[str, Any]:
    """Episodes on the robot: the same reset seeds before and after."""
    first = ROBOT.start + config.seed * 1000
    return robot.sitting(name, config.robot_episodes, first, config.out.resolve(), Bar("robot    "))


def evaluate(config: DemoConfig, rest: Rest, version: str, label: str) -> dict[str, Any]:
    """An evaluate job on the fixed list."""
    spec = {"kind": "evaluate", "task": config.task, "version": version, "episodes": config.evaluation_episodes}
    return rest.run_job(spec, Bar(label))[0]


def promote(config: DemoConfig, rest: Rest, version: str, improved: bool) -> None:
    """Promote through the gate; a candidate that did not improve stays where it is and the demo will say so.

    Raises RuntimeError when the server serves another version afterwards.
    """
    if not improved:
        print(f"{version} is not significantly better: not promoted")
        return
    rest.post("/v1/models/promote", {"version": version, "reason": f"demo, seed {config.seed}"})
    serving = rest.get("/v1/info")["policy_version"]
    if serving != version:
        raise RuntimeError(f"promoted {version}, but the server serves {serving}")
    print(f"the server now serves {serving}")


def conclude(config: DemoConfig, outcome: Outcome) -> int:
    """Print the table and where the rest is; the exit status says whether it worked."""
    report = config.out / "report"
    print(f"\n{outcome.table()}\n\nreport: {report} (curves.png, robot.gif, result.json)")
    print(f"episodes: {config.out / 'server' / 'episodes'} (open them with zarr)")
    if not outcome.improved:
        print("FAILED: the two intervals overlap: no significant improvement", file=sys.stderr)
        return 1
    return 0
