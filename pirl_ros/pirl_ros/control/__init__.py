"""From chunks and teleop commands to limited joint commands. No ROS."""
