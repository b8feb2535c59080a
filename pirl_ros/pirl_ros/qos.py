"""Quality of service of every topic, said once."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(depth: int, reliable: bool = True, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def sensor(reliable: bool) -> QoSProfile:
    """Joint states, poses and images as read: the newest few."""
    return _profile(5, reliable)


IMAGE = _profile(1)
"""Images as published: only the newest is worth sending."""
STATE = _profile(5)
"""Joint states and poses as published."""
COMMAND = _profile(1)
"""Joint commands: an old one must not be queued behind a new one."""
CHUNK = _profile(1)
OUTCOME = _profile(100)
"""Step outcomes and episode events: each one counts."""
LATCHED = _profile(1, latched=True)
"""Instruction, status: a late joiner gets the newest."""
