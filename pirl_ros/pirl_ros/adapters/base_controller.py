"""The velocity of a mobile base, as it is commanded, to its controller: limited before, zero when nothing comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import TwistStamped

from pirl_contract.schema import Alteration
from pirl_ros.adapters import qos
from pirl_ros.control.action_mapping import ArmCommand
from pirl_ros.control.action_space import STANDING
from pirl_ros.control.lookahead import Ahead
from pirl_ros.profile.sections import BaseSection


class BaseVelocity:
    """One twist per period while a policy drives; zero once otherwise, and when no command came for `timeout`.

    The base's controller needs a time-out of its own too: nothing is sent when this process has died.
    """

    problem = ""
    remaining_s = 0.0

    def __init__(self, node: Any, base: BaseSection, rate_hz: float) -> None:
        self._node, self._base = node, base
        self._moving, self._sent_s = False, 0.0
        quality = qos.overridable(qos.command(rate_hz), 1)
        self._publisher = node.create_publisher(TwistStamped, base.topic, **quality)
        node.create_timer(base.timeout / 2, self.look)

    def send(self, command: ArmCommand, ahead: Callable[[], Ahead | None]) -> Alteration:
        """Send this period's velocity; one that stands is sent zero once."""
        if command.base != STANDING or self._moving:
            self._publish(command.base)
        return Alteration.NONE

    def look(self) -> None:
        """Stop the base when no command came for too long."""
        if self._moving and time.monotonic() - self._sent_s > self._base.timeout:
            self._publish(STANDING)

    def rest(self, ahead: Callable[[], Ahead | None]) -> None:
        """Nothing is commanded any more: stop."""
        if self._moving:
            self._publish(STANDING)

    def renew(self) -> None:
        """Nothing is planned here."""

    def foresee(self, soon: Callable[[int], Ahead | None]) -> None:
        """A command acts when it comes: none is sent before its time."""

    def release(self) -> None:
        """Another driver or episode: stop until it commands."""
        if self._moving:
            self._publish(STANDING)

    def stop(self) -> None:
        """Stop."""
        if self._moving:
            self._publish(STANDING)

    def close(self) -> None:
        """The publisher is the node's."""

    def _publish(self, velocity: tuple[float, float, float]) -> None:
        message = TwistStamped()
        message.header.stamp, message.header.frame_id = self._node.get_clock().now().to_msg(), self._base.frame
        message.twist.linear.x, message.twist.linear.y, message.twist.angular.z = velocity
        self._publisher.publish(message)
        self._moving, self._sent_s = velocity != STANDING, time.monotonic()
