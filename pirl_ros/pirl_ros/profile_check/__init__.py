"""`pirl robot check`: derived quantities of a robot profile, errors and warnings.

Shape letters: J joints.
"""
