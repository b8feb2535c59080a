"""Reset seeds by purpose: training never sees an initial state of an evaluation."""

EVALUATION = range(0, 100_000)
"""fixed lists of evaluations start at 0"""
DEMONSTRATION = range(100_000, 200_000)
ROBOT = range(200_000, 300_000)
"""episodes of the (simulated) robot"""
TRAINING = range(1_000_000, 1_000_000_000)
"""a million per training seed"""
SEEDS_PER_WORKER = 100_000


def evaluation_seeds(seed: int) -> range:
    """The fixed list of initial states with this number: 10 000, of which an evaluation takes the first."""
    return _block(EVALUATION, seed, 10_000)


def demonstration_seeds(seed: int) -> range:
    """Reset seeds of one supervised run."""
    return _block(DEMONSTRATION, seed, 1000)


def training_seeds(seed: int) -> range:
    """Reset seeds of one run of online RL."""
    return _block(TRAINING, seed, 10 * SEEDS_PER_WORKER)


def _block(kind: range, seed: int, size: int) -> range:
    """Block number `seed` of a kind. Raises ValueError beyond the last: what follows is kept for other uses."""
    blocks = len(kind) // size
    if not 0 <= seed < blocks:
        raise ValueError(f"seed {seed} must be 0 to {blocks - 1} here: other initial states are reserved")
    return kind[seed * size : (seed + 1) * size]
