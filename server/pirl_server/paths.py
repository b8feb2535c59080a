"""Paths below the server's root folder, shared by the server and its job processes."""

MODELS = "models"
EPISODES = "episodes"
JOBS = "jobs"
TOKENS = "tokens.json"
"""who may speak to the server; without it nobody is asked, and only this machine may"""
