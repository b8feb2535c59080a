"""The REST API: jobs, episodes, models, health. `create_api` builds it around what the composition root made."""
