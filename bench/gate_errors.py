"""How often does the promotion gate decide wrongly, and how many initial states does a user need?

    python bench/gate_errors.py [--quick] [--loops] [--json] [--write docs/results/gate.md]

Pairs of outcomes are drawn and judged by the functions that the server calls; beside each simulated rate stands the
exact one, from the binomial and trinomial laws. `counts` is the rule before: at least as many successes on one list.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

from pirl_server.registry.acceptance_test import (
    LOOKS,
    crossing,
    expected_more,
    hopeless,
    more_successes,
    most_failures,
)
from pirl_server.registry.gate_rule import USUAL_RULE, GateRule
from pirl_server.registry.margin_test import p_worse_by, pass_probability, states_needed
from pirl_server.registry.robot_trial import RobotEvidence, judge_robots
from pirl_server.registry.sequential_test import limits

STATES, CHANGES, SHARES = (50, 100, 200, 400), (-0.09, -0.05, 0.0, 0.05, 0.09), (0.1, 0.2, 0.3)
RULE = USUAL_RULE
Row = dict[str, Any]


def counts_exact(states: int, change: float, changing: float) -> float:
    """P(at least as many successes): of `changed` ones at most half are losses."""
    loses = (1 - change / changing) / 2
    changed = np.arange(states + 1)
    return float(binom.pmf(changed, states, changing) @ binom.cdf(changed // 2, changed, loses))


def draw(
    rng: np.random.Generator, states: int, change: float, changing: float, draws: int
) -> Iterator[tuple[int, int]]:
    """Gained and lost states of so many comparisons."""
    gains, loses = (changing + change) / 2, (changing - change) / 2
    for gained, lost, _ in rng.multinomial(states, (gains, loses, max(0.0, 1 - gains - loses)), draws):
        yield int(gained), int(lost)


def lists(draws: int) -> list[Row]:
    """Error rates and power on initial states."""
    rows, rng = [], np.random.default_rng(0)
    for states in STATES:
        for changing in SHARES:
            for change in CHANGES:
                drawn = list(draw(rng, states, change, changing, draws))
                passed = [p_worse_by(RULE.margin, states, *each) <= RULE.alpha for each in drawn]
                rows.append(
                    {
                        "states": states, "changing": changing, "change": change,
                        "counts simulated": float(np.mean([gained >= lost for gained, lost in drawn])),
                        "counts exact": counts_exact(states, change, changing),
                        "gate simulated": float(np.mean(passed)),
                        "gate exact": pass_probability(RULE.margin, states, RULE.alpha, change, changing),
                    }
                )  # fmt: skip
    return rows


def second_look(draws: int) -> list[Row]:
    """A candidate that is rejected on the first list and judged once more on an extended one."""
    rows, rng = [], np.random.default_rng(1)
    for first, more in ((100, 400), (200, 200), (400, 400)):
        passed = 0
        early = list(draw(rng, first, -RULE.margin, 0.2, draws))
        late = list(draw(rng, more, -RULE.margin, 0.2, draws))
        for (gained, lost), (gains, losses) in zip(early, late):
            once = p_worse_by(RULE.margin, first, gained, lost) <= RULE.alpha
            passed += once or p_worse_by(RULE.margin, first + more, gained + gains, lost + losses) <= RULE.alpha
        rows.append({"states": first, "then": first + more, "passes": passed / draws})
    return rows


def needed() -> list[Row]:
    """List lengths for a power of 0.8, and the exact power there."""
    rows = []
    for margin in (0.03, 0.05, 0.1):
        for changing in SHARES:
            count = states_needed(margin, RULE.alpha, changing)
            power = pass_probability(margin, count, RULE.alpha, 0.0, changing)
            rows.append({"margin": margin, "changing": changing, "states": count, "power": power})
    return rows


def robots(draws: int) -> list[Row]:
    """The sequential test on labelled episodes."""
    rows, rng, rule = [], np.random.default_rng(2), GateRule()
    for known, rate in ((50, 0.9), (50, 0.8), (100, 0.8)):
        for change in (-0.3, -rule.robot_margin, 0.0, 0.05):
            accepted, lengths = 0, []
            for _ in range(draws):
                successes = int(rng.binomial(known, rate))
                tried = tuple(map(bool, rng.random(200) < rate + change))
                trial = judge_robots(RobotEvidence(successes, known, tried), rule)
                accepted += trial.accepted
                if trial.accepted:
                    most = most_failures(successes, known, rule.robot_margin, rule.alpha)
                    failed = np.cumsum(~np.array(tried))
                    lengths.append(1 + int(np.argmax(failed <= np.array(most))))
            most = most_failures(round(known * rate), known, rule.robot_margin, rule.alpha)
            exact = float(crossing(most, np.array([1 - rate - change]), np.ones(1))[-1])
            rows.append(
                {
                    "production": f"{round(known * rate)} of {known}", "change": change, "accepted": accepted / draws,
                    "exact, production as observed": exact, "median episodes": float(np.median(lengths or [np.nan])),
                    "least": more_successes(most, 0, 0), "expected": expected_more(most, 0, 0, rate),
                }
            )  # fmt: skip
    return rows


def loops() -> list[Row]:
    """A loop's canary without a simulator, exactly: promoted by the robots' gate, once it had its least episodes."""
    rows = []
    for known, least in (((40, 50), 20), ((40, 50), 50), ((45, 50), 20), ((25, 50), 20), ((16, 20), 20)):
        rate = known[0] / known[1]
        for change in (-0.3, -0.2, -0.15, -0.1, 0.0, 0.1):
            now, to_the_end = (canary(known, least, min(rate + change, 0.99), gives_up) for gives_up in (True, False))
            row: Row = {"production": f"{known[0]} of {known[1]}", "canary": least, "change": change}
            row |= {"promoted": now[0], "worse": now[1], "mean episodes": round(now[2], 1)}
            row |= {"promoted, to the end": to_the_end[0], "mean episodes, to the end": round(to_the_end[2], 1)}
            rows.append(row)
    return rows


def canary(
    known: tuple[int, int], least: int, rate: float, gives_up: bool, rejects: tuple[int, ...] = ()
) -> tuple[float, float, float]:
    """The probability to be promoted and to be ended as worse, and the mean number of episodes.

    `rejects` are numbers of failures that end the trial, in place of those of the gate.
    """
    rule, (successes, count) = GateRule(), known
    accepts = most_failures(successes, count, rule.robot_margin, rule.alpha)
    rejects, worse = rejects or limits(successes, count, LOOKS, rule.alpha), limits(successes, count, least, rule.alpha)
    alive, promoted, ended_as_worse, length = {(0, False): 1.0}, 0.0, 0.0, 0.0
    for seen in range(1, LOOKS + 1):
        length += sum(alive.values())
        after: dict[tuple[int, bool], float] = {}
        for (before, accepted), weight in alive.items():
            for more, chance in ((1, 1.0 - rate), (0, rate)):
                failed, mass = before + more, weight * chance
                passed = accepted or failed <= accepts[seen - 1]
                bad = (seen <= least and failed >= worse[seen - 1]) or (not passed and failed >= rejects[seen - 1])
                ended_as_worse += mass * bad
                given_up = gives_up and hopeless(accepts, seen, failed, successes / count)
                if bad or (not passed and (failed > accepts[-1] or given_up)):
                    continue
                if passed and seen >= least:
                    promoted += mass * (1.0 - failed / seen >= successes / count)
                else:
                    after[failed, passed] = after.get((failed, passed), 0.0) + mass
        alive = after
    return promoted, ended_as_worse, length


def table(rows: list[Row], digits: int = 3) -> str:
    """Markdown."""

    def cell(value: Any) -> str:
        return f"{value:.{digits}g}" if isinstance(value, float) else str(value)

    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(cell(row[name]) for name in head) + " |" for row in rows)])


PAGE = """# How often the promotion gate decides wrongly

