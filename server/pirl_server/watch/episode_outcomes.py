"""Labelled episodes of a promoted version and of the one before it, as the watch counts them."""

from __future__ import annotations

from collections.abc import Iterator

from pirl_server.episodes.step_counts import StepCounts
from pirl_server.episodes.store import EpisodeStore
from pirl_server.loop.judgement import counts, succeeded
from pirl_server.loop.robot_episodes import COMPARED, LOOKED_AT, counts_of, episode_facts
from pirl_server.loop.world import EpisodeFacts
from pirl_server.watch.signs import Outcomes
from pirl_server.watch.state import WatchState


class EpisodeOutcomes:
    """Reads the steps of each episode once. Used by one thread."""

    def __init__(self, store: EpisodeStore) -> None:
        self._store = store
        self._counts: dict[str, StepCounts] = {}

    def known(self, version: str) -> tuple[int, int]:
        """Return successes and number of the newest labelled episodes of a version."""
        found = list[bool]()
        for facts in self._of(version, ""):
            found.append(succeeded(facts))
            if len(found) == COMPARED:
                break
        return sum(found), len(found)

    def since(self, state: WatchState) -> Outcomes:
        """Return what the promoted version has done since its promotion."""
        tried = [succeeded(facts) for facts in self._of(state.version, state.since)]
        return Outcomes(state.known_successes, state.known, tuple(reversed(tried)))

    def _of(self, version: str, since: str) -> Iterator[EpisodeFacts]:
        """Yield those on arms that say how well the policy does, newest first."""
        for seen, each in enumerate(self._store.newest_first()):
            if seen >= LOOKED_AT or each.created <= since:
                return
            if each.policy_versions != (version,) or each.dry_run:
                continue
            if each.id not in self._counts:
                self._counts[each.id] = counts_of(self._store, each)
            facts = episode_facts(each, self._counts[each.id], 1.0)
            if counts(facts):
                yield facts
