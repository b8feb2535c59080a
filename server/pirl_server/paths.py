"""Where things lie below the server's root folder; the server and its job processes agree on it here."""

MODELS = "models"
EPISODES = "episodes"
JOBS = "jobs"
TOKENS = "tokens.json"
"""who may speak to the server; without it nobody is asked, and only this machine may"""
