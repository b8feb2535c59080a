"""The demo's robot: the installed ROS 2 nodes as processes, and sessions of run_episodes."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pirl_server.demo.processes import Processes
from pirl_server.demo.terminal import Bar

NODES = ("sim_arm_node", "arm_node", "policy_node")


@dataclass(frozen=True)
class Robot:
    """Where the nodes are, and their parameters. `ROS_DOMAIN_ID` and the like come with the processes' environment."""

    processes: Processes
    executables: Path
    """lib/pirl_ros of a colcon install"""
    profile: Path
    task: str
    server_address: str
    step_on_command: bool = False
    """faster than real time"""
    robot_id: str = "robot"
    """as the server knows it"""
    helped: float = 0.0
    """share of the episodes in which a scripted operator takes over from a policy that fails"""
    operator_seed: int = 0
    """of the choice of these episodes"""
    operator_sees: bool = False
    """it waits for an image before each command: for policies that learn from images"""

    @classmethod
    def find(cls, processes: Processes, task: str, server_address: str, **options: Any) -> Robot:
        """Locate the installed package. Raises ValueError that says what to build or source."""
        for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(":"):
            package = Path(prefix)
            profile = package / "share/pirl_ros/launch/params/panda_sim.yaml"
            if (package / "lib/pirl_ros/policy_node").exists() and profile.exists():
                return cls(processes, package / "lib/pirl_ros", profile, task, server_address, **options)
        raise ValueError("the ROS package pirl_ros is not in AMENT_PREFIX_PATH: make setup, source docker/ros_env.sh")

    def start(self) -> None:
        """Start the nodes; they configure and activate themselves."""
        for node in NODES:
            parameters: dict[str, object] = {"profile": self.profile}
            if node == "sim_arm_node":
                parameters |= {"task": self.task, "step_on_command": str(self.step_on_command).lower()}
            else:
                # The simulated arm gives the time that the others take.
                parameters |= {"use_sim_time": "true"}
            if node == "arm_node":
                parameters |= {"step_on_command": str(self.step_on_command).lower()}
            if node == "policy_node":
                parameters |= {"server_address": self.server_address, "robot_id": f"'{self.robot_id}'"}
                parameters |= {"timeout_s": 30.0}  # the server may share a busy machine with us
            self._start(node, node, parameters)
        if self.helped:
            parameters = {"profile": self.profile, "task": self.task, "use_sim_time": "true"}
            parameters |= {"share": self.helped, "seed": self.operator_seed}
            parameters |= {"sees": str(self.operator_sees).lower()}
            self._start("scripted_operator", "scripted_operator", parameters)

    def _start(self, name: str, executable: str, parameters: dict[str, object]) -> None:
        self.processes.start(name, [str(self.executables / executable), *_arguments(parameters)])

    @staticmethod
    def pause_file(folder: Path) -> Path:
        """While it exists no episode begins that is run for this folder."""
        return folder / "pause"

    def begin(self, name: str, episodes: int, first_seed: int, folder: Path, record: bool = True) -> Path:
        """Start to run episodes; return where their summary will be."""
        summary = folder / f"{name}.json"
        parameters: dict[str, object] = {
            "episodes": episodes,
            "first_seed": first_seed,
            "summary_path": summary,
            "patience_s": 600.0,
            "time_limit_s": 300.0,  # steps end an episode; this is for a node that is lost, on a machine under any load
            "pause_path": self.pause_file(folder),
        }
        if record:
            seeds = ",".join(str(first_seed + index) for index in range(episodes))
            parameters |= {"record_dir": folder / name, "record_seeds": f"[{seeds}]"}
        self._start(name, "run_episodes", parameters)
        return summary

    def sitting(
        self, name: str, episodes: int, first_seed: int, folder: Path, bar: Bar, record: bool = True
    ) -> dict[str, Any]:
        """Run episodes and return the summary that run_episodes wrote. Raises RuntimeError when it gave up."""
        summary = self.begin(name, episodes, first_seed, folder, record)
        while (status := self.processes.finished(name)) is None:
            self.processes.check()
            bar.show(*_progress(self.processes.log(name), episodes))
            time.sleep(0.5)
        if status != 0:
            raise RuntimeError(f"run_episodes failed, status {status}: {_last_line(self.processes.log(name))}")
        bar.show(episodes, episodes, _progress(self.processes.log(name), episodes)[2])
        result: dict[str, Any] = json.loads(summary.read_text())
        return result


def _arguments(parameters: dict[str, object]) -> list[str]:
    return ["--ros-args", *(word for key, value in parameters.items() for word in ("-p", f"{key}:={value}"))]


def _progress(log: Path, episodes: int) -> tuple[int, int, str]:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("episode ")]
    successes = sum(": success" in line for line in lines)
    return min(len(lines), episodes), episodes, f"episodes on the robot, {successes} successes"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "(its log is empty)"
