"""The thread that ends a blinded comparison when its pairs decide, and what begins and stops one."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from pirl_server.atomic_files import utc_now
from pirl_server.episodes.step_counts import StepCounts
from pirl_server.episodes.store import EpisodeStore
from pirl_server.episodes.summary import EpisodeSummary
from pirl_server.loop.judgement import counts, faulty, succeeded
from pirl_server.loop.robot_episodes import LOOKED_AT, counts_of, episode_facts
from pirl_server.loop.world import EpisodeFacts
from pirl_server.registry.ab_test import AbResult, judge
from pirl_server.registry.ab_trials import AbEpisode, AbTrial, AbTrials, Status, new_id
from pirl_server.registry.promotion import PRODUCTION
from pirl_server.registry.versions import Registry
from pirl_server.serving.deployment import Deployment
from pirl_server.serving.infer_handler import BLINDED

_LOG = logging.getLogger(__name__)
LOOK_S = 1.0


@dataclass(frozen=True)
class AbPlan:
    """What a caller wants to compare."""

    first: str
    second: str
    robots: tuple[str, ...]
    max_pairs: int
    margin: float
    alpha: float


class AbRunner:
    """One trial at a time; every method may be called from any thread. A restarted server continues its trial."""

    def __init__(self, registry: Registry, deployment: Deployment, store: EpisodeStore, trials: AbTrials) -> None:
        self._registry, self._deployment, self._store, self.trials = registry, deployment, store, trials
        self._lock, self._closing = threading.RLock(), threading.Event()
        self._counts: dict[str, StepCounts] = {}
        self.running: AbTrial | None = None
        self._over: tuple[Status, str] | None = None
        """how the running one ends, where the disk could not take its end yet: its robots follow production again"""
        self._resume()
        self._thread = threading.Thread(target=self._work, name="ab trial", daemon=True)
        self._thread.start()

    def begin(self, plan: AbPlan, actor: str, reason: str, force: bool) -> AbTrial:
        """Let the robots get both versions in turn from their next episodes on.

        Raises KeyError for an unknown version, ValueError for a plan that can't be carried out now,
        PromotionRefusedError for a version beyond the trial limit, OSError.
        """
        with self._lock:
            if self.running is not None:
                raise ValueError(f"trial {self.running.id} runs: stop it first, or wait for its end")
            self._check(plan)
            production = self._registry.aliases()[PRODUCTION]
            trial = AbTrial(
                new_id(), plan.first, plan.second, plan.robots, secrets.token_hex(16), plan.max_pairs, plan.margin,
                plan.alpha, utc_now(), actor, reason, production,
            )  # fmt: skip
            self._deployment.try_out(trial, force)
            try:
                self.trials.put(trial)
                self._registry.audit_log.write("ab trial", actor, reason=reason, **_said(trial))
            except OSError:
                self._deployment.end_trial()
                raise
            self.running = trial
            return trial

    def stop(self, id_: str, actor: str, reason: str) -> AbTrial:
        """End a trial: its robots get production from their next episodes on. Raises KeyError, ValueError, OSError."""
        with self._lock:
            trial = self.trials.get(id_)
            if self.running is None or self.running.id != id_:
                raise ValueError(f"trial {id_} has ended")
            return self._end(trial, "stopped", f"stopped by {actor}: {reason}" if reason else f"stopped by {actor}")

    def progress(self, trial: AbTrial) -> tuple[int, int]:
        """Return how many labelled episodes and pairs there are."""
        if not trial.running:
            return len(trial.episodes), 0 if trial.result is None else trial.result.pairs
        episodes, _ = self._episodes(trial)
        return len(episodes), len(_pairs(trial, episodes))

    def shown(self, summary: EpisodeSummary) -> EpisodeSummary:
        """Return an episode's summary without its version while that must not be seen."""
        trial = self.running
        if trial is None or summary.robot_id not in trial.robots or summary.created <= trial.created:
            return summary
        if not {trial.first, trial.second}.issuperset(summary.policy_versions):
            return summary
        return replace(summary, policy_versions=(BLINDED,) * len(summary.policy_versions))

    def close(self) -> None:
        """Look no more; the trial continues with the next server."""
        self._closing.set()
        self._thread.join()

    def _check(self, plan: AbPlan) -> None:
        for version in (plan.first, plan.second):
            self._registry.get(version)
        if plan.first == plan.second:
            raise ValueError(f"{plan.first} can't be compared with itself: name two versions")
        if pinned := sorted(set(plan.robots) & set(self._deployment.routes.pins)):
            raise ValueError(f"pinned robots stay on their version: unpin {', '.join(pinned)} first")

    def _resume(self) -> None:
        for trial in (each for each in self.trials.list()[0] if each.running):
            self.running = trial
            try:
                self._check_production(trial)
                self._deployment.try_out(replace(trial, reason=trial.reason or "it ran before the restart"), force=True)
            except (KeyError, ValueError, OSError) as error:
                _LOG.error("trial %s can't continue: %s", trial.id, error)
                self._over = "stopped", f"after a restart: {error}"
            return

    def _work(self) -> None:
        while not self._closing.wait(LOOK_S):
            try:
                with self._lock:
                    if self.running is not None:
                        self._look(self.running)
            except Exception:
                _LOG.exception("the trial can't be looked at, tried again in %g s", LOOK_S)

    def _check_production(self, trial: AbTrial) -> None:
        if (production := self._registry.aliases().get(PRODUCTION)) != trial.production:
            raise ValueError(f"production is {production} now")

    def _look(self, trial: AbTrial) -> None:
        if self._over is not None:
            self._end(trial, *self._over)
            return
        try:
            self._check_production(trial)
        except ValueError as error:
            self._end(trial, "stopped", str(error))
            return
        if self._deployment.trial is None:
            self._end(trial, "stopped", "one of its versions was recalled")
            return
        episodes, facts = self._episodes(trial)
        if bad := faulty((each for each in facts if each.version != trial.production), 0):
            self._end(trial, "stopped", bad, [each for each in (trial.first, trial.second) if each != trial.production])
            return
        found = judge(_pairs(trial, episodes), trial.margin, trial.alpha)
        if found.verdict:
            self._end(trial, "decided", _verdict(trial, found))
        elif found.pairs >= trial.max_pairs:
            self._end(trial, "undecided", f"{found.pairs} pairs do not decide")

    def _end(self, trial: AbTrial, status: Status, note: str, recalled: Sequence[str] = ()) -> AbTrial:
        self._over = status, note
        self._deployment.end_trial(recalled)  # first: a full disk must not keep robots on a version
        episodes, _ = self._episodes(trial)
        found = judge(_pairs(trial, episodes), trial.margin, trial.alpha)
        ended = replace(trial, status=status, ended=utc_now(), note=note, result=found, episodes=tuple(episodes))
        evidence = {key: str(value) for key, value in asdict(found).items()}
        self._registry.audit_log.write("ab trial ended", trial.actor, reason=note, **_said(ended), **evidence)
        self.trials.put(ended)
        self.running = self._over = None
        return ended

    def _episodes(self, trial: AbTrial) -> tuple[list[AbEpisode], list[EpisodeFacts]]:
        """Episodes with an outcome, and all of them, by time."""
        facts = list[EpisodeFacts]()
        for seen, each in enumerate(self._store.newest_first()):
            if seen >= LOOKED_AT or each.created <= trial.created:
                break
            tried = each.policy_versions in ((trial.first,), (trial.second,))
            if not tried or each.dry_run or each.robot_id not in trial.robots:
                continue
            if each.id not in self._counts:
                self._counts[each.id] = counts_of(self._store, each)
            facts.append(episode_facts(each, self._counts[each.id], 1.0))
        facts.reverse()
        judged = [AbEpisode(each.id, each.robot_id, each.version, succeeded(each)) for each in facts if counts(each)]
        return judged, facts


