"""Joint states of one topic, put together by name: a message need not be the whole robot.

The arm's driver and the gripper's may share a topic, and so may the wheels of a mobile base. The anchors (the arm's
joints) give the time; the others are held from the newest message that has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_MOST_NAMES = 64
"""of a topic, that an error lists"""


@dataclass(frozen=True)
class JointParts:
    """Joints of several messages, with the fields of sensor_msgs/JointState that are read here."""

    name: tuple[str, ...]
    position: tuple[float, ...]
    """rad, or m"""
    velocity: tuple[float, ...]
    """1/s; empty where one of the messages has none"""


@dataclass(frozen=True)
class JointArrival:
    """A complete set of joints, and the oldest stamp and arrival of its anchors."""

    stamp_ns: int
    received_ns: int
    message: Any


@dataclass(frozen=True)
class _Joint:
    position: float
    velocity: float | None
    stamp_ns: int
    received_ns: int


class JointAssembler:
    """Collects the wanted joints of one topic; `max_age_s` is how long the others are held."""

    def __init__(self, anchors: Sequence[str], others: Sequence[str], max_age_s: float) -> None:
        self._anchors, self._others, self._max_age_ns = tuple(anchors), tuple(others), int(max_age_s * 1e9)
        self._wanted = frozenset((*anchors, *others))
        self._joints: dict[str, _Joint] = {}
        self._seen: dict[str, None] = {}

    def take(self, message: Any, stamp_ns: int, now_ns: int) -> JointArrival | None:
        """Take one JointState in; return the set that it completes, None for one without anchors or while some lack.

        A message that has every wanted joint is returned as it is.
        """
        names = message.name
        if self._wanted <= set(names) or len(message.position) != len(names):
            return JointArrival(stamp_ns, now_ns, message)
        self._remember(names, message, stamp_ns, now_ns)
        if not any(name in names for name in self._anchors) or self._lacking(now_ns):
            return None
        anchors = [self._joints[name] for name in self._anchors]
        return JointArrival(
            min(joint.stamp_ns for joint in anchors), min(joint.received_ns for joint in anchors), self._parts()
        )

    def lacking(self, now_ns: int) -> str:
        """Why there is no set, in the words of one that lacks joints; '' before anything came, and when none lacks."""
        lacking = self._lacking(now_ns) if self._seen else []
        return f"joint state lacks {', '.join(lacking)}; it has {', '.join(self._seen)}" if lacking else ""

    def clear(self) -> None:
        """Forget all joints."""
        self._joints.clear()
        self._seen.clear()

    def _remember(self, names: Sequence[str], message: Any, stamp_ns: int, now_ns: int) -> None:
        moving = len(message.velocity) == len(names)
        for index, name in enumerate(names):
            if len(self._seen) < _MOST_NAMES:
                self._seen[name] = None
            if name in self._wanted:
                velocity = float(message.velocity[index]) if moving else None
                self._joints[name] = _Joint(float(message.position[index]), velocity, stamp_ns, now_ns)

    def _lacking(self, now_ns: int) -> list[str]:
        """Anchors age with the stream that they are in; the others would be held for ever."""
        old_ns = now_ns - self._max_age_ns
        missing = [name for name in self._anchors if name not in self._joints]
        return missing + [
            name for name in self._others if name not in self._joints or self._joints[name].received_ns < old_ns
        ]

    def _parts(self) -> JointParts:
        names = (*self._anchors, *self._others)
        joints = [self._joints[name] for name in names]
        velocities = [joint.velocity for joint in joints if joint.velocity is not None]
        return JointParts(
            names,
            tuple(joint.position for joint in joints),
            tuple(velocities) if len(velocities) == len(joints) else (),
        )
