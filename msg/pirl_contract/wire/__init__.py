"""The gRPC wire: messages, images, transports and their errors."""
