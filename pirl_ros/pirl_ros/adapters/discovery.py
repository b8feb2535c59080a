"""Matched publishers and subscribers of a topic: messages sent before the match are lost."""

from __future__ import annotations

from typing import Any


def matched_publishers(node: Any, subscription: Any) -> int:
    """Return how many publishers a subscription is matched with."""
    if hasattr(subscription, "get_publisher_count"):
        return int(subscription.get_publisher_count())
    return int(node.count_publishers(subscription.topic_name))  # Humble knows only who is there


def matched_subscribers(node: Any, publisher: Any) -> list[str]:
    """Return the full names of the nodes that a publisher's topic goes to, each once."""
    ends = node.get_subscriptions_info_by_topic(publisher.topic_name)
    return sorted({f"{end.node_namespace.rstrip('/')}/{end.node_name}" for end in ends})
