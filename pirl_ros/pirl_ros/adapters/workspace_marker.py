"""The workspace as a box for RViz and Foxglove."""

from __future__ import annotations

from typing import Any

from visualization_msgs.msg import Marker

from pirl_ros.adapters import qos
from pirl_ros.profile.profile import Profile

_OPACITY = 0.15


class WorkspaceMarker:
    """Publishes `~/workspace`, the box in which the governor keeps the tool centre.

    A profile that does not name its base frame (`kinematics.frame`) has no marker: nothing could place it.
    """

    def __init__(self, node: Any, profile: Profile) -> None:
        self._marker = fill_workspace(Marker(), profile) if profile.base_frame else None
        self._publisher = node.create_publisher(Marker, "~/workspace", qos.LATCHED)

    def publish(self) -> None:
        """Publish it; call it again: a reader with RViz's default QoS gets nothing older than itself."""
        if self._marker is not None:
            self._publisher.publish(self._marker)


def fill_workspace(marker: Any, profile: Profile) -> Any:
    """Write the profile's workspace into a visualization_msgs/Marker and return it; metres, base frame."""
    box = profile.safety.workspace
    # Stamp 0: at its frame's newest transform.
    marker.header.frame_id, marker.ns, marker.type = profile.base_frame, f"workspace of {profile.robot}", marker.CUBE
    centre = [(low + high) / 2 for low, high in zip(box.low, box.high)]
    size = [high - low for low, high in zip(box.low, box.high)]
    marker.pose.position.x, marker.pose.position.y, marker.pose.position.z = centre
    marker.scale.x, marker.scale.y, marker.scale.z = size
    marker.color.g, marker.color.a = 1.0, _OPACITY
    return marker
