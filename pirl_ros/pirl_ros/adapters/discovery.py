"""Matched publishers and subscribers of a topic: messages sent before the match are lost."""

from __future__ import annotations

from typing import Any

from pirl_ros.profile.sections import Command


def matched_publishers(node: Any, subscription: Any) -> int:
    """Return how many publishers a subscription is matched with."""
    if hasattr(subscription, "get_publisher_count"):
        return int(subscription.get_publisher_count())
    return int(node.count_publishers(subscription.topic_name))  # Humble knows only who is there


def matched_subscribers(node: Any, publisher: Any) -> list[str]:
    """Return the full names of the nodes that a publisher's topic goes to, each once."""
    ends = node.get_subscriptions_info_by_topic(publisher.topic_name)
    return sorted({f"{end.node_namespace.rstrip('/')}/{end.node_name}" for end in ends})


def missing_controller(node: Any, command: Command) -> str:
    """Return why nothing takes the arm's commands; '' when a controller does."""
    if command.kind == "follow_joint_trajectory":
        # The graph names an action by its services.
        wanted = node.resolve_topic_name(f"{command.topic}/_action/send_goal")
        present = any(name == wanted for name, _ in node.get_service_names_and_types())
    else:
        present = node.count_subscribers(command.topic) > 0
    return "" if present else f"no controller takes commands on {command.topic}: is it loaded and active?"
