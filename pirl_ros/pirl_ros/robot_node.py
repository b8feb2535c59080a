"""policy_node, arm_node and episode_node in one process and one executor: no message of theirs crosses a process."""

from __future__ import annotations

from pirl_ros.arm_node import ArmNode
from pirl_ros.episode_node import EpisodeNode
from pirl_ros.policy_node import PolicyNode
from pirl_ros.running import run


def main() -> None:
    """Run the three nodes until a signal."""
    run(PolicyNode, ArmNode, EpisodeNode)
