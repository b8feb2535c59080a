"""The actions of control_msgs, which only those arms need that are commanded by goals."""

from __future__ import annotations

import importlib
from typing import Any


def control_action(name: str) -> Any:
    """Return an action of control_msgs. ValueError: the package is not there."""
    try:
        return getattr(importlib.import_module("control_msgs.action"), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the profile commands by {name}, which needs the package control_msgs: install it, or command"
            " by topic: command.kind and gripper.kind joint_trajectory"
        ) from error
