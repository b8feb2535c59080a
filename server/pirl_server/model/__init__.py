"""The pi0 architecture in plain torch: SigLIP and Gemma for the prefix, an action expert that reads its KV cache."""
