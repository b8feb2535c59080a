"""The queue in front of the device: one place per robot, the newest request of each in it.

Places are served in the order in which they were taken. A newer request takes over its robot's place, so a robot that
floods replaces its own requests and never stands twice in the line: at most one of its requests is served before one of
another robot that waits already (two where the other waits for another policy version: see `take`).
Plain data, no thread and no clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pirl_server.serving.batch import Request


@dataclass
class _Place:
    since: float
    request: Request


class Waiting:
    """Requests in the order of their robots' places."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}  # a dict keeps the place of a key whose value is replaced

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, robot_id: str) -> bool:
        return robot_id in self._places

    @property
    def since(self) -> float:
        """When the first place was taken. Not for an empty queue."""
        return next(iter(self._places.values())).since

    def put(self, request: Request) -> Request | None:
        """Take the robot's place; return the request that lost it: the older one, which may be the one just put.

        Within a session the higher sequence is the newer; a 0, another session, or the same number: the later arrival.
        """
        place = self._places.get(request.robot_id)
        if place is None:
            self._places[request.robot_id] = _Place(request.submitted, request)
            return None
        held = place.request
        if request.session == held.session and 0 < request.sequence < held.sequence:
            return request
        place.request = request
        return held

    def take(self, rows: int, current: str) -> list[Request]:
        """Take the first request and, in order, those for the same version: up to `rows`. Without version: `current`.

        Those of other versions keep their places: no batch mixes versions, and none overtakes what waits before it
        by more than a ride in a batch that had to come first anyway.
        """
        version, taken = "", list[str]()
        for robot_id, place in self._places.items():
            wanted = place.request.version or current
            version = version or wanted
            if wanted == version and len(taken) < rows:
                taken.append(robot_id)
        return [self._places.pop(robot_id).request for robot_id in taken]

    def drop(self, unwanted: Callable[[Request], bool]) -> list[Request]:
        """Take out, and return, what matches."""
        found = [robot_id for robot_id, place in self._places.items() if unwanted(place.request)]
        return [self._places.pop(robot_id).request for robot_id in found]

    def wants(self, version: str) -> bool:
        """Whether a request asks for this version by name."""
        return any(place.request.version == version for place in self._places.values())
