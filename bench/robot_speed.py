"""How fast the simulated robot runs its episodes over ROS: simulated seconds per wall second, and where the CPU goes.

    python bench/robot_speed.py [--quick] [--json] [--episodes 40]

Server, nodes and episodes are the real ones: rclpy between processes, gRPC, Zarr on disk. The robot steps by the clock
first (real time), then on command. `episodes` counts from one reset to the next, `motion` from an episode's start to
its end. Simulated time stands still while the policy infers.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
if importlib.util.find_spec("pirl_msgs") is None or "AMENT_PREFIX_PATH" not in os.environ:
    os.execvp("bash", ["bash", "-c", f'. {ROOT}/docker/ros_env.sh && exec python "$0" "$@"', *sys.argv])
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pirl_server.demo.processes import Processes, free_port  # noqa: E402
from pirl_server.demo.rest import Rest  # noqa: E402
from pirl_server.demo.robot import Robot  # noqa: E402
from pirl_server.demo.run import BASE  # noqa: E402
from pirl_server.demo.terminal import Bar  # noqa: E402

TASK = "PushCube-v1"
PROCESSES = ("sim_arm_node", "arm_node", "policy_node", "run_episodes", "pirl_contract.commands.cli")
CLOCK_HZ = os.sysconf("SC_CLK_TCK")


def cpu_s() -> dict[str, float]:
    """CPU seconds so far of each of our processes, by the command's last word."""
    found: dict[str, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            domain = f"ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']}\0" in (folder / "environ").read_text()
        except OSError:
            continue
        names = [Path(word).name for word in words[:3]]
        name = next((word for word in PROCESSES if word in names), "")
        if name and domain:
            found[name] = found.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / CLOCK_HZ
    return found


def measure(folder: Path, on_command: bool, episodes: int) -> dict[str, float]:
    """Run episodes on a robot that steps by the clock, or on command."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(os.getpid() % 100 + 1))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    grpc, rest = free_port(), free_port()
    with Processes(folder / "logs", {}) as processes:
        serve = [sys.executable, "-m", "pirl_contract.commands.cli", "serve", str(BASE), "--root", str(folder / "root")]
        serve += ["--rest-port", str(rest), "--grpc-port", str(grpc), "--stop-port", str(free_port()), "--explore"]
        processes.start("server", serve)
        Rest(rest).wait_until_ready(processes.check)
        robot = Robot.find(processes, TASK, f"127.0.0.1:{grpc}", step_on_command=on_command)
        robot.start()
        robot.sitting("warm_up", 2, 0, folder, Bar("warm up"), record=False)
        before = cpu_s()
        found = robot.sitting("measured", episodes, 10, folder, Bar("measured"), record=False)
        after = cpu_s()
    return figures(found["episodes"], found["wall_s"], {name: after[name] - before.get(name, 0.0) for name in after})


def figures(records: list[dict[str, Any]], wall_s: float, cpu: dict[str, float]) -> dict[str, float]:
    """Ratios of simulated to wall time, and CPU milliseconds a step."""
    steps = sum(record["steps"] for record in records)
    simulated_s = steps / 20.0
    result = {
        "episodes": float(len(records)),
        "steps": float(steps),
        "motion, times real time": simulated_s / sum(record["seconds"] for record in records),
        "episodes, times real time": simulated_s / wall_s,
        "wall s per episode": wall_s / len(records),
    }
    return result | {f"CPU ms a step, {name}": 1e3 * seconds / steps for name, seconds in cpu.items()}


def main() -> None:
    """Measure both and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--episodes", type=int, default=40)
    options = parser.parse_args()
    results = {}
    for name, on_command in (("by the clock", False), ("on command", True)):
        episodes = (4 if on_command else 2) if options.quick else options.episodes
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(Path(folder), on_command, episodes)
    if options.json:
        print(json.dumps(results, indent=1))
        return
    for name, found in results.items():
        print(name)
        for key, value in found.items():
            print(f"  {key}: {value:.2f}")


if __name__ == "__main__":
    main()
