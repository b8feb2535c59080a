"""The only module that imports pirl_msgs, which exists only after a colcon build."""

from __future__ import annotations

try:
    from pirl_msgs.action import ExecuteInstruction
    from pirl_msgs.msg import ActionChunk, EpisodeEvent, PolicyStatus, SafetyState, StepOutcome
    from pirl_msgs.srv import (
        ClearEmergencyStop,
        EmergencyStop,
        LabelEpisode,
        MarkSuccess,
        ResetEnvironment,
        SetControlSource,
        StartEpisode,
        StopEpisode,
    )
except ImportError as error:
    raise ImportError(
        "pirl_msgs is not on the path: run docker/build_ros.sh once and source docker/ros_env.sh"
        " (with an apt ROS: colcon build, then source install/setup.bash)"
    ) from error

__all__ = [
    "ActionChunk",
    "ClearEmergencyStop",
    "EmergencyStop",
    "EpisodeEvent",
    "ExecuteInstruction",
    "LabelEpisode",
    "MarkSuccess",
    "PolicyStatus",
    "ResetEnvironment",
    "SafetyState",
    "SetControlSource",
    "StartEpisode",
    "StepOutcome",
    "StopEpisode",
]
