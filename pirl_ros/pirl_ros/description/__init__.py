"""A robot's URDF read as the parts of a robot profile. Needs no ROS."""
