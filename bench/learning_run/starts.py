"""Where each task's learning starts and with which settings it goes on: found by trial, the same for all seeds."""

from __future__ import annotations

from typing import Any

STARTS: dict[str, dict[str, Any]] = {
    "PushCube-v1": {"demonstrations": 3, "steps": 150},
    "PullCube-v1": {"demonstrations": 3, "steps": 150},
    "PickCube-v1": {"demonstrations": 20, "steps": 600},
}
"""fields of SftConfig: few demonstrations and steps make a policy that has something to learn"""

TASKS: dict[str, dict[str, Any]] = {
    "PushCube-v1": {"env_steps": 120_000},
    "PullCube-v1": {"env_steps": 120_000},
    "PickCube-v1": {"env_steps": 200_000},
}
"""fields of PpoConfig where they are not its defaults"""
