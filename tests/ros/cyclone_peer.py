"""An independent DDS implementation in the arm's place: feeds joint states, counts commands. Run by its own Python.

    python cyclone_peer.py NAMESPACE JOINT,JOINT,... SECONDS    until it has seen a command, which it prints as JSON

No ROS here: Eclipse Cyclone DDS, with types written down by hand as ROS 2 names them and lays them out on the wire.
Their annotations must be evaluated, so nothing is imported from __future__.
"""

import json
import os
import sys
import time
from dataclasses import dataclass

from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import float64, int32, sequence, uint32
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration


@dataclass
class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    sec: int32
    nanosec: uint32


@dataclass
class Duration(IdlStruct, typename="builtin_interfaces::msg::dds_::Duration_"):
    sec: int32
    nanosec: uint32


@dataclass
class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    stamp: Time
    frame_id: str


@dataclass
class JointState(IdlStruct, typename="sensor_msgs::msg::dds_::JointState_"):
    header: Header
    name: sequence[str]
    position: sequence[float64]
    velocity: sequence[float64]
    effort: sequence[float64]


@dataclass
class Point(IdlStruct, typename="trajectory_msgs::msg::dds_::JointTrajectoryPoint_"):
    positions: sequence[float64]
    velocities: sequence[float64]
    accelerations: sequence[float64]
    effort: sequence[float64]
    time_from_start: Duration


@dataclass
class JointTrajectory(IdlStruct, typename="trajectory_msgs::msg::dds_::JointTrajectory_"):
    header: Header
    joint_names: sequence[str]
    points: sequence[Point]


def main() -> None:
    namespace, names, limit_s = sys.argv[1], sys.argv[2].split(","), float(sys.argv[3])
    participant = DomainParticipant(int(os.environ["CYCLONE_DOMAIN"]))
    quality = Qos(Policy.Reliability.Reliable(duration(seconds=1)), Policy.History.KeepLast(5))
    states = DataWriter(participant, Topic(participant, f"rt{namespace}/joint_states", JointState), qos=quality)
    topic = Topic(participant, f"rt{namespace}/arm_controller/joint_trajectory", JointTrajectory)
    commands = DataReader(participant, topic, qos=quality)
    ready = [0.0, 0.3927, 0.0, -1.9635, 0.0, 2.3562, 0.7854, 0.04, 0.04]
    began = time.monotonic()
    while time.monotonic() - began < limit_s:
        now = time.time_ns()
        stamp = Time(now // 1_000_000_000, now % 1_000_000_000)
        states.write(JointState(Header(stamp, ""), names, ready, [0.0] * len(names), []))
        for command in commands.take(10):
            print(json.dumps({"names": list(command.joint_names), "positions": list(command.points[0].positions)}))
            return
        time.sleep(0.02)
    sys.exit(f"no command within {limit_s:.0f} s")


main()
