"""`pirl demo`: the whole product once, with real processes: server, simulated robot over ROS 2, RL job, promotion."""
