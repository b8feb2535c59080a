"""What labelled episodes of robots say of a candidate against the version in production: a gate without a simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pirl_server.registry.acceptance_test import BETTER, LOOKS, expected_more, hopeless, more_successes, most_failures
from pirl_server.registry.gate_rule import GateRule
from pirl_server.registry.sequential_test import limits

LEAST_KNOWN = 20
"""labelled episodes of production before anything can be compared with them"""


@dataclass(frozen=True)
class RobotEvidence:
    """Labelled outcomes of both versions on robots, as of now."""

    successes: int
    """of the version in production"""
    episodes: int
    """of the version in production"""
    outcomes: tuple[bool, ...]
    """of the candidate, by time"""


@dataclass(frozen=True)
class RobotTrial:
    """Where the trial stands, and how many more episodes it takes."""

    evidence: RobotEvidence
    margin: float
    alpha: float
    accepted: bool
    rejected: bool
    """the candidate is worse, whatever follows"""
    more_successes: int | None
    """in a row, until it is accepted; None: it is not going to be, or not enough is known of production"""
    more_expected: int | None
    """until a version as good as production is accepted every other time; None: it takes more than there are looks"""
    known_missing: int = 0
    """labelled episodes of production that are missing"""
    hopeless: bool = False
    """a version that is a little better than production would hardly be accepted any more: a loop gives it up"""

    @property
    def over(self) -> bool:
        """Whether no further episode of the candidate changes it."""
        return not self.known_missing and self.more_successes is None

    def __str__(self) -> str:
        known, tried = self.evidence, self.evidence.outcomes
        seen = (
            f"{sum(tried)} of {len(tried)} labelled episodes of the candidate succeeded,"
            f" {known.successes} of {known.episodes} of production"
        )
        if self.known_missing:
            return f"{seen}: production needs {self.known_missing} more labelled episodes to compare with"
        if self.rejected:
            return f"{seen}: it is worse"
        if self.accepted:
            return f"{seen}: not worse by {self.margin:g}, alpha {self.alpha:g}"
        if self.more_successes is None:
            return f"{seen}: after {LOOKS} episodes it can't be shown any more that it is not worse by {self.margin:g}"
        if self.hopeless:
            return (
                f"{seen}: not even a version that succeeds by {BETTER:g} more often than production is likely to be"
                f" shown as not worse by {self.margin:g} any more, {self.more_successes} in a row would be needed"
            )
        likely = (
            "" if self.more_expected is None else f", about {self.more_expected} for a version as good as production"
        )
        return (
            f"{seen}: to show that it is not worse by {self.margin:g} (alpha {self.alpha:g}) it needs"
            f" {self.more_successes} more if all succeed{likely}"
        )


def judge_robots(evidence: RobotEvidence, rule: GateRule) -> RobotTrial:
    """Apply both sequential tests to the candidate's episodes, one after the other: the first that decides is final."""
    missing = max(0, LEAST_KNOWN - evidence.episodes)
    if missing:
        return RobotTrial(evidence, rule.robot_margin, rule.alpha, False, False, None, None, missing)
    accepts = most_failures(evidence.successes, evidence.episodes, rule.robot_margin, rule.alpha)
    rejects = limits(evidence.successes, evidence.episodes, LOOKS, rule.alpha)
    verdict = _first(evidence.outcomes, accepts, rejects)
    seen, failed = len(evidence.outcomes), len(evidence.outcomes) - sum(evidence.outcomes)
    rate = evidence.successes / evidence.episodes
    return RobotTrial(
        evidence,
        rule.robot_margin,
        rule.alpha,
        accepted=verdict == "accepted",
        rejected=verdict == "rejected",
        more_successes=None if verdict else more_successes(accepts, seen, failed),
        more_expected=None if verdict else expected_more(accepts, seen, failed, rate),
        hopeless=not verdict and hopeless(accepts, seen, failed, rate),
    )


def _first(outcomes: Sequence[bool], accepts: Sequence[int], rejects: Sequence[int]) -> str:
    failed = 0
    for success, most, least in zip(outcomes, accepts, rejects):
        failed += not success
        if failed <= most:
            return "accepted"
        if failed >= least:
            return "rejected"
    return ""
