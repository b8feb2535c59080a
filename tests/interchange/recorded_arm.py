"""Recordings of a small arm, as rosbag2 would have made them, with what was on the topics beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys.store import Typestore

from pirl_contract import Camera, Contract, Field
from pirl_server.interchange.bags import messages
from pirl_server.interchange.bags.message_types import types

JOINTS, FINGER = ("shoulder", "elbow"), "finger"
CONTRACT = Contract(
    robot="small_arm",
    cameras=(Camera("base", 6, 8),),
    state=tuple(Field(f"{name}.position", "rad") for name in (*JOINTS, FINGER)),
    action=(*(Field(f"{name}.target", "rad", -3.0, 3.0) for name in JOINTS), Field("gripper", "1", -1.0, 1.0)),
    rate_hz=20.0,
)
MAP = """
joint_states: [joint_states]
cameras: {base: camera/base/image_raw}
max_age: 0.2
commands:
  - {topic: arm/commands, joints: [shoulder, elbow]}
gripper: {topic: gripper/joint_trajectory, joint: finger, closed: 0.0, open: 0.04}
"""
MS = 1_000_000
BEGIN = 5_000 * MS
SKEW = 7_000 * MS
"""of the clock of log times, against that of stamps"""
Sent = tuple[str, str, int, Any]
"""topic, type, log time and message"""


@dataclass
class Arm:
    """What is on the topics, by the time of the stamps in ms."""

    seconds: float = 2.0
    sent: list[Sent] = field(default_factory=list)

    def position(self, name: str, ms: int) -> float:
        return float(np.sin(0.001 * ms + (*JOINTS, FINGER).index(name)))

    def target(self, name: str, ms: int) -> float:
        return float(np.cos(0.002 * ms + JOINTS.index(name)))

    def level(self, ms: int) -> float:
        return 0.04 if ms % 1000 < 500 else 0.0

    def pixels(self, ms: int) -> np.ndarray:
        return np.random.default_rng(ms).integers(256, size=(6, 8, 3), dtype=np.uint8)

    def put(self, topic: str, kind: str, ms: int, message: Any, log_delay_ms: float = 1.0) -> None:
        self.sent.append((topic, kind, BEGIN + SKEW + int((ms + log_delay_ms) * MS), message))

    def text(self, topic: str, ms: int, data: str) -> None:
        self.put(topic, "std_msgs/msg/String", ms, messages.make("std_msgs/msg/String", data=data))

    def flag(self, topic: str, ms: int, data: bool) -> None:
        self.put(topic, "std_msgs/msg/Bool", ms, messages.make("std_msgs/msg/Bool", data=data))

    def event(self, event: int, ms: int, episode_id: str, instruction: str = "", outcome: str = "") -> None:
        said = messages.episode_event(event, BEGIN + ms * MS, episode_id, instruction, outcome, "operator")
        self.put("/episode_events", "pirl_msgs/msg/EpisodeEvent", ms, said)


def recorded(
    seconds: float = 2.0, spoken: str = "push", compressed: bool = False, commands: str = "Float64MultiArray"
) -> Arm:
    """Joint states at 100 Hz, the finger's in messages of their own at 25 Hz, images at 30, commands at 50 Hz.

    `commands` is the message of the arm's: those with names have them in another order.
    """
    arm = Arm(seconds)
    whole = int(1000 * seconds)
    for ms in range(0, whole, 10):
        add_joints(arm, ms, JOINTS)
    for ms in range(5, whole, 40):
        add_joints(arm, ms, (FINGER,))
    for ms in range(2, whole, 33):
        add_image(arm, ms, compressed)
    for ms in range(3, whole, 20):
        add_command(arm, ms, commands)
        arm.put(
            "/gripper/joint_trajectory",
            "trajectory_msgs/msg/JointTrajectory",
            ms,
            trajectory([FINGER], [arm.level(ms)]),
        )
    if spoken:
        arm.text("/instruction", 0, spoken)
    return arm


def add_joints(arm: Arm, ms: int, names: Iterable[str]) -> None:
    positions = np.array([arm.position(name, ms) for name in names])
    message = messages.joint_state(list(names), positions, np.zeros(0), BEGIN + ms * MS)
    arm.put("/joint_states", "sensor_msgs/msg/JointState", ms, message)


def add_image(arm: Arm, ms: int, compressed: bool) -> None:
    stamp, pixels = BEGIN + ms * MS, arm.pixels(ms)
    if not compressed:
        arm.put("/camera/base/image_raw", "sensor_msgs/msg/Image", ms, messages.image(pixels, stamp, "base"), 20)
        return
    kind, data = "sensor_msgs/msg/CompressedImage", cv2.imencode(".png", pixels[..., ::-1])[1].reshape(-1)
    message = messages.make(kind, header=messages.header(stamp), format="rgb8; png compressed bgr8", data=data)
    arm.put("/camera/base/image_raw", kind, ms, message, 20)


def add_command(arm: Arm, ms: int, commands: str) -> None:
    """Without a stamp, or with stamp 0."""
    targets = {name: arm.target(name, ms) for name in JOINTS}
    backwards = list(targets)[::-1]
    if commands == "Float64MultiArray":
        layout = messages.make("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
        kind, data = "std_msgs/msg/Float64MultiArray", np.array(list(targets.values()))
        arm.put("/arm/commands", kind, ms, messages.make(kind, layout=layout, data=data))
    elif commands == "JointState":
        message = messages.joint_state(backwards, np.array([targets[name] for name in backwards]), np.zeros(0), 0)
        arm.put("/arm/commands", "sensor_msgs/msg/JointState", ms, message)
    else:
        message = trajectory(backwards, [targets[name] for name in backwards])
        arm.put("/arm/commands", "trajectory_msgs/msg/JointTrajectory", ms, message)


def trajectory(names: list[str], positions: list[float]) -> Any:
    """With stamp 0, as controllers take it for now. A second point says where it would go on to."""
    empty, points = np.zeros(0), []
    for number, offset in enumerate((0.0, 0.5), start=1):
        duration = messages.make("builtin_interfaces/msg/Duration", sec=0, nanosec=50 * number * MS)
        points.append(
            messages.make(
                "trajectory_msgs/msg/JointTrajectoryPoint", positions=np.array(positions) + offset, velocities=empty,
                accelerations=empty, effort=empty, time_from_start=duration,
            )
        )  # fmt: skip
    kind = "trajectory_msgs/msg/JointTrajectory"
    return messages.make(kind, header=messages.header(0), joint_names=names, points=points)


def save(
    arm: Arm,
    path: Path,
    mcap: bool = True,
    order: Callable[[Sent], Any] = lambda sent: sent[2],
    store: Typestore | None = None,
) -> Path:
    """Write what was sent as rosbag2 does, in the order of the log; `store` has definitions of another version."""
    store = store or types()
    plugin = StoragePlugin.MCAP if mcap else StoragePlugin.SQLITE3
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections = {}
        for topic, kind, log_ns, message in sorted(arm.sent, key=order):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], log_ns, store.serialize_cdr(message, kind))
    return path
