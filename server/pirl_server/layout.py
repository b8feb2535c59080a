"""Where things lie below the server's root folder; the server and its job processes agree on it here."""

MODELS = "models"
EPISODES = "episodes"
JOBS = "jobs"
