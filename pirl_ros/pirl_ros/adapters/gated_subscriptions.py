"""Subscriptions read on demand instead of waking the executor.

An executor of rclpy rebuilds its wait set for each message, which costs more than most callbacks do. A control
loop at a fixed rate needs the newest joint states once per period, however many were published.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup

_YOUNG_S = 0.25


class GatedGroup(CallbackGroup):
    """While `open` it is like any other group; closed, its messages wait in the middleware until `take` is called."""

    def __init__(self, is_open: bool = False) -> None:
        super().__init__()
        self.open = is_open

    @property
    def received(self) -> bool:
        """Whether its messages are handed on as they come."""
        return self.open

    @property
    def young(self) -> bool:
        """Whether it was opened so lately that silence means nothing yet."""
        return False

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


class OnDemandGroup(GatedGroup):
    """One that is open for as long as `wanted()` says, too; what came while it said no is thrown away, unless kept."""

    def __init__(self, wanted: Callable[[], bool], keep: bool = False) -> None:
        super().__init__()
        self._wanted, self._keep, self._since_s = wanted, keep, 0.0

    def can_execute(self, entity: Any) -> bool:
        """Whether the executor may wait for the entity."""
        if not (self.open and self._wanted()):
            self._since_s = 0.0
        elif not self._since_s:
            self._since_s = time.monotonic()
            if not self._keep:
                self.take(discard=True)
        return self._since_s > 0

    @property
    def received(self) -> bool:
        """Whether its messages are handed on as they come."""
        return self._since_s > 0

    @property
    def young(self) -> bool:
        """Whether it was opened so lately that silence means nothing yet."""
        return self.received and time.monotonic() < self._since_s + _YOUNG_S


def _take_all(subscription: Any, discard: bool) -> int:
    taken = 0
    with subscription.handle:
        while (received := subscription.handle.take_message(subscription.msg_type, discard)) is not None:
            taken += 1
            if not discard:
                subscription.callback(received[0])
    return taken
