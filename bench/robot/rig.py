"""An arm with a camera that tracks perfectly, as topics; the robot side and a policy server as processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import yaml
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from pirl_ros.adapters import qos
from pirl_ros.adapters.interfaces import ActionChunk, ExecuteInstruction, SafetyState, StepOutcome

ROOT = Path(__file__).parents[2]
IMAGES_PROFILE = ROOT / "launch/params/fastdds_images.xml"
"""images in one piece, as docs/how-to/qos-and-cameras.md advises"""
READY = [0.0, 0.3927, 0.0, -1.9635, 0.0, 2.3562, 0.7854]
RATE_HZ, JOINTS_HZ, IMAGES_HZ = 50.0, 100.0, 30.0
ACCELERATION, JERK = 10.0, 500.0


def write_profile(path: Path, kind: str) -> Path:
    """Write the benchmark's robot: the Panda with limits that bind, commanded at 50 Hz, one 640x480 camera.

    `kind` of command: forward_position or joint_trajectory.
    """
    profile = yaml.safe_load((ROOT / "launch/params/panda_sim.yaml").read_text())
    profile |= {"robot": "bench", "rate_hz": RATE_HZ, "tick": "timer", "poses": [], "tcp_step": 0.02}
    profile["command"] = {"kind": kind, "topic": "commands"}
    profile["cameras"] = [{"name": "base", "topic": "image", "height": 480, "width": 640}]
    for joint in profile["arm"]["joints"]:
        joint |= {"acceleration": ACCELERATION, "jerk": JERK}
    profile["safety"] |= {
        "speed_scale": 1.0, "max_jump": 0.3, "watchdog_s": 0.1, "link_loss_s": 0.3, "slop": 0.04, "max_chunk_age": 1.0,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(profile))
    return path


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def arrival_s(info: dict[str, Any]) -> float:
    """When the middleware had a message, monotonic: what it then waits for this process is not the robot's."""
    return time.monotonic() - (time.time_ns() - info["received_timestamp"]) / 1e9


