"""Stop trajectory: from any joint motion to rest, as positions that are all checked before anything moves.

Everything is counted in control periods, so that limits hold on what is really sent: with position p_k,
v_k = p_k - p_{k-1} (rad per period), a_k = v_k - v_{k-1}, j_k = a_k - a_{k-1}. J = joints, N = periods until rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SLACK = 1.0 + 1e-9
"""rounding of a quotient that is compared with the limit it was made from"""
_TRIES = 3
"""lengths of the first part that are tried"""


def stop_from(p: Array, v: Array, a: Array, acceleration: Array, jerk: Array) -> tuple[Array, Mask]:
    """Return the positions [N, J] that follow `p` until rest, and for which joints [J] they keep both limits.

    Per joint: the acceleration goes in a straight line to -b, stays there, and goes in a straight line to 0. The three
    counts of periods are whole numbers; b then follows from the velocity that has to vanish.
    """
    counts, peak, kept = _profile(v, a, acceleration, jerk)
    first, held, last = counts
    total = int((first + held + last).max()) - 1
    if total <= 1:
        return p[None], kept
    step = np.arange(1.0, total + 1.0)[:, None]
    rising = a + (peak - a) * np.minimum(step / first, 1.0)
    falling = peak * np.minimum(np.maximum((step - first - held) / last, 0.0), 1.0)
    positions: Array = p + (v + (rising - falling).cumsum(axis=0)).cumsum(axis=0)
    return positions, kept


def _profile(v: Array, a: Array, acceleration: Array, jerk: Array) -> tuple[tuple[Array, Array, Array], Array, Mask]:
    """Periods [J] of the three parts, peak acceleration [J] with its sign, and whether both limits are kept [J].

    The counts come from the time-optimal stop of the continuous triple integrator, of which the sums here are samples
    at velocity v + a/2, and are rounded up; of three lengths of the first part the shortest that works is taken.
    """
    after = v + a * (0.5 + np.abs(a) / (2 * jerk))
    sign = np.where(after < 0, -1.0, 1.0)
    speed, pull = sign * v, sign * a
    best = np.minimum(np.sqrt(np.maximum(jerk * (speed + pull / 2) + pull**2 / 2, 0.0)), acceleration)
    last = np.maximum(np.ceil(best / jerk), 1.0)
    shortest = first = np.maximum(np.ceil(np.abs(pull + best) / jerk), 1.0)
    for more in range(1, _TRIES + 1):
        lost = speed + pull * (first - 1) / 2
        ramps = (first + last) / 2
        held = np.maximum(np.ceil(lost / np.maximum(best, 1e-300) - ramps), 0.0)
        needed = lost / (ramps + held)
        size = np.abs(needed)
        kept = (size <= acceleration * _SLACK) & (
            np.maximum(size / last, np.abs(needed + pull) / first) <= jerk * _SLACK
        )
        if kept.all() or more == _TRIES:
            break
        first = np.where(kept, first, shortest + more)
    return (first, held, last), -sign * needed, kept
