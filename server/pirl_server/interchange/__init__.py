"""Checkpoints of openpi and lerobot in and out, read as data; unknown content is rejected."""
