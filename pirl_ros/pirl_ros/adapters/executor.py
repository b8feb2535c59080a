"""An executor that keeps its wait sets, and polls services and events at 20 Hz instead of for each message.

rclpy collects the entities of all nodes and builds a wait set each time it waits, and lets each callback end the wait
after it as well. Three lifecycle nodes have some fifty services and fifty events beside a handful of timers and
subscriptions. Here entities are collected when one was created or destroyed; services, clients, actions and events are
looked at twenty times a second, messages and timers always.
"""

from __future__ import annotations

import time
from typing import Any

from rclpy.exceptions import InvalidHandle
from rclpy.executors import SingleThreadedExecutor
from rclpy.task import Task

from pirl_ros.adapters.wait_list import Entity, WaitList

_ASIDE_S = 0.05


class RobotExecutor(SingleThreadedExecutor):
    """One thread, for callbacks that wait for nothing. Only `work` runs them."""

    def __init__(self) -> None:
        self._changed = True
        super().__init__()
        self._due_s = 0.0
        self._groups: dict[Any, list[Entity]] = {}
        """timers, subscriptions and guard conditions by their callback group"""
        self._lists: dict[tuple[bool, ...], WaitList] = {}
        """by which of the groups may run; kept until entities change"""
        self._aside: WaitList | None = None

    def wake(self) -> None:
        """End the wait: an entity was created or destroyed, or another thread has a result. From any thread."""
        self._changed = True
        super().wake()

    def add_node(self, node: Any) -> bool:
        """Run the callbacks of a node from now on; False: they are run already."""
        self._changed = True
        return bool(super().add_node(node))

    def remove_node(self, node: Any) -> None:
        """Run no callbacks of a node any more."""
        self._changed = True
        super().remove_node(node)

    def work(self) -> None:
        """Wait once, for a twentieth of a second at most, and run everything that is ready then.

        What is aside is looked at without waiting: Fast DDS ends a wait for an event of a subscription at once when
        that has messages, and those of a polled one stay.
        """
        if self._is_shutdown or not self._context.ok():
            return
        while self._resume():
            pass
        try:
            ready = self._wait()
        except InvalidHandle:
            # Destroyed by another thread since it was collected.
            self._changed = True
            return
        for entity in ready:
            self._start(entity)

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Run nothing any more."""
        self._groups, self._lists, self._aside = {}, {}, None
        return bool(super().shutdown(timeout_sec))

    def _wait(self) -> list[Entity]:
        if self._changed:
            self._collect()
        left_s = self._due_s - time.monotonic()
        if left_s <= 0:
            self._due_s = time.monotonic() + _ASIDE_S
            assert self._aside is not None
            return self._aside.wait(0)
        may_run = tuple(group.can_execute(entities[0].item) for group, entities in self._groups.items())
        if may_run not in self._lists:
            chosen = [entity for runs, own in zip(may_run, self._groups.values()) if runs for entity in own]
            self._lists[may_run] = WaitList(self._context, [*chosen, Entity("guard_condition", self._guard)])
        return self._lists[may_run].wait(int(left_s * 1e9))

    def _collect(self) -> None:
        # First: what changes from here on is collected the next time.
        self._changed = False
        self._groups, self._lists, aside = {}, {}, list[Entity]()
        for node in self.get_nodes():
            quick = [Entity("timer", timer) for timer in node.timers]
            quick += [Entity("subscription", subscription) for subscription in node.subscriptions]
            quick += [Entity("guard_condition", guard) for guard in node.guards]
            for entity in quick:
                self._groups.setdefault(entity.item.callback_group, []).append(entity)
            aside += [Entity("service", service) for service in node.services]
            aside += [Entity("client", client) for client in node.clients]
            aside += [Entity("waitable", waitable) for waitable in node.waitables]
        self._aside = WaitList(self._context, aside)

    def _start(self, entity: Entity) -> None:
        """Run a callback as far as it goes without waiting; what is left of it is resumed by each `work`."""
        if entity.item is self._guard:  # only there to end the wait
            return
        call = self._call(entity)
        try:
            call.send(None)
        except StopIteration:
            return
        with self._tasks_lock:
            self._tasks.append((Task(call, executor=self), None, None))

    async def _call(self, entity: Entity) -> None:
        group = None if entity.kind in ("service", "client", "waitable") else entity.item.callback_group
        # One that was ready may have to wait by now, or may be gone.
        if group is not None and not (group.can_execute(entity.item) and group.beginning_execution(entity.item)):
            return
        try:
            if entity.kind == "waitable":
                await self._execute_waitable(entity.item)
                return
            taken = getattr(self, f"_take_{entity.kind}")(entity.item)
            execute = getattr(self, f"_execute_{entity.kind}", None)
            if execute is not None:  # Humble
                await execute(entity.item, taken)
            elif taken is not None:
                await taken()
        finally:
            if group is not None:
                group.ending_execution(entity.item)

    async def _execute_waitable(self, waitable: Any) -> None:
        try:
            with waitable:
                data = waitable.take_data()
        except InvalidHandle:
            return  # an action client that a callback before this one destroyed
        for future in waitable._futures:
            future._set_executor(self)
        await waitable.execute(data)

    def _resume(self) -> bool:
        """Take up what has been waiting; whether any of it ended: others may wait for that."""
        with self._tasks_lock:
            tasks = [task for task, _, _ in self._tasks]
        for task in tasks:
            task()
        with self._tasks_lock:
            self._tasks = [each for each in self._tasks if not (each[0].done() or each[0].cancelled())]
        ended = [task for task in tasks if task.done()]
        for task in ended:
            if (error := task.exception()) is not None:
                raise error
        return bool(ended)
