"""Action client in which only the latest goal counts."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from action_msgs.msg import GoalStatus
from rclpy.action.client import ActionClient

GoalOutcome = Literal["refused", "succeeded", "aborted", "canceled"]
_FATES: dict[int, GoalOutcome] = {
    GoalStatus.STATUS_SUCCEEDED: "succeeded",
    GoalStatus.STATUS_ABORTED: "aborted",
    GoalStatus.STATUS_CANCELED: "canceled",
}


class LatestGoalClient:
    """Sends goals; `ended(fate, result)` is called for the newest one, with no result for a rejected one.

    A controller ends a goal by itself when a newer one comes, some as canceled, others as aborted: the end of a
    replaced goal, or of one cancelled here, is not reported.
    """

    def __init__(self, node: Any, kind: Any, name: str, ended: Callable[[GoalOutcome, Any], None]) -> None:
        self._client, self._ended = ActionClient(node, kind, name), ended
        self._handle: Any = None
        self._number = self._void = 0
        """of the newest goal; of the newest one to be cancelled"""

    @property
    def ready(self) -> bool:
        """Whether an action server is available."""
        return bool(self._client.server_is_ready())

    def send(self, goal: Any) -> None:
        """Send a goal in place of the present one, which stays active until this one is accepted."""
        self._number += 1
        self._client.send_goal_async(goal).add_done_callback(partial(self._on_answer, self._number))

    def cancel(self) -> None:
        """Cancel what is under way, also a goal that was not answered yet."""
        self._void = self._number
        self._cancel_accepted()

    def close(self) -> None:
        """Free the client."""
        self._void = self._number
        self._client.destroy()

    def _cancel_accepted(self) -> None:
        if self._handle is not None:
            self._handle.cancel_goal_async()
            self._handle = None

    def _on_answer(self, number: int, answer: Any) -> None:
        handle = answer.result()
        if handle.accepted and number <= self._void:
            handle.cancel_goal_async()
        if number != self._number or number <= self._void:
            return
        if not handle.accepted:
            # The one before it would otherwise be carried out to its end, against what is wanted now.
            self._cancel_accepted()
            self._ended("refused", None)
            return
        self._handle = handle
        handle.get_result_async().add_done_callback(partial(self._on_result, number))

    def _on_result(self, number: int, answer: Any) -> None:
        if number != self._number or number <= self._void:
            return
        self._handle = None
        told = answer.result()
        self._ended(_FATES[told.status], told.result)


def control_action(name: str) -> Any:
    """Return an action of control_msgs. ValueError: the package is not there."""
    try:
        return getattr(importlib.import_module("control_msgs.action"), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the profile commands by {name}, which needs the package control_msgs: install it, or command"
            " by topic: command.kind and gripper.kind joint_trajectory"
        ) from error
