"""What surrounds each gRPC call: interceptor, call tracker, denial."""
