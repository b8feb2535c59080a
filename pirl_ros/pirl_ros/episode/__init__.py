"""One instruction from start to label, and the summary of a session. No ROS."""
