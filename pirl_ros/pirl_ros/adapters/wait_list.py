"""Waits for a fixed list of entities with one wait set that is kept from one wait to the next.

rclpy's executors collect the entities of all nodes and build a wait set for each wait: with three lifecycle nodes that
costs more CPU than all their callbacks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from rclpy.exceptions import InvalidHandle
from rclpy.impl.implementation_singleton import rclpy_implementation

Kind = Literal["timer", "subscription", "guard_condition", "client", "service", "waitable"]
_KINDS = ("timer", "subscription", "guard_condition", "client", "service")
"""in the order in which they are run"""
_COUNTED = ("subscription", "guard_condition", "timer", "client", "service")
"""in the order in which a wait set takes their numbers"""


class Entity(NamedTuple):
    """What may become ready; `item` is rclpy's object."""

    kind: Kind
    item: Any

    @property
    def handle(self) -> Any:
        """What has to be held while it is waited for; a waitable is its own."""
        return self.item if self.kind == "waitable" else self.item.handle


class WaitList:
    """Entities must be collected again when one was destroyed: `wait` raises rclpy's InvalidHandle then."""

    def __init__(self, context: Any, entities: Sequence[Entity]) -> None:
        """Make the wait set; entities that are destroyed already are left out."""
        self._context = context
        entities = [entity for entity in entities if _exists(entity)]
        self._waitables = [entity for entity in entities if entity.kind == "waitable"]
        single = [entity for entity in entities if entity.kind != "waitable"]
        self._held = [entity.handle for entity in entities]
        self._counts = Counter[str](entity.kind for entity in single)
        self._single = {kind: {e.handle.pointer: e for e in single if e.kind == kind} for kind in _KINDS}
        self._events = 0
        for entity in self._waitables:
            self._count(entity.item.get_num_entities())
        with context.handle:
            self._set: Any = rclpy_implementation.WaitSet(
                *(self._counts[kind] for kind in _COUNTED), self._events, context.handle
            )
        self._enter = [(getattr(self._set, f"add_{entity.kind}"), entity.handle) for entity in single]

    def wait(self, timeout_ns: int) -> list[Entity]:
        """Return the entities that are ready within `timeout_ns`, timers first; 0: those that are ready now."""
        held: list[Any] = []
        if not self._held:
            return []
        try:
            for handle in self._held:
                handle.__enter__()
                held.append(handle)
            with self._context.handle:
                self._fill()
                self._set.wait(timeout_ns)
                return self._ready()
        finally:
            for handle in held:
                handle.__exit__(None, None, None)

    def _count(self, more: Any) -> None:
        for kind, name in zip(_KINDS, ("timers", "subscriptions", "guard_conditions", "clients", "services")):
            self._counts[kind] += getattr(more, f"num_{name}")
        self._events += more.num_events

    def _fill(self) -> None:
        """Enter everything: a wait removes what was not ready."""
        self._set.clear_entities()
        for enter, handle in self._enter:
            enter(handle)
        for entity in self._waitables:
            entity.item.add_to_wait_set(self._set)

    def _ready(self) -> list[Entity]:
        ready = []
        for kind, entities in self._single.items():
            if entities:
                found = [entities.get(pointer) for pointer in self._set.get_ready_entities(kind)]
                ready += [entity for entity in found if entity is not None and _is_due(entity)]
        return ready + [entity for entity in self._waitables if entity.item.is_ready(self._set)]


def _exists(entity: Entity) -> bool:
    try:
        with entity.handle:
            return True
    except InvalidHandle:
        return False


def _is_due(entity: Entity) -> bool:
    # One that was cancelled may be reported.
    return entity.kind != "timer" or bool(entity.item.handle.is_timer_ready())
