"""Where each task's learning starts and with which settings it goes on: found by trial, the same for all seeds."""

from __future__ import annotations

from typing import Any

STARTS: dict[str, dict[str, Any]] = {
    "PushCube-v1": {"demonstrations": 3, "steps": 150},
    "PullCube-v1": {"demonstrations": 5, "steps": 200},
    "PickCube-v1": {"demonstrations": 13, "steps": 450},
    "StackCube-v1": {"demonstrations": 30, "steps": 500},
    "metaworld/mt10": {"demonstrations": 20, "steps": 80, "vlm": "frozen"},
}
"""fields of SftConfig: few demonstrations and steps make a policy that has something to learn"""

TASKS: dict[str, dict[str, Any]] = {
    "PushCube-v1": {"env_steps": 240_000},
    "PullCube-v1": {"env_steps": 120_000},
    "PickCube-v1": {"env_steps": 200_000},
    "StackCube-v1": {"env_steps": 300_000},
    "metaworld/mt10": {
        "env_steps": 120_000,
        "decisions": 32,
        "critic_features": "policy_and_instruction",
        "advantage_scale": "task",
    },
}
"""fields of PpoConfig where they are not its defaults"""

CAMERA_STARTS: dict[str, dict[str, Any]] = {
    "PushCube-v1": {"preset": "tiny", "demonstrations": 60, "steps": 1500, "batch_size": 48},
}
CAMERA_PPO: dict[str, Any] = {"critic_features": "tabletop_relative"}
"""the critic is told what the policy must see; vision and language stay as they are (`vlm` is "frozen" by default)"""
