"""What touches rclpy: executors, topics, services, actions, controllers.

Shape letters: J joints.
"""
