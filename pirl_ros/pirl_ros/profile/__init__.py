"""One robot as a YAML file."""
