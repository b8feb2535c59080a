"""What a loop sees of the running server, and how its actions are done there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from pirl_server.atomic_files import utc_now
from pirl_server.config.loop import Loop
from pirl_server.episodes.model_outcomes import model_outcome
from pirl_server.episodes.step_counts import StepCounts
from pirl_server.episodes.store import EpisodeStore
from pirl_server.episodes.summary import EpisodeSummary
from pirl_server.jobs.job import DamagedJobError, Job, Status
from pirl_server.jobs.supervisor import Supervisor
from pirl_server.jobs.verdict import RESTARTED, STOPPED
from pirl_server.loop.judgement import counts
from pirl_server.loop.robot_episodes import counts_of, episode_facts
from pirl_server.loop.state import LoopState, Phase
from pirl_server.loop.world import (
    Action,
    CancelChild,
    Child,
    EpisodeFacts,
    Promote,
    RejectedError,
    RollBack,
    StartCanary,
    Submit,
    View,
    Withdraw,
)
from pirl_server.registry.promotion import PRODUCTION, OutdatedAliasError, Promoter
from pirl_server.registry.promotion_gate import Training, check_gate, offline_refusals
from pirl_server.registry.routing_rules import CANDIDATE
from pirl_server.registry.versions import Registry
from pirl_server.serving.deployment import Deployment
from pirl_server.serving.service import PolicyService

_LOG = logging.getLogger(__name__)
EARLIER = 10
"""of the episodes before the loop's begin, so many times as many are looked at as may be compared with"""


