"""Ways to learn from logged episodes, one per file."""
