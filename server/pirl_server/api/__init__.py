"""The REST API: jobs, episodes, models, health. `create_api` builds it around what the composition root made."""

from pirl_server.api.application import create_api

__all__ = ["create_api"]
