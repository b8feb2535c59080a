"""From chunks and teleop commands to limited joint commands. No ROS.

Shape letters: J joints, D action dimensions.
"""
