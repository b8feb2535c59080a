"""Which reset seeds belong to what: training never sees an initial state that a reported success rate is taken on."""

EVALUATION = range(0, 100_000)
"""fixed lists of evaluations start at 0"""
DEMONSTRATION = range(100_000, 200_000)
ROBOT = range(200_000, 300_000)
"""episodes of the (simulated) robot"""
TRAINING = range(1_000_000, 1_000_000_000)
"""a million per training seed, one hundred thousand per worker"""
