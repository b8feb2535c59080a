"""From sensor messages to synchronised observations. No ROS."""
