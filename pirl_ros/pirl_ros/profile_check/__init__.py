"""`pirl robot check`: what follows from a profile, and what looks wrong in it."""
