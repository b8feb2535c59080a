"""Episodes of robots as they are judged: what a store knows of each, and the gate's evidence from them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

from pirl_server.episodes.step_counts import StepCounts, step_counts
from pirl_server.episodes.store import EpisodeStore
from pirl_server.episodes.summary import EpisodeSummary
from pirl_server.loop.judgement import counts, succeeded
from pirl_server.loop.world import EpisodeFacts
from pirl_server.registry.robot_trial import LEAST_KNOWN, RobotEvidence
from pirl_server.registry.versions import Registry

_LOG = logging.getLogger(__name__)
NO_COUNTS = StepCounts(0, 0, 0, 0, 0)
COMPARED = 100
"""newest episodes of production that a candidate's are compared with"""
LOOKED_AT = 2000
"""newest episodes among which those of both versions are looked for"""


def episode_facts(each: EpisodeSummary, counts: StepCounts, rate_hz: float) -> EpisodeFacts:
    """Say what is judged of an episode."""
    fault = "a fault" if each.end_reason == "fault" else ""
    fault = "an emergency stop" if counts.emergency_stop else fault
    fault = "actions that are not finite" if counts.not_finite else fault
    return EpisodeFacts(
        id=each.id,
        robot_id=each.robot_id,
        version=each.policy_versions[0] if len(each.policy_versions) == 1 else "",
        success=each.success,
        created=each.created,
        seconds=each.steps / rate_hz,
        policy_steps=counts.policy,
        altered_steps=counts.altered,
        human_steps=counts.human,
        fault=fault,
    )


def counts_of(store: EpisodeStore, each: EpisodeSummary) -> StepCounts:
    """Read its steps; zeros for an episode that can't be read, which is logged."""
    try:
        return step_counts(store.root / each.path)
    except (OSError, ValueError, KeyError) as error:
        _LOG.warning("the steps of episode %s can't be read, none of them counts: %s", each.id, error)
        return NO_COUNTS


def robot_evidence(
    registry: Registry, store: EpisodeStore, incumbent: str, candidate: str, instructions: Collection[str] = ()
) -> RobotEvidence | None:
    """Return the labelled outcomes of both versions on arms; None: no robot had the candidate.

    Only episodes with these instructions count; with none given, those that the candidate was tried with. Of production
    the newest count, those of the candidate's own robots alone where there are enough.
    """
    model = registry.get(incumbent)
    newest = [
        each
        for each in islice(store.newest_first(), LOOKED_AT)
        if len(each.policy_versions) == 1 and not each.dry_run and each.contract_hash == model.contract.hash
    ]

    def judged(version: str, said: Collection[str]) -> Iterator[EpisodeFacts]:
        """Newest first; reads the steps of each as it is asked for."""
        wanted = (each for each in newest if each.policy_versions[0] == version and each.instruction in said)
        return filter(counts, (episode_facts(each, counts_of(store, each), model.contract.rate_hz) for each in wanted))

    said = instructions or {each.instruction for each in newest if each.policy_versions[0] == candidate}
    tried = list(judged(candidate, said))[::-1]
    if not tried:
        return None
    known = _known(list(islice(judged(incumbent, said), COMPARED)), {each.robot_id for each in tried})
    return RobotEvidence(sum(map(succeeded, known)), len(known), tuple(map(succeeded, tried)))


def _known(episodes: Sequence[EpisodeFacts], robots: set[str]) -> Sequence[EpisodeFacts]:
    own = [each for each in episodes if each.robot_id in robots]
    return own if len(own) >= LEAST_KNOWN else episodes
