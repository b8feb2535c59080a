"""Supervised flow matching."""
