"""An executor that polls services and events at 20 Hz instead of for each message.

rclpy rebuilds its wait set each time it waits and adds all entities of all nodes. Three lifecycle nodes have some
fifty services and fifty events beside a handful of timers and subscriptions: that is 2 ms of CPU for each message. Here
services, clients, actions and events are looked at twenty times a second, messages and timers always.
"""

from __future__ import annotations

import time
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor, TimeoutException

_ASIDE_S = 0.05


class Aside(ReentrantCallbackGroup):
    """What is looked at only while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.open = False

    def can_execute(self, entity: Any) -> bool:
        """Whether the executor may look at it now."""
        return self.open

    def take_in(self, node: Any) -> None:
        """Put all services, clients, actions and events that the node has by now aside."""
        for entity in (*node.services, *node.clients, *node.waitables):
            entity.callback_group = self


class RobotExecutor(SingleThreadedExecutor):
    """One thread, for callbacks that wait for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._aside, self._due_s = Aside(), 0.0

    def work(self) -> None:
        """Wait once, for a twentieth of a second at most, and run everything that is ready then.

        What is aside is looked at without waiting: Fast DDS ends a wait for an event of a subscription at once when
        that has messages, and those of a polled one stay.
        """
        self._aside.open = time.monotonic() >= self._due_s
        if self._aside.open:
            self._due_s = time.monotonic() + _ASIDE_S
            for node in self.get_nodes():
                self._aside.take_in(node)
        try:
            # One pass of this generator is one wait; spin_once would leave it half way, with the group open or not.
            patience_s = 0.0 if self._aside.open else _ASIDE_S
            for handler, _, _ in self._wait_for_ready_callbacks(timeout_sec=patience_s):
                handler()
                if handler.exception() is not None:
                    raise handler.exception()
        except (TimeoutException, ShutdownException, ExternalShutdownException):
            return
