"""Subscriptions to topics of operators and foreign nodes that match any QoS a publisher offers.

A best-effort, volatile reader matches every publisher. It gets no retransmission though, not even of a reliable one.
So what is published once has a reliable reader beside it: a reliable publisher's message then comes twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pirl_ros.adapters import qos


def receive_stream(node: Any, kind: Any, topic: str, callback: Callable[[Any], None]) -> None:
    """Subscribe to what is repeated many times a second, as a joystick: the next message replaces a lost one.

    No retransmission on purpose: a late command of a hand is worse than none.
    """
    node.create_subscription(kind, topic, callback, qos.STREAM)


def receive_each(
    node: Any, kind: Any, topic: str, callback: Callable[[Any], None], latched: bool = False, group: Any = None
) -> None:
    """Subscribe to what may be published once only, as an emergency stop; `callback` may get a message repeatedly.

    `latched`: a transient-local publisher's last message is received too when it was sent before this node started.
    """
    node.create_subscription(kind, topic, callback, qos.ANY, callback_group=group)
    # That these do not fit a publisher is no loss: the first one does.
    for quality in (qos.EACH, qos.LATCHED) if latched else (qos.EACH,):
        events = qos.silent_events()
        node.create_subscription(kind, topic, callback, quality, event_callbacks=events, callback_group=group)
