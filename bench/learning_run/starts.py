"""Where each task's learning starts and with which settings it goes on: found by trial, the same for all seeds."""

from __future__ import annotations

from typing import Any

STARTS: dict[str, dict[str, Any]] = {
    "PushCube-v1": {"demonstrations": 3, "steps": 150},
    "PullCube-v1": {"demonstrations": 5, "steps": 200},
    "PickCube-v1": {"demonstrations": 13, "steps": 450},
    "StackCube-v1": {"demonstrations": 30, "steps": 500},
    "metaworld/mt10": {"demonstrations": 40, "steps": 200, "vlm": "frozen"},
}
"""fields of SftConfig: few demonstrations and steps make a policy that has something to learn"""

TASKS: dict[str, dict[str, Any]] = {
    "PushCube-v1": {"env_steps": 120_000},
    "PullCube-v1": {"env_steps": 120_000},
    "PickCube-v1": {"env_steps": 200_000},
    "StackCube-v1": {"env_steps": 300_000},
    "metaworld/mt10": {
        "env_steps": 500_000,
        "decisions": 48,
        "minibatch": 512,
        "actor_learning_rate": 3e-5,
        "max_kl": 0.06,
        "critic_features": "policy_and_instruction",
    },
}
"""fields of PpoConfig where they are not its defaults"""
