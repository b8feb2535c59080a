"""Wilson's score interval for a success rate.

Edwin B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
"""

from __future__ import annotations

import math

Z_95 = 1.959963984540054
"""two-sided 95 % quantile of the normal distribution"""


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Return (low, high): the rates p with |successes/trials - p| <= z sqrt(p (1 - p) / trials).

    Raises ValueError when the successes are not within the trials, or there are no trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials is not a rate")
    rate, shrink = successes / trials, z * z / trials
    centre = (rate + shrink / 2) / (1 + shrink)
    half = z / (1 + shrink) * math.sqrt(rate * (1 - rate) / trials + shrink / (4 * trials))
    # at 0 and at all successes the bound is exact; rounding must not leave [0, 1]
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return low, high
