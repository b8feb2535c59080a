"""A served policy: observation to action chunk, with everything RL needs to know about how it was drawn."""
