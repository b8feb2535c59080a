"""The episode store: one immutable Zarr v3 group per episode, published whole or not at all."""
