"""Episodes from recordings of ROS 2 (rosbag2: MCAP or SQLite) and to MCAP files."""
