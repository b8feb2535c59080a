"""Generated from msg/proto/pirl/v1/policy.proto by `make proto`; committed, and compared by a test."""
