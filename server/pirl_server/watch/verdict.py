"""Is a promoted version worse than the one before it? A pure function of what was seen of both.

Each sign has a least number of observations and a limit that two versions of equal quality do not reach by chance: the
sequential test on outcomes keeps its alpha over all its looks, the others are differences no healthy pair shows.
"""

from __future__ import annotations

from pirl_server.registry.sequential_test import chance_of_so_many, limits
from pirl_server.watch.signs import Agreement, Live, Outcomes, Signs

ALPHA, LOOKS = 0.0002, 30
"""of the outcomes of the watch: highest probability that an equal version is taken back, and its labelled episodes"""
FIRST, FIRST_ALPHA = 3, 0.0001
"""so many failures at the very beginning are enough where an equal version shows them as rarely"""
MIN_ERRORS, ERROR_SHARE = 3, 0.05
MIN_STEPS, ALTERED_FACTOR, ALTERED_MARGIN = 40, 2.0, 0.1
ALTERED_ALPHA, STEPS_AT_ONCE = 1e-6, 10
"""of each look; steps in a row are altered together, so that so many count as one"""
SLOWER, SLOWER_MS = 3.0, 20.0
MIN_COMPARED = 12
UNRELATED, OPPOSITE, AWAY = 0.1, -0.5, -0.3
FROZEN, WILD, SHIFTED = 0.2, 3.0, 6.0


def verdict(signs: Signs) -> str:
    """Return why the version must be taken back, with numbers; empty: nothing speaks against it so far."""
    return (
        _not_finite(signs.new, signs.old)
        or _errors(signs.new, signs.old)
        or _failures(signs.outcomes)
        or _altered(signs.new, signs.old)
        or _slow(signs)
        or _chunks(signs.agreement, signs.old)
        or _ways(signs.ways, signs.old)
    )


def _not_finite(new: Live, old: Live) -> str:
    if new.not_finite and not old.not_finite:
        return f"{new.not_finite} of its {new.requests} chunks were not finite, none of the version before"
    return ""


def _errors(new: Live, old: Live) -> str:
    share, before = new.errors / max(1, new.requests), old.errors / max(1, old.requests)
    if new.errors >= MIN_ERRORS and share > 2.0 * before + ERROR_SHARE:
        return f"{new.errors} of its {new.requests} requests failed, {before:.0%} of those of the version before"
    return ""


def _failures(outcomes: Outcomes) -> str:
    if not outcomes.known:
        return ""
    bad = outcomes.known - outcomes.known_successes
    known = f"{bad} of {outcomes.known} of the version before"
    began_with_failures = len(outcomes.tried) >= FIRST and not any(outcomes.tried[:FIRST])
    if began_with_failures and chance_of_so_many(FIRST, FIRST, bad, outcomes.known) <= FIRST_ALPHA:
        return f"its first {FIRST} episodes failed, {known}"
    failures_at, failed = limits(outcomes.known_successes, outcomes.known, LOOKS, ALPHA), 0
    for seen, (success, limit) in enumerate(zip(outcomes.tried, failures_at), 1):
        failed += not success
        if failed >= limit:
            return f"{failed} of its first {seen} episodes failed, {known}"
    return ""


def _altered(new: Live, old: Live) -> str:
    if new.steps < MIN_STEPS:
        return ""
    share, before = new.altered / new.steps, old.altered / max(1, old.steps)
    if share <= ALTERED_FACTOR * before + ALTERED_MARGIN:
        return ""
    blocks = [round(each / STEPS_AT_ONCE) for each in (new.altered, new.steps, old.altered, old.steps)]
    if chance_of_so_many(*blocks) > ALTERED_ALPHA:
        return ""
    return f"{share:.0%} of its {new.steps} steps were altered by the robot's limits, {before:.0%} before"


def _slow(signs: Signs) -> str:
    new, old = signs.new, signs.old
    for which, mine, before, now in (
        ("half", new.typical_ms, old.typical_ms, signs.old_typical_ms_now),
        ("one in five", new.slow_ms, old.slow_ms, signs.old_slow_ms_now),
    ):
        usual = before if now is None else now
        if mine is None or usual is None:
            continue
        margin = SLOWER_MS if now is not None else 5.0 * SLOWER_MS  # without it the machine may have become slow
        if mine > SLOWER * usual + margin:
            return f"{which} of its chunks take {mine:.0f} ms or more, {usual:.0f} ms those of the version before"
    return ""


def _chunks(found: Agreement, old: Live) -> str:
    if not _comparable(found, old):
        return ""
    seen = _seen(found)
    if found.spread < FROZEN:
        return f"its chunks hardly move, {found.spread:.2f} times as far as those of the version before, {seen}"
    if found.spread > WILD:
        return f"its chunks move {found.spread:.1f} times as far as those of the version before, {seen}"
    if found.correlation < UNRELATED:
        return f"its chunks are unrelated to those of the version before, correlation {found.correlation:.2f}, {seen}"
    if found.least_correlation < OPPOSITE:
        return f"an action has the opposite sign, correlation {found.least_correlation:.2f}, {seen}"
    if found.largest_shift > SHIFTED:
        return f"an action is shifted by {found.largest_shift:.1f} times its spread, {seen}"
    return ""


def _ways(found: Agreement, old: Live) -> str:
    if not _comparable(found, old):
        return ""
    if found.spread < FROZEN:
        return (
            f"its chunks lead nowhere, {found.spread:.2f} times as far as those of the version before, {_seen(found)}"
        )
    if found.correlation < AWAY:
        return f"its chunks lead away, correlation {found.correlation:.2f} with the version before, {_seen(found)}"
    return ""


def _comparable(found: Agreement, old: Live) -> bool:
    """Whether there is enough to see, and the version before is an example to compare with."""
    bad = old.not_finite or (old.steps >= MIN_STEPS and old.altered > old.steps / 2)
    return found.compared >= MIN_COMPARED and found.moves and not bad


def _seen(found: Agreement) -> str:
    return f"over {found.compared} requests that both answered"
