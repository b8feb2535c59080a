"""Paths below the server's root folder, shared by the server and its job processes."""

MODELS = "models"
CACHE = "cache"
"""what can be made again: may be removed while no server runs"""
EPISODES = "episodes"
JOBS = "jobs"
TOKENS = "tokens.json"
"""access tokens; without the file no token is required, on loopback only"""
