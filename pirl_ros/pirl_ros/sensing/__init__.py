"""From sensor messages to synchronised observations. No ROS.

Shape letters: J joints, S state.
"""
