"""LIBERO as an `Env`."""
