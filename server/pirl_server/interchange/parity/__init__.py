"""Compares the model with recorded numbers of another implementation."""
