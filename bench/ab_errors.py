"""How long does a blinded comparison take, and how often is its verdict wrong?

    python bench/ab_errors.py [--quick] [--json] [--write docs/results/ab.md]

Pairs of outcomes are drawn with known success rates and judged, after each pair, by the function that the server calls.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pirl_server.registry.ab_test import judge

RATES = ((0.9, 0.3), (0.9, 0.6), (0.9, 0.75), (0.8, 0.65), (0.95, 0.95), (0.8, 0.8), (0.5, 0.5))
MARGIN, ALPHA, MAX_PAIRS = 0.15, 0.05, 150
PAGE = """# How long a blinded comparison takes, and how often it errs

Made by `python bench/ab_errors.py --write docs/results/ab.md`: {runs} trials per row, margin {margin}, alpha {alpha},
at most {pairs} pairs, looked at after each. Wrong is a better version that is not, and `equal` where the versions
differ by the margin or more.

{table}
"""


def measure(runs: int) -> list[dict[str, Any]]:
    """One row per pair of success rates."""
    rows, rng = [], np.random.default_rng(0)
    for first, second in RATES:
        verdicts, pairs = Counter[str](), list[int]()
        for _ in range(runs):
            drawn = zip(rng.random(MAX_PAIRS) < first, rng.random(MAX_PAIRS) < second)
            found = judge([(bool(a), bool(b)) for a, b in drawn], MARGIN, ALPHA)
            verdicts[found.verdict or "undecided"] += 1
            pairs.append(found.pairs)
        different = first - second >= MARGIN - 1e-9
        wrong = (
            verdicts["second"] + (verdicts["equal"] if different else 0) + (verdicts["first"] if first == second else 0)
        )
        rows.append(
            {
                "first": first, "second": second, "first is better": verdicts["first"] / runs,
                "equal": verdicts["equal"] / runs, "undecided": verdicts["undecided"] / runs, "wrong": wrong / runs,
                "pairs, median": float(np.median(pairs)), "pairs, 90 %": float(np.quantile(pairs, 0.9)),
            }
        )  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(f"{row[name]:g}" for name in head) + " |" for row in rows)])


def main() -> None:
    """Measure and print."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the trials")
    parser.add_argument("--json", action="store_true", help="one list")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options = parser.parse_args()
    runs = 50 if options.quick else 500
    rows = measure(runs)
    if options.write:
        options.write.write_text(PAGE.format(runs=runs, margin=MARGIN, alpha=ALPHA, pairs=MAX_PAIRS, table=table(rows)))
    print(json.dumps(rows) if options.json else table(rows))


if __name__ == "__main__":
    main()
