"""Tracks publishers and subscriptions of other nodes whose QoS is incompatible with ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from rclpy.qos import QoSProfile

from pirl_ros.adapters import qos

_KNOWN_TO_GRAPH_S = 5.0
"""the event may come before the graph shows its publisher or subscription"""


@dataclass(frozen=True)
class _Misfit:
    words: str
    noticed_s: float
    persists: Callable[[], bool]


class Misfits:
    """Collects what the middleware's events report of one node's topics, for as long as the graph confirms it."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._misfits: dict[tuple[str, str], _Misfit] = {}

    def of_subscription(self, topic: str, quality: QoSProfile | int) -> Any:
        """Return the event callbacks of a subscription of ours."""
        return qos.subscription_events(topic, partial(self._note, "publisher", topic, _profile(quality)))

    def of_publisher(self, topic: str, quality: QoSProfile | int) -> Any:
        """Return the event callbacks of a publisher of ours."""
        return qos.publisher_events(topic, partial(self._note, "subscription", topic, _profile(quality)))

    @property
    def reasons(self) -> list[str]:
        """One sentence for each topic with a misfit: what does not fit and what to do."""
        now_s = time.monotonic()
        for key, found in list(self._misfits.items()):
            if now_s > found.noticed_s + _KNOWN_TO_GRAPH_S and not found.persists():
                del self._misfits[key]
        return [found.words for found in self._misfits.values()]

    def _note(self, other: str, topic: str, ours: QoSProfile, words: str) -> None:
        persists = partial(self._persists, other, topic, ours)
        self._misfits[other, topic] = _Misfit(words, time.monotonic(), persists)

    def _persists(self, other: str, topic: str, ours: QoSProfile) -> bool:
        """Whether an endpoint that does not fit is still there: no event reports that it went."""
        if other == "publisher":
            theirs = [info.qos_profile for info in self._node.get_publishers_info_by_topic(topic)]
            return not all(qos.compatible(each, ours) for each in theirs)
        theirs = [info.qos_profile for info in self._node.get_subscriptions_info_by_topic(topic)]
        return not all(qos.compatible(ours, each) for each in theirs)


def _profile(quality: QoSProfile | int) -> QoSProfile:
    return QoSProfile(depth=quality) if isinstance(quality, int) else quality
