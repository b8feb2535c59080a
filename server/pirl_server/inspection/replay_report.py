"""A replay as text and as JSON.

Shape letters: H horizon, D action.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pirl_server.episodes.schema import Episode
from pirl_server.inspection.chunk_distance import FALSE_DISCOVERY_RATE
from pirl_server.inspection.episode_replay import Replayed
from pirl_server.inspection.replay import Reproduction
from pirl_server.policy.served_policy import Array

MOST_NAMED = 5


def lines(episode: Episode, results: Sequence[Replayed], other: str | None) -> Iterator[str]:
    """Say in lines what a replay found: one decision in detail, several as a table with a summary below."""
    info = episode.info
    yield f"episode {info.id} of {info.robot_id}: '{info.instruction}', {len(episode.calls.step)} decisions"
    if len(results) == 1:
        yield from _one(episode, results[0], other)
        return
    yield from _table(results, other)
    yield from _summary(results, other)


def _one(episode: Episode, result: Replayed, other: str | None) -> Iterator[str]:
    decision = result.decision
    sampling = "with exploration" if decision.explore else "deterministically"
    yield f"decision {decision.call}: version {decision.version}, seed {decision.seed}, drawn {sampling}"
    if result.recorded is not None:
        yield f"  drawn again by {decision.version}: {_said(result.recorded)}"
    yield from (f"  {note}" for note in result.notes)
    if result.other is None:
        return
    yield f"  with version {other} and the same seed: distance {result.same_seed:.4f} {_against(result)}".rstrip()
    yield from _entries(episode, result)


def _entries(episode: Episode, result: Replayed) -> Iterator[str]:
    decision, other = result.decision, result.other
    assert other is not None
    rows = min(len(decision.chunk), len(other))
    apart = np.abs(other[:rows].astype(np.float64) - decision.chunk[:rows])
    names = [f"{entry.name} [{entry.unit}]" for entry in episode.info.contract.action]
    width = max(map(len, names))
    heads = (
        f"{'entry':<{width}}",
        f"{'stored':>9}",
        f"{'other':>9}",
        f"{'executed':>9}",
        "mean diff",
        " max diff",
        "at",
    )
    yield "  " + " ".join(heads)
    first = int(decision.index[0]) if len(decision.index) else result.counted.start
    for column, name in enumerate(names):
        done = f"{decision.executed[0, column]:9.4f}" if len(decision.executed) else f"{'-':>9}"
        at = int(apart[:, column].argmax())
        shown = (decision.chunk[first, column], other[min(first, len(other) - 1), column])
        yield (
            f"  {name:<{width}} {shown[0]:9.4f} {shown[1]:9.4f} {done} {apart[:, column].mean():9.4f}"
            f" {apart[at, column]:9.4f} {at:2d}"
        )
    yield f"  (stored, other and executed: action {first} of the chunk; differences: over {rows} actions)"


def _table(results: Sequence[Replayed], other: str | None) -> Iterator[str]:
    yield f"{'call':>5} {'step':>5}  {'drawn again':<22}" + ("  same seed  between   within      p" if other else "")
    for each in results:
        first = str(each.decision.steps[0]) if len(each.decision.steps) else "-"
        again = "not checked" if each.recorded is None else each.recorded.result
        line = f"{each.decision.call:>5} {first:>5}  {again:<22}"
        if each.same_seed is not None:
            line += f"  {each.same_seed:9.4f}"
        if each.apart is not None:
            mark = " differs" if each.differs else ""
            line += f" {each.apart.between:8.4f} {each.apart.within:8.4f} {each.apart.p:6.3f}{mark}"
        yield line


def _summary(results: Sequence[Replayed], other: str | None) -> Iterator[str]:
    counts = Counter("not checked" if each.recorded is None else each.recorded.result for each in results)
    yield "drawn again: " + ", ".join(f"{count} {result}" for result, count in counts.most_common())
    for note, count in Counter(note for each in results for note in each.notes).most_common():
        if count > 1 or "can't be reproduced" in note:
            yield f"{count} decisions: {note}"
    tested = [each for each in results if each.apart is not None]
    if not tested:
        return
    differ = sorted((each for each in tested if each.differs), key=_excess, reverse=True)
    share = f"{FALSE_DISCOVERY_RATE:.0%} of them may be by chance"
    yield f"version {other} differs by more than its noise in {len(differ)} of {len(tested)} decisions ({share})"
    for each in differ[:MOST_NAMED]:
        step = f"step {each.decision.steps[0]}" if len(each.decision.steps) else "not played"
        yield f"  call {each.decision.call} ({step}): {_against(each)}"


def most_different(results: Sequence[Replayed]) -> list[int]:
    """Return the calls in which the versions differ by more than their noise, the greatest difference first."""
    found = [each for each in results if each.differs]
    return [each.decision.call for each in sorted(found, key=_excess, reverse=True)]


def _excess(each: Replayed) -> float:
    return 0.0 if each.apart is None else each.apart.between - each.apart.within


def _against(each: Replayed) -> str:
    if each.apart is None:
        return ""
    apart = each.apart
    return f"(between versions {apart.between:.4f}, within one by its noise {apart.within:.4f}, p {apart.p:.3f})"


def _said(recorded: Reproduction) -> str:
    match recorded.result:
        case "exact":
            return "reproduced exactly"
        case "rounding":
            return f"reproduced, largest difference {recorded.largest:.1e} in model space (rounding)"
        case _:
            return f"{recorded.result}, largest difference {recorded.largest:.1e} in model space"


def as_json(episode: Episode, results: Sequence[Replayed], other: str | None) -> dict[str, Any]:
    """Return everything as plain values: chunks are lists [H, D] in the units of the contract."""
    return {
        "episode": episode.info.id,
        "instruction": episode.info.instruction,
        "action": [{"name": entry.name, "unit": entry.unit} for entry in episode.info.contract.action],
        "version": other,
        "most_different": most_different(results),
        "decisions": [_decision_json(each) for each in results],
    }


def _decision_json(each: Replayed) -> dict[str, Any]:
    decision, recorded = each.decision, each.recorded
    finite = recorded is not None and np.isfinite(recorded.largest)
    return {
        "call": decision.call,
        "version": decision.version,
        "seed": decision.seed,
        "explore": decision.explore,
        "result": None if recorded is None else recorded.result,
        "largest_difference": recorded.largest if recorded is not None and finite else None,
        "continued": None if decision.overlap is None else vars(decision.overlap),
        "stored_chunk": decision.chunk.tolist(),
        "other_chunk": None if each.other is None else each.other.tolist(),
        "difference": None if each.other is None else _difference(decision.chunk, each.other),
        "steps": decision.steps.tolist(),
        "index": decision.index.tolist(),
        "executed": decision.executed.tolist(),
        "alterations": list(decision.alterations),
        "source": list(decision.source),
        "counted": [each.counted.start, each.counted.stop],
        "same_seed": each.same_seed,
        "between": None if each.apart is None else each.apart.between,
        "within": None if each.apart is None else each.apart.within,
        "p": None if each.apart is None else each.apart.p,
        "differs": each.differs,
        "notes": list(each.notes),
    }


def _difference(first: Array, second: Array) -> list[list[float]]:
    rows = min(len(first), len(second))
    difference: list[list[float]] = (second[:rows].astype(np.float64) - first[:rows]).tolist()
    return difference
