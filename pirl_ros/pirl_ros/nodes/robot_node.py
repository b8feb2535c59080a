"""policy_node, arm_node and episode_node in one process and one executor, without inter-process messages."""

from __future__ import annotations

from pirl_ros.adapters.node_main import run
from pirl_ros.nodes.arm_node import ArmNode
from pirl_ros.nodes.episode_node import EpisodeNode
from pirl_ros.nodes.policy_node import PolicyNode


def main() -> None:
    """Run the three nodes until a signal."""
    run(PolicyNode, ArmNode, EpisodeNode)
