"""`pirl robot check`: what follows from a profile, and what looks wrong in it.

Shape letters: J joints.
"""
