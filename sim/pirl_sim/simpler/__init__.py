"""SIMPLER as an `Env`."""
