"""The robot side: thin ROS 2 nodes over logic that does not import ROS."""
