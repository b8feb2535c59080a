"""The policy service: one thread owns the device, gRPC threads wait for it, a recorder writes the episodes."""
