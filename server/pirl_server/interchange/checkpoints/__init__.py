"""Checkpoints of openpi and lerobot, in and out."""
