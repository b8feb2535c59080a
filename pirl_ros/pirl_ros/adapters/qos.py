"""Quality of service of every topic, and the message for an incompatible publisher or subscription."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.duration import Duration, Infinite
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

_PUBLISHER_FIXES = {
    "RELIABILITY": "best effort publisher, reliable subscription: publish reliable",
    "DURABILITY": "volatile publisher, transient local subscription: publish transient local",
}
_SUBSCRIPTION_FIXES = {
    "RELIABILITY": "reliable subscription, best effort publisher: subscribe best effort",
    "DURABILITY": "transient local subscription, volatile publisher: subscribe volatile",
}


_OVERRIDABLE = (QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY, QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH)


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


def overridable(quality: QoSProfile, largest_depth: int = 100) -> dict[str, Any]:
    """Return arguments of create_publisher and create_subscription with which parameters can override the profile.

    `qos_overrides./joint_states.subscription.reliability: reliable` in a ROS parameter file, for instance; also
    durability, history and depth. A history other than keep_last, a durability other than volatile, or a depth above
    `largest_depth`, is rejected. The profile is copied: rclpy writes the override into the one it is given, which other
    topics share.
    """
    options = QoSOverridingOptions(_OVERRIDABLE, callback=partial(_check_override, largest_depth))
    return {"qos_profile": copy(quality), "qos_overriding_options": options}


def _check_override(largest_depth: int, quality: QoSProfile) -> SetParametersResult:
    if quality.history != HistoryPolicy.KEEP_LAST:
        return SetParametersResult(successful=False, reason="history must be keep_last")
    if quality.durability == DurabilityPolicy.TRANSIENT_LOCAL:
        # Age is counted from the arrival, and a controller that comes later would be sent the last trajectory again.
        reason = "durability must be volatile: a late reader would take an old message for a new one"
        return SetParametersResult(successful=False, reason=reason)
    if not 1 <= quality.depth <= largest_depth:
        reason = f"depth must be 1 to {largest_depth}, got {quality.depth}"
        return SetParametersResult(successful=False, reason=reason)
    return SetParametersResult(successful=True)


def subscription_events(
    topic: str, report: Callable[[str], None], reliability_fix: str = ""
) -> SubscriptionEventCallbacks:
    """Event callbacks of a subscription: `report` gets the message about an incompatible publisher of `topic`.

    `reliability_fix`: what to do about a best-effort publisher, where there is something better than another publisher.
    """
    fixes = _PUBLISHER_FIXES | ({"RELIABILITY": reliability_fix} if reliability_fix else {})
    return SubscriptionEventCallbacks(incompatible_qos=_on_incompatible("a publisher", topic, report, fixes))


def publisher_events(topic: str, report: Callable[[str], None]) -> PublisherEventCallbacks:
    """Event callbacks of a publisher: `report` gets the message about an incompatible subscription."""
    return PublisherEventCallbacks(
        incompatible_qos=_on_incompatible("a subscription", topic, report, _SUBSCRIPTION_FIXES)
    )


def silent_events() -> SubscriptionEventCallbacks:
    """Event callbacks of a subscription that need not fit, because another one of the same topic does."""
    return SubscriptionEventCallbacks(use_default_callbacks=False)


def compatible(publisher: QoSProfile, subscription: QoSProfile) -> bool:
    """Whether messages pass, as far as both profiles say; policies unknown to the middleware are taken to match."""
    return qos_check_compatible(_stated(publisher), _stated(subscription))[0] != QoSCompatibility.ERROR


def _stated(quality: QoSProfile) -> QoSProfile:
    """Write infinity where a time is unspecified, as the graph does: rclpy finds 0 and infinity incompatible."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=quality.reliability,
        durability=quality.durability,
        liveliness=quality.liveliness,
        deadline=quality.deadline if quality.deadline.nanoseconds else Infinite,
        liveliness_lease_duration=(
            quality.liveliness_lease_duration if quality.liveliness_lease_duration.nanoseconds else Infinite
        ),
    )


def _on_incompatible(
    other: str, topic: str, report: Callable[[str], None], fixes: Mapping[str, str]
) -> Callable[[Any], None]:
    def on_event(event: Any) -> None:
        kind = qos_policy_name_from_kind(event.last_policy_kind).removeprefix("RMW_QOS_POLICY_")
        fix = fixes.get(kind, "use the same policy on both ends")
        report(f"{other} of {topic} has incompatible QoS ({kind.lower()}): {fix}")

    return on_event


IMAGE = _profile(1)
"""Images as published: only the newest is worth sending."""
STATE = _profile(5)
"""Joint states and poses as published."""
COMMAND = _profile(1)
"""Joint commands as read: an old one must not be queued behind a new one."""
CLOCK = _profile(1)
"""Simulated time as published; rclpy and rclcpp read it best effort."""
STREAM = _profile(1, reliable=False)
"""A hand's commands as read, from any publisher: only the newest is worth anything."""
ANY = _profile(10, reliable=False)
"""What a person or a foreign node publishes once, from any publisher."""
EACH = _profile(10)
"""The same, retransmitted where the publisher is reliable (`inputs`)."""
CHUNK = _profile(1)
OUTCOME = _profile(100)
"""Step outcomes and episode events: each one counts."""
LATCHED = _profile(1, latched=True)
"""Status, and an instruction that was published before: a late joiner gets the newest."""
