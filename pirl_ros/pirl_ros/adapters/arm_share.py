"""One arm's controllers as part of a robot with several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pirl_contract.schema import Alteration, ControlSource
from pirl_ros.adapters.controller import Controller
from pirl_ros.control.action_mapping import ArmCommand
from pirl_ros.control.lookahead import Ahead


class ArmShare:
    """Hands its arm's share of each command to the arm's controllers.

    Once one of them has given up they are sent nothing more until a policy or a person moves the robot again: that arm
    holds by itself while the others are braked.
    """

    def __init__(self, number: int, joints: slice) -> None:
        """`number` of the arm, and which joints of a command are its own."""
        self._number, self._joints, self._lost = number, joints, False
        self.controllers: Sequence[Controller] = ()

    def giving_up(self, gave_up: Callable[[str], None]) -> Callable[[str], None]:
        """Return what the arm's controllers call: it remembers that, and calls `gave_up`."""

        def call(reason: str) -> None:
            self._lost = True
            gave_up(reason)

        return call

    @property
    def problem(self) -> str:
        """What is wrong with any of them; empty when all is well."""
        return "; ".join(each.problem for each in self.controllers if each.problem)

    @property
    def remaining_s(self) -> float:
        """Until all are through with what they were sent."""
        return max((each.remaining_s for each in self.controllers), default=0.0)

    def send(self, command: ArmCommand, ahead: Callable[[], Ahead | None]) -> Alteration:
        """Send this arm's share. Returns what had to be changed."""
        altered = Alteration.NONE
        if self._lost and command.source == ControlSource.HOLD:
            return altered
        self._lost = False
        share = command.of_arm(self._number, self._joints)
        for each in self.controllers:
            altered |= each.send(share, self._own(ahead))
        return altered

    def rest(self, ahead: Callable[[], Ahead | None]) -> None:
        """End what is under way."""
        for each in self.controllers:
            each.rest(self._own(ahead))

    def renew(self) -> None:
        """A new chunk came."""
        for each in self.controllers:
            each.renew()

    def foresee(self, soon: Callable[[int], Ahead | None]) -> None:
        """Take what is to come."""
        for each in () if self._lost else self.controllers:
            each.foresee(lambda count: self._own(lambda: soon(count))())

    def release(self) -> None:
        """A new episode, or a takeover."""
        for each in self.controllers:
            each.release()

    def stop(self) -> None:
        """Give up what is under way."""
        for each in self.controllers:
            each.stop()

    def close(self) -> None:
        """Free everything."""
        for each in self.controllers:
            each.close()

    def _own(self, ahead: Callable[[], Ahead | None]) -> Callable[[], Ahead | None]:
        def share() -> Ahead | None:
            plan = ahead()
            return None if plan is None else plan.of_arm(self._joints)

        return share
