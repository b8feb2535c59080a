"""The REST API: jobs, episodes, models, health. `create_api` builds it from the parts of the composition root."""