def _pairs(trial: AbTrial, episodes: Sequence[AbEpisode]) -> list[tuple[bool, bool]]:
    """Each robot's n-th episode of one version with its n-th of the other, in the order in which pairs are complete."""
    waiting: dict[tuple[str, str], list[bool]] = defaultdict(list)
    pairs = list[tuple[bool, bool]]()
    for each in episodes:
        other = trial.second if each.version == trial.first else trial.first
        if there := waiting[each.robot_id, other]:
            outcome = there.pop(0)
            pairs.append((each.success, outcome) if each.version == trial.first else (outcome, each.success))
        else:
            waiting[each.robot_id, each.version].append(each.success)
    return pairs[: trial.max_pairs]


def _verdict(trial: AbTrial, found: AbResult) -> str:
    counts = f"{trial.first} {found.first} and {trial.second} {found.second} successes in {found.pairs} pairs"
    if found.verdict == "equal":
        return f"they differ by less than {trial.margin:g}: {counts}, p {found.p_equal:.3g}"
    better, p = (trial.first, found.p_first) if found.verdict == "first" else (trial.second, found.p_second)
    return f"{better} is better: {counts}, p {p:.3g}"


def _said(trial: AbTrial) -> dict[str, str]:
    return {"trial": trial.id, "versions": f"{trial.first} {trial.second}", "robots": " ".join(trial.robots)}
