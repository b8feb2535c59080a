"""Paths below the server's root folder, shared by the server and its job processes."""

MODELS = "models"
EPISODES = "episodes"
JOBS = "jobs"
SUCCESS_MODELS = "success_models"
TOKENS = "tokens.json"
"""access tokens; without the file no token is required, on loopback only"""
