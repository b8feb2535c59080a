"""Which robots get another version than production: set by an operator, kept across restarts.

The file lies beside aliases.json, which says what `candidate` and `shadow` mean; it is replaced in one step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pirl_server.atomic_files import check_name

CANDIDATE = "candidate"
SHADOW = "shadow"


@dataclass(frozen=True)
class Routes:
    """Robots by id, shares between 0 and 1. Nothing given: production serves all robots."""

    pins: Mapping[str, str] = field(default_factory=dict)
    """robot -> version that it stays on, whatever is promoted"""
    canary_version: str = ""
    """what the canary was decided for: a job that moves the candidate alias does not move its robots"""
    canary_robots: tuple[str, ...] = ()
    """robots that get the candidate"""
    canary_share: float = 0.0
    """of all other robots, how many get the candidate: chosen by a hash of robot and candidate"""
    shadow_share: float = 0.0
    """of production's requests, how many the shadow version draws too"""

    def __post_init__(self) -> None:
        for name in ("canary_share", "shadow_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} {getattr(self, name)} must lie between 0 and 1")
        for robot_id in (*self.pins, *self.canary_robots):
            check_name("robot id", robot_id)

    def for_candidate(self, version: str | None) -> Routes:
        """Return the routes while `version` is the candidate: without the canary of any other version."""
        return self if version == self.canary_version else replace(self, canary_robots=(), canary_share=0.0)


def read_routes(path: Path) -> Routes:
    """Return what was decided; the empty routes where nothing was. Raises ValueError when the file is damaged."""
    if not path.exists():
        return Routes()
    try:
        raw = json.loads(path.read_text())
        return Routes(**(raw | {"canary_robots": tuple(raw["canary_robots"])}))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"'{path}' can't be read ({error}): repair it, or remove it to serve production") from None


def routes_json(routes: Routes) -> dict[str, Any]:
    """Return what `read_routes` reads."""
    return asdict(routes)
