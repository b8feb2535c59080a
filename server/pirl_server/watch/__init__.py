"""Watches a version after its promotion and takes it back when it is worse."""
