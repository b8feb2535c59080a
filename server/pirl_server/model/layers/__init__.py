"""Transformer layers that know no policy."""
