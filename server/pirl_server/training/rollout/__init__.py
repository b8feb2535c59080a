"""Rollouts in simulation: explorer, collector, workers."""