Made by `python bench/gate_errors.py --write docs/results/gate.md`. Margin {margin:g}, alpha {alpha:g}; {draws} draws.

## On initial states

A candidate whose success rate differs by `change`, where a share `changing` of the states changes sides. `counts` is
the rule before: at least as many successes on one list. On 50 states it let a candidate that is 5 points worse through
in {before} of the cases; the paired test does in {after}.

{lists}

Judged once more after a rejection, on the same list extended: a candidate that is worse by the margin, a fifth of the
states changing. This is why a list serves a candidate {uses} times and no more.

{second}

## How many states

For an equal version to pass in four of five cases. `power` is exact.

{needed}

## On robots

Labelled episodes of a candidate against production's; margin {robot_margin:g}, at most 200 episodes. `least`: episodes
until it is accepted if all succeed; `expected`: until a version as good as production is every other time, both at the
start.

{robots}
"""
LOOPS = """
## A loop without a simulator

`canary`: least episodes; `change`: of the true success rate from that of production as observed; `worse`: ended because
failures reached the limit of the sequential test, for an equal version a false alarm; `mean episodes`: of a canary,
however it ends, if no budget ends it before. `to the end`: without giving up what is hopeless
(`registry.acceptance_test.hopeless`). Exact.

{loops}
"""


def page(found: dict[str, list[Row]], draws: int) -> str:
    """The results as a page."""
    short = [row for row in found["lists"] if row["states"] == 50 and row["change"] == -0.05]
    before, after = ([row[name] for row in short] for name in ("counts exact", "gate exact"))
    return PAGE.format(
        margin=RULE.margin, alpha=RULE.alpha, draws=draws, uses=2, robot_margin=RULE.robot_margin,
        before=f"{min(before):.0%} to {max(before):.0%}", after=f"{min(after):.1%} to {max(after):.1%}",
        lists=table(found["lists"]), second=table(found["second look"]), needed=table(found["states needed"]),
        robots=table(found["robots"]),
    ) + LOOPS.format(loops=table(found["loops"]))  # fmt: skip


def main() -> None:
    """Measure and print."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the draws")
    parser.add_argument("--json", action="store_true", help="one object")
    parser.add_argument("--loops", action="store_true", help="the last part alone, which is exact; renews it in PAGE")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options = parser.parse_args()
    if options.loops:
        rows = loops()
        if options.write:
            before, _, _ = options.write.read_text().partition(LOOPS.partition("{loops}")[0].splitlines()[1])
            options.write.write_text(before.rstrip("\n") + "\n" + LOOPS.format(loops=table(rows)))
        print(json.dumps(rows) if options.json else table(rows))
        return
    draws = 60 if options.quick else 500
    found = {
        "lists": lists(draws), "second look": second_look(draws), "states needed": needed(),
        "robots": robots(draws // 4), "loops": loops(),
    }  # fmt: skip
    if options.write:
        options.write.write_text(page(found, draws))
    print(json.dumps(found) if options.json else "\n\n".join(f"{name}\n{table(rows)}" for name, rows in found.items()))


if __name__ == "__main__":
    main()
