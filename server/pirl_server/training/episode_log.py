"""A log of episodes that is read one episode at a time, and what is known of each after one pass.

Shape letters: T steps of an episode, C its calls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import overload

import numpy as np

from pirl_contract import ControlSource
from pirl_server.episodes.loader import table_bytes
from pirl_server.episodes.prefetch import prefetched
from pirl_server.episodes.schema import PIXELS_KEY, Episode, EpisodeInfo
from pirl_server.episodes.step_masks import masked_steps
from pirl_server.training.episode_targets import TAKEOVER_MARGIN_S, takeovers
from pirl_server.training.progress import Progress

NOT_EXECUTED = "in a dry run no action reaches the arm; launch the robot with dry_run:=false"


class MoreEpisodesNeededError(ValueError):
    """There is not enough to learn from, or to compare: further episodes would help."""


@dataclass(frozen=True)
class EpisodeFacts:
    """What can be said of an episode without opening it again. Steps are control steps."""

    info: EpisodeInfo
    explored: bool
    """some call left a density"""
    steps: int
    masked: dict[str, int]
    """why steps are no targets -> how many"""
    human_steps: int
    """targets that a human drove"""
    takeovers: int
    steps_before_takeover: int
    """targets of the policy in the last 2 s before one"""
    decisions: int
    """calls whose chunk was played"""
    densities: int
    """of them, with a log-density that can be recomputed; none where a codec changed the images"""
    repeated_states: int
    """steps after which exactly the state before was recorded, though the arm was moved"""
    digest: str = ""
    """SHA-256 of the stored manifest, which names that of every file; empty for an episode that is not in a store"""

    @property
    def targets(self) -> int:
        """Steps that may be learnt."""
        return self.steps - sum(self.masked.values())

    @property
    def labelled(self) -> bool:
        """Whether it is known how it ended."""
        return self.info.success is not None

    @property
    def created(self) -> datetime:
        """When it was published."""
        return datetime.fromisoformat(self.info.created)


def facts(episode: Episode, digest: str = "") -> EpisodeFacts:
    """Count an episode's steps and decisions."""
    steps, masked = episode.steps, masked_steps(episode.steps)
    target_T = ~np.logical_or.reduce(list(masked.values()))
    policys_T = target_T & (steps.source == int(ControlSource.POLICY))
    margin = int(TAKEOVER_MARGIN_S * episode.info.contract.rate_hz)
    taken, before_T = takeovers(episode), np.zeros(len(target_T), np.bool_)
    for each in taken:
        before_T[max(0, each - margin) : each] = True
    played_C = episode.calls.step >= 0
    changed = PIXELS_KEY in episode.info.metadata
    moved_T = target_T & np.any(steps.executed != 0.0, axis=1)
    return EpisodeFacts(
        info=episode.info,
        explored=episode.sampler != "ode",
        steps=len(target_T),
        masked={why: int(which.sum()) for why, which in masked.items() if which.any()},
        human_steps=int((target_T & (steps.source == int(ControlSource.HUMAN))).sum()),
        takeovers=len(taken),
        steps_before_takeover=int((policys_T & before_T).sum()),
        decisions=int(played_C.sum()),
        densities=0 if changed else int((played_C & (episode.calls.sde_index >= 0)).sum()),
        repeated_states=int((moved_T[1:] & np.all(steps.state[1:] == steps.state[:-1], axis=1)).sum()),
        digest=digest,
    )


class EpisodeLog(Sequence[Episode]):
    """Episodes in a given order; each access opens one, and none is kept.

    Iterating opens the next ones ahead, in threads, within the budget of `episodes.prefetch`.
    """

    def __init__(self, facts: Sequence[EpisodeFacts], openers: Sequence[Callable[[], Episode]]) -> None:
        self.facts = tuple(facts)
        self._openers = tuple(openers)
        assert len(self.facts) == len(self._openers)

    @classmethod
    def of(cls, episodes: Iterable[Episode]) -> EpisodeLog:
        """The same when it is one, else of episodes that are in memory."""
        if isinstance(episodes, cls):
            return episodes
        found = list(episodes)
        return cls([facts(each) for each in found], [lambda each=each: each for each in found])  # type: ignore[misc]

    def where(self, keep: Callable[[EpisodeFacts], bool]) -> EpisodeLog:
        """Those for which it holds. Opens none."""
        pairs = [pair for pair in zip(self.facts, self._openers) if keep(pair[0])]
        return EpisodeLog([fact for fact, _ in pairs], [opener for _, opener in pairs])

    def __len__(self) -> int:
        return len(self.facts)

    def __iter__(self) -> Iterator[Episode]:
        return prefetched(zip((each.steps for each in self.facts), self._openers), table_bytes)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> EpisodeLog: ...
    def __getitem__(self, index: int | slice) -> Episode | EpisodeLog:
        if isinstance(index, slice):
            return EpisodeLog(self.facts[index], self._openers[index])
        return self._openers[index]()

    @property
    def digest(self) -> str:
        """SHA-256 over the sorted lines `ID MANIFEST-SHA256 LABEL`: which episodes, with which content and outcomes."""
        lines = sorted(f"{each.info.id} {each.digest} {each.info.success}\n" for each in self.facts)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def lineage(self) -> dict[str, str]:
        """Return what a checkpoint's lineage says of them."""
        days = sorted(each.info.created for each in self.facts)
        return {
            "episodes": str(len(self)),
            "episodes_sha256": self.digest,
            "episodes_created": f"{days[0]} to {days[-1]}" if days else "",
        }


def experience(log: EpisodeLog, progress: Progress) -> EpisodeLog:
    """Return the episodes in which actions reached an arm, and report how many did not.

    Raises ValueError when there are dry runs only.
    """
    kept = log.where(lambda each: not each.info.dry_run)
    dry_runs = len(log) - len(kept)
    if dry_runs and not kept:
        raise ValueError(f"no training data: each of {dry_runs} episodes is a dry run: {NOT_EXECUTED}")
    report_dry_runs(dry_runs, len(kept), progress)
    return kept


def report_dry_runs(dry_runs: int, kept: int, progress: Progress) -> None:
    """Report how many episodes were left out because nothing was executed; nothing where there are none."""
    if dry_runs:
        progress.metrics(dry_runs_left_out=float(dry_runs))
        progress.progress(kept, kept, f"{dry_runs} of {dry_runs + kept} episodes left out: {NOT_EXECUTED}")
