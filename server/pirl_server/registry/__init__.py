"""Models: immutable versions, aliases that point at them, evaluations, the promotion gate and the audit log."""
