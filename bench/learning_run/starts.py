"""Where each task's learning starts and how it goes on: found by trial, for all seeds alike but for `OTHER_STARTS`."""

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

OTHER_STARTS: dict[tuple[str, int], dict[str, Any]] = {
    ("PickCube-v1", 1): {"demonstrations": 20, "steps": 1000},
}
"""of one seed alone: what the task's start gave it was too poor to learn from"""

TASKS: dict[str, dict[str, Any]] = {
    "PushCube-v1": {"env_steps": 240_000},
    "PullCube-v1": {"env_steps": 120_000},
    "PickCube-v1": {"env_steps": 300_000, "actor_learning_rate": 4e-5},
    "StackCube-v1": {"env_steps": 600_000, "actor_learning_rate": 3e-5, "decisions": 32},
    "metaworld/mt10": {
        "env_steps": 220_000,
        "decisions": 32,
        "critic_features": "policy_and_instruction",
        "advantage_scale": "task",
    },
}
"""fields of PpoConfig where they are not its defaults"""

CAMERA_PRETRAINING: dict[str, Any] = {
    "task": "PullCube-v1",
    "sft": {
        "preset": "tiny",
        "demonstrations": 1000,
        "steps": 1000,
        "batch_size": 48,
        "draws": 4,
        "grounding": "object_and_goal",
        "warmup_steps": 50,
    },
}
"""where vision and language come from, once for all seeds: another task, under the same camera"""
CAMERA_STARTS: dict[str, dict[str, Any]] = {
    "PushCube-v1": {
        "preset": "tiny",
        "demonstrations": 2,
        "steps": 60,
        "batch_size": 48,
        "draws": 4,
        "vlm": "frozen",
        "warmup_steps": 10,
    },
}
CAMERA_PPO: dict[str, Any] = {"env_steps": 240_000, "critic_features": "tabletop_relative"}
"""the critic is told what the policy must see; vision and language stay as they are (`vlm` is "frozen" by default)"""


def start_of(task: str, seed: int, camera: bool) -> dict[str, Any]:
    """How the supervised policy of this task and seed is made."""
    if camera:
        return dict(CAMERA_STARTS[task])
    return dict(OTHER_STARTS.get((task, seed), STARTS[task]))
