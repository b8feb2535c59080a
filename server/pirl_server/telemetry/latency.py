"""How long the last answered request of each robot took on the server."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from pirl_server.rpc.call_tracker import Call

MAX_ROBOTS = 1024


class Latencies:
    """Listens to calls; the robots that were silent for longest are forgotten first."""

    def __init__(self) -> None:
        self._last_ms: OrderedDict[str, float] = OrderedDict()

    def of(self, robot_id: str) -> float | None:
        """Return milliseconds from the request's arrival to its reply; None when the robot was never answered."""
        return self._last_ms.get(robot_id)

    def began(self, call: Call) -> None:
        """Nothing is known yet."""

    def ended(self, call: Call, reply: Any, code: str) -> None:
        """Remember how long an answered inference took."""
        if call.rpc != "Infer" or reply is None:
            return
        self._last_ms[call.robot_id] = 1000 * call.seconds
        self._last_ms.move_to_end(call.robot_id)
        while len(self._last_ms) > MAX_ROBOTS:
            self._last_ms.popitem(last=False)
