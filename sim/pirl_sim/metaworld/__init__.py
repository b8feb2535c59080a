"""MetaWorld as an `Env`."""
