"""The messages of a recording that a topic map names, as time series; images are left where they are.

Times are header stamps, or with `time: log` when a message was logged. A message without a stamp, or with stamp 0, has
the time of the joint state that was logged last before it: stamps may be of a simulated clock, log times are not.

Shape letters: N messages, K numbers of each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.rosbag2 import ReaderError

from pirl_server.interchange.bags.image_messages import COMPRESSED, RAW
from pirl_server.interchange.bags.messages import time_ns
from pirl_server.interchange.bags.topic_map import GripperTopic, TopicMap, find_topic

JOINTS, POSE, WRENCH = "sensor_msgs/msg/JointState", "geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/WrenchStamped"
TRAJECTORY, NUMBERS = "trajectory_msgs/msg/JointTrajectory", "std_msgs/msg/Float64MultiArray"
TEXT, FLAG = "std_msgs/msg/String", "std_msgs/msg/Bool"
EVENT, OUTCOME, CHUNK = "pirl_msgs/msg/EpisodeEvent", "pirl_msgs/msg/StepOutcome", "pirl_msgs/msg/ActionChunk"
NO_STAMP = -1
Clock = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]
"""log times and stamps, both [N], to times"""


class Logged(NamedTuple):
    """One message that is kept whole."""

    log_ns: int
    time_ns: int
    message: Any


@dataclass(frozen=True)
class Series:
    """One number over time, in order of time."""

    topic: str
    time_ns: NDArray[np.int64]
    """[N]"""
    value: NDArray[np.float64]
    """[N]; NaN where a message did not have it"""


@dataclass
class Streams:
    """What was recorded of one robot."""

    topics: dict[str, str] = field(default_factory=dict)
    """recorded topics with their types"""
    numbers: dict[str, Series] = field(default_factory=dict)
    """by name: JOINT.position, JOINT.velocity, POSE.qw, WRENCH.fx, and JOINT.target and gripper of commands"""
    images: dict[str, tuple[str, NDArray[np.int64]]] = field(default_factory=dict)
    """by camera: topic and time of each message, [N] in the order of the log"""
    texts: dict[str, list[Logged]] = field(default_factory=dict)
    """messages of instruction, success, source, episodes, outcomes and chunks, in the order of the log"""
    end_ns: int = 0
    """time of the last joint state"""


class _Rows:
    """Numbers of messages of one topic until all are read: log time, stamp and values by name."""

    def __init__(self) -> None:
        self.log: list[int] = []
        self.stamp: list[int] = []
        self.values: dict[str, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))

    def add(self, log_ns: int, stamp_ns: int, values: Mapping[str, float]) -> None:
        self.log.append(log_ns)
        self.stamp.append(stamp_ns)
        for name, value in values.items():
            rows, numbers = self.values[name]
            rows.append(len(self.log) - 1)
            numbers.append(value)


def messages(reader: AnyReader, connections: list[Connection], where: str) -> Iterator[tuple[Connection, int, bytes]]:
    """Yield the messages of these connections in the order of their log times. Raises ValueError that names the file.

    Nothing of an iteration that stopped may be used: it would look like a shorter recording.
    """
    try:
        yield from reader.messages(connections) if connections else ()
    except (AnyReaderError, ReaderError, OSError) as error:
        raise ValueError(f"{where} can't be read to its end: {error}") from None


def read_streams(reader: AnyReader, topics: TopicMap, where: str) -> Streams:
    """Read all but the images. Raises ValueError that names a topic that is missing, or what a message lacks."""
    found = Streams({connection.topic: connection.msgtype for connection in reader.connections})
    readers = dict(_readers(found.topics, topics))
    rows: dict[str, _Rows] = defaultdict(_Rows)
    kept: dict[str, list[tuple[int, int, Any]]] = defaultdict(list)
    for connection, log_ns, raw in messages(
        reader, [each for each in reader.connections if each.topic in readers], where
    ):
        message = _deserialized(reader, connection, raw, where)
        stamp_ns = NO_STAMP if topics.time == "log" else _stamp(message)
        read = readers[connection.topic]
        if isinstance(read, str):
            kept[read].append((log_ns, stamp_ns, None if read.startswith("camera ") else message))
            continue
        try:
            values = read(message)
        except ValueError as error:
            raise ValueError(f"{where}: {connection.topic} at {log_ns} ns: {error}") from None
        rows[connection.topic].add(log_ns, stamp_ns, values)
    states = {topic for wanted in topics.joint_states if (topic := find_topic(wanted, found.topics, topics.namespace))}
    clock = _clock([rows[topic] for topic in sorted(states) if topic in rows], topics.time == "log")
    _collect(found, rows, kept, clock, topics)
    return found


def _deserialized(reader: AnyReader, connection: Connection, raw: bytes, where: str) -> Any:
    try:
        return reader.deserialize(raw, connection.msgtype)
    except AnyReaderError as error:
        raise ValueError(
            f"{where}: a message of {connection.topic} is no {connection.msgtype} as it is defined here ({error}); a"
            " recording without definitions must be of the same version: record as MCAP, which holds them"
        ) from None


def _collect(
    found: Streams, rows: Mapping[str, _Rows], kept: Mapping[str, list[tuple[int, int, Any]]], clock: Clock,
    topics: TopicMap,
) -> None:  # fmt: skip
    parts: dict[str, list[Series]] = defaultdict(list)
    for topic, table in rows.items():
        times = clock(np.array(table.log, np.int64), np.array(table.stamp, np.int64))
        for name, (at, values) in table.values.items():
            parts[name].append(Series(topic, times[at], np.array(values)))
    found.numbers = {name: _merged(each) for name, each in parts.items()}
    for kind, logged in kept.items():
        log, stamp = (np.array([row[column] for row in logged], np.int64) for column in (0, 1))
        times = clock(log, stamp)
        if kind.startswith("camera "):
            camera = kind.removeprefix("camera ")
            named = find_topic(topics.cameras[camera], found.topics, topics.namespace)
            found.images[camera] = (named or "", times)
        else:
            found.texts[kind] = [
                Logged(each_log, at, message) for (each_log, _, message), at in zip(logged, times.tolist())
            ]
    ends = [series.time_ns[-1] for name, series in found.numbers.items() if not name.endswith((".target", "gripper"))]
    found.end_ns = int(max(ends, default=0))


def _readers(
    recorded: Mapping[str, str], topics: TopicMap
) -> Iterator[tuple[str, Callable[[Any], Mapping[str, float]] | str]]:
    """Topic -> what makes numbers of its messages, or the name under which they are kept whole."""

    def known(wanted: str, *kinds: str) -> str:
        topic = find_topic(wanted, recorded, topics.namespace)
        if topic is None:
            raise ValueError(f"topic '{wanted}' was not recorded: there are {', '.join(sorted(recorded))}")
        if recorded[topic] not in kinds:
            raise ValueError(f"topic '{topic}' is of {recorded[topic]}: {' or '.join(kinds)} is read")
        return topic

    for wanted in topics.joint_states:
        yield known(wanted, JOINTS), _joint_numbers
    for name, wanted in topics.poses.items():
        yield known(wanted, POSE), partial(_pose_numbers, name)
    for name, wanted in topics.wrenches.items():
        yield known(wanted, WRENCH), partial(_wrench_numbers, name)
    for name, wanted in topics.cameras.items():
        yield known(wanted, RAW, COMPRESSED), f"camera {name}"
    yield from _command_readers(recorded, topics, known)
    optional = {"instruction": (TEXT,), "success": (FLAG,), "source": (TEXT,), "episodes": (EVENT, FLAG)}
    optional |= {"outcomes": (OUTCOME,), "chunks": (CHUNK,)}
    for kind, kinds in optional.items():
        wanted = getattr(topics, kind)
        if wanted and find_topic(wanted, recorded, topics.namespace) is not None:
            yield known(wanted, *kinds), kind


def _command_readers(
    recorded: Mapping[str, str], topics: TopicMap, known: Callable[..., str]
) -> Iterator[tuple[str, Callable[[Any], Mapping[str, float]]]]:
    """Commands are read where they were recorded: a recording with step outcomes does not need them."""
    for command in topics.commands:
        if find_topic(command.topic, recorded, topics.namespace) is not None:
            yield known(command.topic, TRAJECTORY, JOINTS, NUMBERS), partial(_joint_targets, command.joints)
    gripper = topics.gripper
    if gripper is not None and find_topic(gripper.topic, recorded, topics.namespace) is not None:
        yield known(gripper.topic, TRAJECTORY, JOINTS, NUMBERS), partial(_gripper_level, gripper)


def _joint_targets(joints: tuple[str, ...], message: Any) -> Mapping[str, float]:
    return {f"{name}.target": value for name, value in _targets(message, joints)}


def _gripper_level(gripper: GripperTopic, message: Any) -> Mapping[str, float]:
    found = dict(_targets(message, (gripper.joint,)))
    if gripper.joint not in found:
        raise ValueError(f"it commands {', '.join(found) or 'nothing'}: '{gripper.joint}' is the gripper's joint")
    return {"gripper": 2.0 * (found[gripper.joint] - gripper.closed) / (gripper.open - gripper.closed) - 1.0}


def _targets(message: Any, joints: tuple[str, ...]) -> list[tuple[str, float]]:
    """Joint names and commanded positions; of a trajectory its first point, which is what comes next."""
    if message.__msgtype__ == NUMBERS:
        names, values = list(joints), np.asarray(message.data)
    elif message.__msgtype__ == TRAJECTORY:
        if not message.points:
            return []
        names, values = list(message.joint_names), np.asarray(message.points[0].positions)
    else:
        names, values = list(message.name), np.asarray(message.position)
    if len(names) != len(values):
        raise ValueError(f"it has {len(values)} positions for {len(names)} joints ({', '.join(names) or 'none named'})")
    return list(zip(names, values.tolist()))


def _joint_numbers(message: Any) -> Mapping[str, float]:
    names, positions, velocities = list(message.name), message.position, message.velocity
    if len(positions) != len(names) or len(velocities) not in (0, len(names)):
        raise ValueError(f"it has {len(positions)} positions and {len(velocities)} velocities for {len(names)} joints")
    numbers = {f"{name}.position": float(value) for name, value in zip(names, positions)}
    return numbers | {f"{name}.velocity": float(value) for name, value in zip(names, velocities)}


def _pose_numbers(name: str, message: Any) -> Mapping[str, float]:
    place, turn = message.pose.position, message.pose.orientation
    values = {"x": place.x, "y": place.y, "z": place.z, "qw": turn.w, "qx": turn.x, "qy": turn.y, "qz": turn.z}
    return {f"{name}.{part}": float(value) for part, value in values.items()}


def _wrench_numbers(name: str, message: Any) -> Mapping[str, float]:
    force, torque = message.wrench.force, message.wrench.torque
    values = {f"f{axis}": getattr(force, axis) for axis in "xyz"} | {
        f"t{axis}": getattr(torque, axis) for axis in "xyz"
    }
    return {f"{name}.{part}": float(value) for part, value in values.items()}


def _stamp(message: Any) -> int:
    """The header's stamp, else the message's own; `NO_STAMP` where there is none, or 0."""
    for holder in (getattr(message, "header", None), message):
        stamp = getattr(holder, "stamp", None)
        if found := 0 if stamp is None else stamp if isinstance(stamp, int) else time_ns(stamp):
            return found
    return NO_STAMP


def _clock(states: list[_Rows], by_log: bool) -> Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]:
    """What makes times of log times and stamps, both [N]."""
    log = np.array([each for rows in states for each in rows.log], np.int64)
    stamp = np.array([each for rows in states for each in rows.stamp], np.int64)
    stamped = stamp != NO_STAMP
    order = np.argsort(log[stamped], kind="stable")
    log, stamp = log[stamped][order], stamp[stamped][order]

    def times(at: NDArray[np.int64], own: NDArray[np.int64]) -> NDArray[np.int64]:
        if by_log or not len(log):
            return at
        last = np.clip(np.searchsorted(log, at, side="right") - 1, 0, None)
        return np.where(own != NO_STAMP, own, stamp[last])

    return times


def _merged(parts: list[Series]) -> Series:
    times = np.concatenate([part.time_ns for part in parts])
    order = np.argsort(times, kind="stable")
    return Series(parts[0].topic, times[order], np.concatenate([part.value for part in parts])[order])
