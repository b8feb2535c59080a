"""Subscriptions that wake nobody: read when their node wants to know, not when a message comes.

An executor of rclpy builds its wait set anew for each message, which costs more than most callbacks do. A control
loop at a fixed rate needs the newest joint states once per period, however many were published.
"""

from __future__ import annotations

from typing import Any

from rclpy.callback_groups import CallbackGroup


class Polled(CallbackGroup):
    """While `open` it is like any other group; closed, its messages wait in the middleware until `take` is called."""

    def __init__(self, is_open: bool = False) -> None:
        super().__init__()
        self.open = is_open

    def can_execute(self, entity: Any) -> bool:
        """Whether the executor may wait for the entity."""
        return self.open

    def beginning_execution(self, entity: Any) -> bool:
        """Whether a callback may start."""
        return True

    def ending_execution(self, entity: Any) -> None:
        """Nothing is held."""

    def take(self, discard: bool = False) -> int:
        """Hand what came meanwhile to the callbacks, or throw it away; returns how many messages."""
        return sum(_take_all(subscription, discard) for subscription in self._subscriptions())

    def _subscriptions(self) -> list[Any]:
        present = [entity() for entity in self.entities]
        return [entity for entity in present if entity is not None and hasattr(entity, "msg_type")]


def _take_all(subscription: Any, discard: bool) -> int:
    taken = 0
    with subscription.handle:
        while (received := subscription.handle.take_message(subscription.msg_type, discard)) is not None:
            taken += 1
            if not discard:
                subscription.callback(received[0])
    return taken
