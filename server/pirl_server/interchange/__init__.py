"""Checkpoints of openpi and lerobot in and out: what they bring is data, and what is not understood is refused."""
