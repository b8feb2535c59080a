"""The episode store: one immutable Zarr v3 group per episode, published atomically."""
