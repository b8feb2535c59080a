"""Offline RL from robot episodes."""
