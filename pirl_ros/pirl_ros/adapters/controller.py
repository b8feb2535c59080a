"""What every controller of an arm or a gripper offers to the arm's node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pirl_contract.schema import Alteration
from pirl_ros.control.action_mapping import ArmCommand
from pirl_ros.control.lookahead import Ahead


class Controller(Protocol):
    """Where commands go."""

    @property
    def problem(self) -> str:
        """Why the last command is not executed; empty when it is."""

    @property
    def remaining_s(self) -> float:
        """Until it is through with what it was sent; 0 for one that plans nothing."""

    def send(self, command: ArmCommand, ahead: Callable[[], Ahead | None]) -> Alteration:
        """Send one period's command; `ahead` gives the rest of the chunk on request. Returns what had to be changed."""

    def rest(self, ahead: Callable[[], Ahead | None]) -> None:
        """Nothing is commanded any more: end what is under way. `ahead` gives the way to rest."""

    def renew(self) -> None:
        """What was planned no longer holds: a new chunk came."""

    def foresee(self, soon: Callable[[int], Ahead | None]) -> None:
        """Between two periods, after `renew`: begin the new chunk at once, where that can be sent before its time.

        `soon(n)` gives its next n actions and the stop after them, from the newest command on.
        """

    def release(self) -> None:
        """Another source may have commanded it meanwhile: a new episode, or a takeover."""

    def stop(self) -> None:
        """Give up what is under way; called when the arm is at rest."""

    def close(self) -> None:
        """Free everything."""
