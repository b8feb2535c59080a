"""What touches rclpy: executors, topics, services, actions, controllers."""
