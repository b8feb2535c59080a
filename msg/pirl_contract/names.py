"""The rule for names used in paths, URLs and metrics: robots, tasks, versions, aliases.

A robot whose id keeps it can be reached by everything that names robots; the robot checks it before it connects, the
server with each request.
"""

from __future__ import annotations

import re

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""no separator, and never `.` or `..`"""
_SHOWN = 80
"""characters of a bad name that an error repeats"""


def is_name(name: str) -> bool:
    """Whether the name keeps the rule."""
    return re.fullmatch(NAME_PATTERN, name) is not None


def check_name(kind: str, name: str) -> str:
    """Return the name when it is safe as a file name, else raise ValueError."""
    if not is_name(name):
        shown = name if len(name) <= _SHOWN else name[:_SHOWN] + "..."
        raise ValueError(f"{kind} {shown!r} must be 1 to 64 letters, digits, '_', '-' or '.', letter or digit first")
    return name


def check_robot_id(robot_id: str) -> str:
    """Return the id when a stop can reach the robot under it, else raise ValueError that says where to set it."""
    try:
        return check_name("robot id", robot_id)
    except ValueError as error:
        raise ValueError(f"{error}: set robot_id of PolicyClient or policy_node, as in robot_id='arm-1'") from None
