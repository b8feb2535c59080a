"""ROS messages to and from the contract's values, duck-typed: no rclpy."""
