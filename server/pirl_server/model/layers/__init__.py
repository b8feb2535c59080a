"""Transformer layers, independent of a policy."""
