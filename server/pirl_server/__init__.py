"""The GPU machine: policy service, episode store, training, jobs, registry. `app` builds the server."""
