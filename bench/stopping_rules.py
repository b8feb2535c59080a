"""Could a canary that is worse end sooner, without more false alarms? Stopping rules side by side, exactly.

    python bench/stopping_rules.py [--json]

All rules have the same probability of a false alarm at most, over 200 looks; they share out where it is spent:
the same tail at each look (`registry.sequential_test`, in use), tails that fall or rise with the looks, 100 looks, and
likelihood ratios of versions that are worse by fixed differences against an equal one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from math import lgamma
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from gate_errors import canary, table

from pirl_server.registry.acceptance_test import LOOKS
from pirl_server.registry.gate_rule import GateRule
from pirl_server.registry.sequential_test import false_alarm, limits

Limits = tuple[int, ...]
Known = tuple[int, int]
"""successes and episodes of production"""
ALPHA, NEVER, LEAST = GateRule().alpha, 10**6, 20
CHANGES = (-0.3, -0.2, -0.15, 0.0)


def calibrated(make: Callable[[float], Limits], strictest: Sequence[float], known: Known) -> Limits:
    """Return the laxest of these rules, strictest first, whose false alarms are alpha at most."""
    low, high = 0, len(strictest)
    while low < high:
        middle = (low + high) // 2
        if false_alarm(make(strictest[middle]), *known) <= ALPHA:
            low = middle + 1
        else:
            high = middle
    return make(strictest[low - 1])


def shaped(known: Known, power: float) -> Limits:
    """Tails that are proportional to a power of the look."""

    def make(level: float) -> Limits:
        found = []
        for look in range(1, LOOKS + 1):
            tails = np.cumsum(np.exp([_urn(known, failed, look, ways=True) for failed in range(look + 1)])[::-1])[::-1]
            within = np.flatnonzero(tails <= level * look**power)
            found.append(int(within[0]) if len(within) else look + 1)
        return tuple(found)

    return calibrated(make, np.geomspace(1e-6, 0.9, 40).tolist(), known)


def likelihood_ratio(known: Known, differences: Sequence[float]) -> Limits:
    """A mixture of versions that are worse by these differences, against Polya's urn of an equal one."""
    rates_G = (np.arange(200) + 0.5) / 200
    logs_G = (known[0] - 0.5) * np.log(rates_G) + (known[1] - known[0] - 0.5) * np.log1p(-rates_G)
    weights_G = np.exp(logs_G - logs_G.max()) / np.exp(logs_G - logs_G.max()).sum()
    ratios = []
    for look in range(1, LOOKS + 1):
        failed, chance = np.arange(look + 1), np.zeros(look + 1)
        for difference in differences:
            fails_G1 = np.clip(1.0 - rates_G + difference, 1e-9, 1 - 1e-9)[:, None]
            chance += weights_G @ np.exp(failed * np.log(fails_G1) + (look - failed) * np.log1p(-fails_G1))
        ratios.append(np.log(chance / len(differences)) - [_urn(known, each, look) for each in failed])

    def make(level: float) -> Limits:
        above = (np.flatnonzero(row >= level) for row in ratios)
        return tuple(int(each[0]) if len(each) else NEVER for each in above)

    return calibrated(make, np.linspace(12.0, 0.0, 120).tolist(), known)


def _urn(known: Known, failed: int, look: int, ways: bool = False) -> float:
    """Logarithm of the chance of one sequence with so many failures, or of all such, of an equal version."""
    bad, good = known[1] - known[0] + 0.5, known[0] + 0.5
    found = lgamma(bad + failed) + lgamma(good + look - failed) - lgamma(bad + good + look)
    found -= lgamma(bad) + lgamma(good) - lgamma(bad + good)
    return found + (lgamma(look + 1) - lgamma(failed + 1) - lgamma(look - failed + 1) if ways else 0.0)


def measure() -> list[dict[str, Any]]:
    """One row per rule and record of production."""
    rows = []
    for known in ((45, 50), (40, 50), (25, 50)):
        rules = {
            "same tail": limits(*known, LOOKS, ALPHA), "tail falls, look^-0.5": shaped(known, -0.5),
            "tail rises, look^0.5": shaped(known, 0.5),
            "100 looks": limits(*known, 100, ALPHA) + (NEVER,) * (LOOKS - 100),
            "ratio, 0.15": likelihood_ratio(known, [0.15]),
            "ratio, 0.15 to 0.5": likelihood_ratio(known, [0.15, 0.3, 0.5]),
        }  # fmt: skip
        for name, rejects in rules.items():
            row = {"production": f"{known[0]} of {known[1]}", "rule": name, "false alarm": false_alarm(rejects, *known)}
            for change in CHANGES:
                rate = known[0] / known[1] + change
                row[f"mean episodes, {change:+g}"] = round(canary(known, LEAST, rate, False, rejects)[2], 1)
            rows.append(row)
    return rows


def main() -> None:
    """Measure and print."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one list")
    as_json, rows = parser.parse_args().json, measure()
    print(json.dumps(rows) if as_json else table(rows))


if __name__ == "__main__":
    main()