class Rig:
    """Everything of one robot; commands, chunks and outcomes are kept with their monotonic time of arrival.

    Several may be there in one process, each with a `name` of its own: while one is not spun its arm and its camera
    publish nothing. `tree`: the checkout whose robot side is started. `kind`: as for `write_profile`; a trajectory is
    kept as a command with its first point.
    """

    def __init__(
        self,
        folder: Path,
        images: bool,
        whole: bool = True,
        name: str = "rig",
        tree: Path = ROOT,
        kind: str = "forward_position",
    ) -> None:
        os.environ["ROS_DOMAIN_ID"] = str(os.getpid() % 100 + 1)
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        if whole:
            os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(
                IMAGES_PROFILE
            )
        if not rclpy.ok():
            rclpy.init()
        self.profile, self.port = write_profile(folder / f"{name}.yaml", kind), free_port()
        self.name, self._tree, self._kind = name, tree, kind
        self.node, self.executor = Node("rig", namespace=name), SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.commands: list[tuple[float, list[float]]] = []
        self.chunks: dict[str, tuple[float, float]] = {}
        self.pictures: list[float] = []
        self.outcomes: list[tuple[float, str, int]] = []
        self.states: list[tuple[float, Any]] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._position = list(READY)
        self._way: list[tuple[float, list[float]]] = []
        """of the trajectory under way: when each of its points is due, and where it is"""
        self._names = [joint["name"] for joint in yaml.safe_load(self.profile.read_text())["arm"]["joints"]]
        self._make_topics(images)

    def _make_topics(self, images: bool) -> None:
        node = self.node
        self._joints = node.create_publisher(JointState, "joint_states", qos.STATE)
        self._images = node.create_publisher(Image, "image", qos.IMAGE)
        pixels = np.random.default_rng(0).integers(0, 255, 480 * 640 * 3, np.uint8).tobytes()
        self._frame = Image(height=480, width=640, step=640 * 3, encoding="rgb8", data=pixels)
        if self._kind == "forward_position":
            node.create_subscription(Float64MultiArray, "commands", self._on_command, qos.OUTCOME)
        else:
            node.create_subscription(JointTrajectory, "commands", self._on_trajectory, qos.OUTCOME)
        node.create_subscription(ActionChunk, "action_chunks", self._on_chunk, qos.CHUNK)
        node.create_subscription(StepOutcome, "step_outcomes", self._on_outcome, qos.OUTCOME)
        node.create_subscription(SafetyState, "safety_state", self._on_state, qos.LATCHED)
        node.create_timer(1 / JOINTS_HZ, self._publish_joints)
        node.create_timer(1 / (IMAGES_HZ if images else 10.0), self._publish_image)
        self.goals = ActionClient(node, ExecuteInstruction, "execute_instruction")

    def _on_command(self, message: Any, info: dict[str, Any]) -> None:
        self._position = list(message.data)
        self.commands.append((arrival_s(info), self._position))

    def _on_trajectory(self, message: Any, info: dict[str, Any]) -> None:
        came_s = arrival_s(info)
        points = [(p.time_from_start.sec + p.time_from_start.nanosec / 1e9, list(p.positions)) for p in message.points]
        self._way = [(came_s, self._on_the_way(came_s)), *((came_s + due_s, joints) for due_s, joints in points)]
        self.commands.append((came_s, points[0][1]))

    def _on_the_way(self, now_s: float) -> list[float]:
        """Joints now, in a straight line between two points, as a trajectory controller has them."""
        if not self._way:
            return self._position
        times, joints = [due_s for due_s, _ in self._way], np.array([joints for _, joints in self._way])
        return [float(np.interp(now_s, times, joints[:, joint])) for joint in range(joints.shape[1])]

    def _on_chunk(self, message: Any, info: dict[str, Any]) -> None:
        stamp = message.header.stamp
        self.chunks[message.chunk_id] = (stamp.sec + stamp.nanosec / 1e9, arrival_s(info))

    def _on_outcome(self, message: Any, info: dict[str, Any]) -> None:
        self.outcomes.append((arrival_s(info), message.chunk_id, message.index))

    def _on_state(self, message: Any) -> None:
        self.states.append((time.monotonic(), message))

    def _publish_joints(self) -> None:
        self._position, fingers = self._on_the_way(time.monotonic()), ["panda_finger_joint1", "panda_finger_joint2"]
        message = JointState(name=self._names + fingers, position=[*self._position, 0.04, 0.04], velocity=[0.0] * 9)
        self._stamp(message)
        self._joints.publish(message)

    def _publish_image(self) -> None:
        self.pictures.append(self._stamp(self._frame))
        self._images.publish(self._frame)

    def _stamp(self, message: Any) -> float:
        stamp_ns = time.monotonic_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        return stamp_ns / 1e9

    @property
    def moves(self) -> bool:
        """Whether the newest command differs from the one before."""
        last = [joints for _, joints in self.commands[-2:]]
        return len(last) == 2 and float(np.abs(np.subtract(*last)).max()) > 1e-6

    def start_server(self, actions: int) -> None:
        """Start the policy server and wait until it answers."""
        command = [sys.executable, str(Path(__file__).with_name("policy_server.py"))]
        command += [str(self.profile), str(self.port), str(actions)]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.processes["server"] = server
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"

    def kill_server(self) -> float:
        """SIGKILL the server; returns when."""
        self.processes["server"].send_signal(signal.SIGKILL)
        self.processes["server"].wait()
        return time.monotonic()

    def start_robot(self, composed: bool) -> None:
        """Start the robot side, in one process or three, and wait for its action."""
        names = ["robot_node"] if composed else ["policy_node", "arm_node", "episode_node"]
        for name in names:
            given = {"profile": self.profile, "server_address": f"127.0.0.1:{self.port}", "timeout_s": 0.5}
            words = [word for key, value in given.items() for word in ("-p", f"{key}:={value}")]
            words += ["-r", f"__ns:=/{self.name}", "--log-level", "error"]
            script = self._tree / "pirl_ros/scripts" / name
            sources = f"{self._tree}/msg:{self._tree}/pirl_ros:{os.environ['PYTHONPATH']}"
            self.processes[name] = subprocess.Popen(
                [sys.executable, str(script), "--ros-args", *words], env=os.environ | {"PYTHONPATH": sources}
            )
        self.until(self.goals.server_is_ready, "the action server")
        self.until(lambda: bool(self.states), "the arm's state")

    def start_goal(self, seconds: float) -> Any:
        """Start an instruction; returns the accepted goal's handle."""
        for _ in range(300):
            goal = ExecuteInstruction.Goal(instruction="draw circles", max_duration=float(seconds))
            future = self.goals.send_goal_async(goal)
            self.until(future.done, "an answer to the goal")
            if future.result().accepted:
                return future.result()
            self.spin(0.1)
        raise TimeoutError("the goal is rejected again and again")

    def spin(self, seconds: float) -> None:
        """Let everything go on."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def until(self, condition: Callable[[], bool], what: str, patience_s: float = 30.0) -> None:
        """Let everything go on until the condition holds. TimeoutError names what did not come."""
        end = time.monotonic() + patience_s
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"{what} did not come within {patience_s:g} s")
            self.executor.spin_once(timeout_sec=0.02)

    def forget(self) -> None:
        """Measure from here on."""
        self.commands.clear(), self.outcomes.clear(), self.chunks.clear()

    def latencies_ms(self) -> tuple[np.ndarray, np.ndarray]:
        """From the stamp of a chunk's image to when the chunk came, and to when the first command made of it did."""
        times, pictures = np.array([when for when, _ in self.commands]), np.array(self.pictures)
        chunks, commands = [], []
        for chunk_id, (oldest, arrived) in self.chunks.items():
            image, first = np.searchsorted(pictures, oldest - 1e-6), self._first_command(chunk_id, arrived, times)
            if image < len(pictures) and first is not None:
                stamp = pictures[image]  # the joint states with it are older
                chunks.append(1e3 * (arrived - stamp))
                commands.append(1e3 * (times[first] - stamp))
        return np.array(chunks), np.array(commands)

    def _first_command(self, chunk_id: str, arrived: float, times: np.ndarray) -> int | None:
        """Which command was the first that was made of a chunk; None: it has not come."""
        if self._kind == "joint_trajectory":  # one for each chunk
            first = int(np.searchsorted(times, arrived))
            return first if first < len(times) else None
        # An outcome comes with the command after its action.
        reported = next((when for when, own, _ in self.outcomes if own == chunk_id), None)
        first = -1 if reported is None else int(np.searchsorted(times, reported - 0.5 / RATE_HZ)) - 1
        return first if first >= 0 else None

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far of each process of the robot side."""
        tick = os.sysconf("SC_CLK_TCK")
        used = {}
        for name, process in self.processes.items():
            if name != "server":
                fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                used[name] = (int(fields[11]) + int(fields[12])) / tick
        return used

    def close(self) -> None:
        """End all processes."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait()
        self.executor.shutdown()
        self.node.destroy_node()
