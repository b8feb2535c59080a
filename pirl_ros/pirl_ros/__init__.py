"""The robot side: thin ROS 2 nodes over logic that knows no ROS (convert, sync, chunk_buffer, kinematics, safety)."""
