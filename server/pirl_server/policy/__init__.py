"""A served policy: observation to action chunk, with all that RL needs about the sample."""
