"""When to request inference, and the session with the server. No ROS."""
