"""ROS 2 messages of an episode's values. Every field is given: a message with one that is missing can't be made.

Shape letters: H horizon, D action, S state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_server.interchange.bags.message_types import types

SECOND_NS = 1_000_000_000
START, END = 1, 2
"""of pirl_msgs/EpisodeEvent"""
OUTCOMES = {True: "success", False: "failure", None: "unlabeled"}


def serialised(kind: str, message: object) -> bytes:
    """Return a message as CDR."""
    return bytes(types().serialize_cdr(message, kind))


def make(kind: str, **fields: Any) -> Any:
    """Return a message. Raises TypeError for a field that is missing or unknown."""
    return types().types[kind](**fields)


def time(time_ns: int) -> Any:
    """Return a builtin_interfaces/Time."""
    return make("builtin_interfaces/msg/Time", sec=time_ns // SECOND_NS, nanosec=time_ns % SECOND_NS)


def header(time_ns: int, frame: str = "") -> Any:
    """Return a std_msgs/Header."""
    return make("std_msgs/msg/Header", stamp=time(time_ns), frame_id=frame)


def image(pixels: NDArray[np.uint8], time_ns: int, frame: str) -> Any:
    """Return a sensor_msgs/Image of RGB [height, width, 3]."""
    height, width, _ = pixels.shape
    return make(
        "sensor_msgs/msg/Image",
        header=header(time_ns, frame), height=height, width=width, encoding="rgb8", is_bigendian=0, step=3 * width,
        data=np.ascontiguousarray(pixels).reshape(-1),
    )  # fmt: skip


def joint_state(names: Sequence[str], positions: NDArray[Any], velocities: NDArray[Any], time_ns: int) -> Any:
    """Return a sensor_msgs/JointState; positions and velocities are both [J] of J names, the second may be empty."""
    return make(
        "sensor_msgs/msg/JointState",
        header=header(time_ns), name=list(names), position=np.asarray(positions, np.float64),
        velocity=np.asarray(velocities, np.float64), effort=np.zeros(0),
    )  # fmt: skip


def action_chunk(chunk: NDArray[np.float32], time_ns: int, number: int, **said: Any) -> Any:
    """Return a pirl_msgs/ActionChunk of actions [H, D]; its id is that of call `number`."""
    horizon, width = chunk.shape
    return make(
        "pirl_msgs/msg/ActionChunk",
        header=header(time_ns), sequence=number + 1, chunk_id=chunk_id(number), horizon=horizon, action_dim=width,
        actions=np.ascontiguousarray(chunk).reshape(-1), **said,
    )  # fmt: skip


def chunk_id(call: int) -> str:
    """Return the id of a call's chunk; empty for -1, no chunk."""
    return f"call-{call}" if call >= 0 else ""


def episode_event(event: int, time_ns: int, episode_id: str, instruction: str, outcome: str, reason: str) -> Any:
    """Return a pirl_msgs/EpisodeEvent."""
    return make(
        "pirl_msgs/msg/EpisodeEvent",
        header=header(time_ns), stamp=time(time_ns), event=event, episode_id=episode_id, outcome=outcome, reason=reason,
        instruction=instruction, control_source="", seed=-1, speed_scale=1.0,
    )  # fmt: skip


def time_ns(stamp: Any) -> int:
    """Return a builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec) * SECOND_NS + int(stamp.nanosec)
