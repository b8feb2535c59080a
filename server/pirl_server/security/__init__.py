"""Authentication, authorisation, limits, certificates and audit of all callers."""
