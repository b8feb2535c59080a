"""`pirl robot check`: derived quantities of a robot profile, errors and warnings."""
