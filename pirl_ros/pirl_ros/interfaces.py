"""The one place that imports pirl_msgs, which exists only after a colcon build."""

from __future__ import annotations

try:
    from pirl_msgs.msg import ActionChunk, EpisodeEvent, PolicyStatus, StepOutcome
    from pirl_msgs.srv import ResetEnvironment, StartEpisode, StopEpisode
except ImportError as error:
    raise ImportError(
        "pirl_msgs is not on the path: run docker/build_ros.sh once and source docker/ros_env.sh"
        " (with an apt ROS: colcon build, then source install/setup.bash)"
    ) from error

__all__ = [
    "ActionChunk",
    "EpisodeEvent",
    "PolicyStatus",
    "ResetEnvironment",
    "StartEpisode",
    "StepOutcome",
    "StopEpisode",
]
