"""Quality of service of every topic, said once, and what is said when two ends of a topic do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

_FIXES = {
    "RELIABILITY": "one end is best effort, the other reliable: set reliable_sensors: false in the robot profile",
    "DURABILITY": "the publisher is volatile, transient local is asked for",
}


def _profile(depth: int, reliable: bool = True, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def sensor(reliable: bool) -> QoSProfile:
    """Joint states, poses and images as read: the newest few. Best effort is what REP-2003 asks of a reader."""
    return _profile(5, reliable)


def command(rate_hz: float) -> QoSProfile:
    """Joint commands as sent: the newest only, worth nothing after two control periods.

    No deadline is offered: an arm that has nothing to play sends nothing, and that is no fault.
    """
    quality = _profile(1)
    quality.lifespan = Duration(nanoseconds=int(2e9 / rate_hz))
    return quality


def subscription_events(topic: str, tell: Callable[[str], None]) -> SubscriptionEventCallbacks:
    """Event callbacks of a subscription: `tell` gets in words that a publisher of `topic` does not fit."""
    return SubscriptionEventCallbacks(incompatible_qos=_on_incompatible("a publisher", topic, tell))


def publisher_events(topic: str, tell: Callable[[str], None]) -> PublisherEventCallbacks:
    """Event callbacks of a publisher: `tell` gets in words that a subscription to `topic` does not fit."""
    return PublisherEventCallbacks(incompatible_qos=_on_incompatible("a subscription", topic, tell))


def _on_incompatible(other: str, topic: str, tell: Callable[[str], None]) -> Callable[[Any], None]:
    def on_event(event: Any) -> None:
        kind = qos_policy_name_from_kind(event.last_policy_kind).removeprefix("RMW_QOS_POLICY_")
        tell(f"{other} of {topic} has incompatible QoS ({kind.lower()}): {_FIXES.get(kind, 'make both ends equal')}")

    return on_event


IMAGE = _profile(1)
"""Images as published: only the newest is worth sending."""
STATE = _profile(5)
"""Joint states and poses as published."""
COMMAND = _profile(1)
"""Joint commands as read: an old one must not be queued behind a new one."""
CLOCK = _profile(1)
"""Simulated time as published; rclpy and rclcpp read it best effort."""
CHUNK = _profile(1)
OUTCOME = _profile(100)
"""Step outcomes and episode events: each one counts."""
LATCHED = _profile(1, latched=True)
"""Instruction, status: a late joiner gets the newest."""
