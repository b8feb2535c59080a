"""The decisions of an episode drawn again, one result each.

Shape letters: H horizon, D action, M seeds, C calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pirl_contract.schema import ContinuationMethod
from pirl_server.episodes.schema import Episode
from pirl_server.inspection.chunk_distance import Apart, Double, compare, discoveries, distance, entry_scales
from pirl_server.inspection.decision import Decision, decision_of
from pirl_server.inspection.replay import Reproduction, chunks_of_seeds, counterfactual, reproduce
from pirl_server.policy.served_policy import Array, ServedPolicy


@dataclass(frozen=True)
class Replayed:
    """One decision, and what came of drawing it again."""

    decision: Decision
    recorded: Reproduction | None
    """by the version that drew it; None when that was not given"""
    other: Array | None = None
    """[H, D] the other version's chunk from the same seed; its H may be another"""
    counted: range = range(0)
    """the actions that the distances are of: those that would be played, without those that were given"""
    same_seed: float | None = None
    """distance of the stored chunk to `other`"""
    draws: tuple[Double, Double] | None = None
    """[M, H, D] of both versions from other seeds"""
    apart: Apart | None = None
    differs: bool | None = None
    """whether they differ by more than their noise, given how many decisions were compared"""
    notes: tuple[str, ...] = ()


def replay(
    episode: Episode,
    calls: Sequence[int],
    recorded: Mapping[str, ServedPolicy],
    other: ServedPolicy | None,
    seeds: int = 8,
) -> list[Replayed]:
    """Draw these calls again by the versions that drew them, as far as they are given, and by another one.

    `seeds` are drawn of both versions for each decision; with fewer than 2, or without the version that drew it, a
    decision is not tested for a difference. Raises ValueError for a call that the episode does not have.
    """
    scales_D = entry_scales(episode.info.contract, np.asarray(episode.calls.chunk, np.float64))
    results = []
    for call in calls:
        decision = decision_of(episode, call)
        own = recorded.get(decision.version)
        result = Replayed(decision, None if own is None else reproduce(own, decision))
        if other is not None:
            result = _compared(result, own, other, seeds, scales_D, episode.info.execute_horizon)
        results.append(replace(result, notes=_notes(result, other)))
    return _tested(results)


def _compared(
    result: Replayed, own: ServedPolicy | None, other: ServedPolicy, seeds: int, scales_D: Double, execute_horizon: int
) -> Replayed:
    decision = result.decision
    method = _method(result, other)
    explore = decision.explore if result.recorded is None else result.recorded.explore
    chunk = counterfactual(other, decision, method, explore)
    given = decision.overlap.delay if method is not None and decision.overlap is not None else 0
    counted = range(given, min(len(chunk), len(decision.chunk), given + execute_horizon))
    rows = slice(counted.start, counted.stop)
    draws = apart = None
    if own is not None and seeds > 1:
        first = chunks_of_seeds(own, decision, range(seeds), _method(result, own))
        second = chunks_of_seeds(other, decision, range(seeds, 2 * seeds), method)
        draws, apart = (first, second), compare(first[:, rows], second[:, rows], scales_D)
    apart_by = distance(decision.chunk[rows].astype(np.float64), chunk[rows].astype(np.float64), scales_D)
    return replace(result, other=chunk, counted=counted, same_seed=apart_by, draws=draws, apart=apart)


def _method(result: Replayed, policy: ServedPolicy) -> ContinuationMethod | None:
    """How a policy continues the chunk that was found: as it was proved, else as it seems, if it supports that."""
    methods = result.decision.methods(policy)
    if result.recorded is None or not result.recorded.same:
        return methods[0]
    return result.recorded.method if result.recorded.method in methods else methods[0]


def _tested(results: list[Replayed]) -> list[Replayed]:
    p = [each.apart.p for each in results if each.apart is not None]
    counting = iter(discoveries(p))
    return [each if each.apart is None else replace(each, differs=next(counting)) for each in results]


def _notes(result: Replayed, other: ServedPolicy | None) -> tuple[str, ...]:
    decision, notes = result.decision, []
    overlap = decision.overlap
    if result.recorded is None:
        notes.append(f"version {decision.version}, which drew it, could not be loaded: not checked")
    if overlap is not None and (result.recorded is None or result.recorded.method is not None):
        proved = result.recorded is not None and result.recorded.same
        how = f"RTC, {result.recorded.method}" if proved and result.recorded else "RTC, which could not be checked"
        notes.append(
            f"continued call {overlap.call} from its action {overlap.offset} on, {overlap.delay} given ({how})"
        )
    if decision.lost_continuation:
        notes.append(
            "continued a chunk (RTC) that this episode does not hold: the previous actions are not stored, so the chunk"
            " can't be reproduced; drawn without them here"
        )
    if other is not None and overlap is not None and not other.continuations:
        notes.append(f"version {other.version} supports no continuation: drawn without one")
    if other is not None and other.horizon != len(decision.chunk):
        notes.append(f"version {other.version} has horizon {other.horizon}, the stored chunk {len(decision.chunk)}")
    altered = sum(bool(names) for names in decision.alterations)
    if altered:
        kinds = sorted({kind for names in decision.alterations for kind in names.split("+") if kind})
        notes.append(f"{altered} of {len(decision.steps)} executed steps were altered: {', '.join(kinds)}")
    if others := sorted({source for source in decision.source if source != "policy"}):
        notes.append(f"steps not driven by the policy: {', '.join(others)}")
    if not len(decision.steps):
        notes.append("no step played it")
    return tuple(notes)
