"""Configurations as frozen dataclasses. No torch."""