class ServerWorld:
    """The world of one loop; see `World`."""

    def __init__(
        self,
        job: str,
        spec: Loop,
        jobs: Supervisor,
        episodes: EpisodeStore,
        registry: Registry,
        promoter: Promoter,
        deployment: Deployment,
        service: PolicyService,
    ) -> None:
        self._actor, self._spec = f"loop {job}", spec
        self._jobs, self._episodes, self._registry = jobs, episodes, registry
        self._promoter, self._deployment, self._service = promoter, deployment, service
        self._paused: Callable[[], bool] = lambda: jobs.hosted.paused(job)
        self._counts: dict[str, StepCounts] = {}
        self._known: dict[str, tuple[str, ...]] = {}
        """by production version, the instructions that its card names"""
        self._gate_saw: tuple[EpisodeFacts, ...] = ()
        self._gate_said = ""

    def view(self, state: LoopState) -> View:
        """Look at aliases, routes, episodes, the child and its evaluations. Raises OSError."""
        aliases, routes = self._registry.aliases(), self._deployment.routes
        production, candidate = aliases[PRODUCTION], aliases.get(CANDIDATE)
        tried = routes.canary_robots or routes.canary_share
        job = self._child(state)
        outcomes, rejection = None, ""
        if state.phase is Phase.EVALUATE_CANDIDATE and job is not None and job.status is Status.SUCCEEDED:
            outcomes, rejection = self._outcomes(state, job), self._rejection(production, state.candidate)
        episodes = tuple(reversed([self._facts(each, rate) for each, rate in self._listed(state, production)]))
        if state.phase is Phase.CANARY and self._spec.evaluation is None:
            rejection = self._by_robots(state, episodes)
        return View(
            now=utc_now(),
            production=production,
            canary=candidate if candidate and candidate == routes.canary_version and tried else "",
            pinned=frozenset(routes.pins),
            episodes=episodes,
            child=self._facts_of(job) if state.child else None,
            outcomes=outcomes,
            rejection=rejection,
            rule=self._promoter.rule,
            not_finite=self._service.dispatcher.not_finite[state.candidate],
            paused=self._paused(),
        )

    def act(self, action: Action) -> str:
        """Do it; see `World`. Raises RejectedError, OSError."""
        try:
            return self._do(action)
        except OSError:
            raise
        except (KeyError, ValueError) as error:
            raise RejectedError(str(error)) from error

    def explore(self, share: float | None) -> None:
        """Set the share of episodes that explore."""
        self._service.exploration.set_share(share)

    def _do(self, action: Action) -> str:
        if isinstance(action, Submit):
            return self._submit(action)
        if isinstance(action, StartCanary):
            self._deployment.canary(action.version, action.robots, 0.0, self._actor, action.reason)
        elif isinstance(action, Withdraw):
            self._deployment.withdraw(action.version, self._actor, action.reason)
        elif isinstance(action, CancelChild):
            with suppress(KeyError, ValueError):  # it has ended
                self._jobs.cancel(action.job)
        elif isinstance(action, Promote) and not self._serves(action.version):
            said = self._instructions(self._registry.aliases()[PRODUCTION])
            self._promoter.promote(action.version, self._actor, action.reason, instructions=said)
        elif isinstance(action, RollBack):
            self._roll_back(action)
        return ""

    def _roll_back(self, action: RollBack) -> None:
        seen = self._registry.state(PRODUCTION)  # before the look: else two who roll back at once go back twice
        if self._serves(action.version):
            try:
                self._promoter.rollback(self._actor, action.reason, expected=seen, insist=True)
            except OutdatedAliasError as error:
                _LOG.warning("%s is not rolled back by the loop: %s", action.version, error)

    def _submit(self, action: Submit) -> str:
        try:
            return self._jobs.submit(action.spec, parent=action.key).id
        except RuntimeError as error:  # the server is stopping: the next one submits it
            raise OSError(str(error)) from None

    def _serves(self, version: str) -> bool:
        return self._registry.aliases().get(PRODUCTION) == version

    def _child(self, state: LoopState) -> Job | None:
        if not state.child:
            return None
        try:
            return self._jobs.get(state.child)
        except (KeyError, DamagedJobError):
            return None

    def _facts_of(self, job: Job | None) -> Child:
        if job is None:
            return Child(ended=True, error="the job can't be read")
        result = job.result or {}
        failed, version = job.status in (Status.FAILED, Status.CANCELLED), result.get("version")
        refusals = offline_refusals(self._registry, version) if version else ()
        return Child(
            ended=job.status.ended,
            version=version,
            error=(job.error or job.status.value) if failed else "",
            interrupted=failed and job.error in (RESTARTED, STOPPED),
            too_few_episodes=failed and bool(result.get("more_episodes_needed")),
            offline=self._offline(version) if version else "",
            model_labels=int((result.get("labels") or {}).get("by_model", 0)),
            offline_refusal="; ".join(refusals),
        )

    def _offline(self, version: str) -> str:
        try:
            return str(self._registry.offline.of(version) or "")
        except ValueError as error:  # it rejects the version
            return str(error)

    def _outcomes(self, state: LoopState, job: Job) -> tuple[tuple[bool, ...], tuple[bool, ...]] | None:
        """Of base and candidate on the list that the job evaluated; None where they were not recorded."""
        found = []
        for version in (state.base, state.candidate):
            listed = {each.list_hash: each.outcomes for each in self._registry.evaluations.of(version)}
            found.append(listed.get((job.result or {}).get("list_hash", ""), ()))
        base, candidate = found
        return (base, candidate) if base and len(base) == len(candidate) else None

    def _rejection(self, production: str, candidate: str) -> str:
        return "; ".join(check_gate(self._registry, production, candidate, self._promoter.rule).refusals)

    def _by_robots(self, state: LoopState, episodes: tuple[EpisodeFacts, ...]) -> str:
        """Why the gate would reject the candidate by robots' episodes; it reads many: again only after a new one."""
        seen = tuple(filter(counts, episodes))
        tried = sum(each.version == state.candidate for each in seen)
        if tried < self._spec.canary.episodes:
            return ""
        if seen != self._gate_saw:
            found = self._promoter.check(state.candidate, self._instructions(state.base))
            self._gate_said, self._gate_saw = "; ".join(found.refusals), seen
        return self._gate_said

    def _listed(self, state: LoopState, production: str) -> Iterator[tuple[EpisodeSummary, float]]:
        """Yield the episodes that concern the loop, newest first, with their rate in Hz."""
        model, instructions = self._registry.get(production), self._instructions(production)
        earlier = found = 0
        for each in self._episodes.newest_first():
            if each.created <= state.started:
                earlier += 1
                if found == self._spec.compared_episodes or earlier > EARLIER * self._spec.compared_episodes:
                    return
            said = not instructions or each.instruction in instructions
            if each.dry_run or each.contract_hash != model.contract.hash or not said:
                continue
            if each.created <= state.started:
                if each.policy_versions != (production,):
                    continue
                found += 1
            yield each, model.contract.rate_hz

    def _instructions(self, production: str) -> tuple[str, ...]:
        """Return the sentences whose episodes count: the spec's, else production's; none where its card names none."""
        if self._spec.instructions:
            return self._spec.instructions
        if production not in self._known:
            try:
                self._known[production] = tuple(sorted(Training.of(self._registry.get(production)).instructions))
            except ValueError as error:  # the gate rejects on such a card, with the reason
                _LOG.warning("%s: episodes of every instruction count", error)
                self._known[production] = ()
        return self._known[production]

    def _facts(self, each: EpisodeSummary, rate_hz: float) -> EpisodeFacts:
        if each.id not in self._counts:
            self._counts[each.id] = counts_of(self._episodes, each)
        facts = episode_facts(each, self._counts[each.id], rate_hz)
        if self._spec.success_model is None or each.success is not None or facts.fault:
            return facts
        try:
            return replace(facts, proposed=model_outcome(self._episodes, each.id, self._spec.success_model))
        except KeyError:  # removed meanwhile
            return facts
