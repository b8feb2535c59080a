"""The GPU machine: policy service, episode store, training, jobs, registry. `app` alone builds the world."""
