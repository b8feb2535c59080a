"""A stored decision drawn again: by the version that drew it, to see that it is reproduced, and by another one.

With the same version, seed and machine a decision comes out bit for bit, if its robot had no company in the batch. In a
batch of another size, or with another number of threads, the sums within the network are added in another order:
`ROUNDING` bounds what that changes. Another machine may differ as much; a GPU more.

Shape letters: H horizon, D action, M seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pirl_contract.schema import ContinuationMethod
from pirl_server.inspection.decision import Decision
from pirl_server.policy.served_policy import BATCH_SIZES, Array, PolicyRequest, PolicySample, ServedPolicy

ROUNDING = 1e-4
"""largest difference of a chain (model space, where actions are about 1) that counts as the same draw"""
Result = Literal["exact", "rounding", "different", "unknown continuation"]


@dataclass(frozen=True)
class Reproduction:
    """What came of drawing a decision again by the version that drew it."""

    result: Result
    largest: float
    """of the differences between both chains, in model space, or between the chunks, in the contract's units, where no
    chain is stored; infinite where they have other shapes"""
    method: ContinuationMethod | None
    """how the chunk found in the episode was continued for it; None: it was drawn plainly"""
    explore: bool
    """whether it was drawn with exploration for it"""

    @property
    def same(self) -> bool:
        """Whether it is the stored draw."""
        return self.result in ("exact", "rounding")


def draw(policy: ServedPolicy, requests: Sequence[PolicyRequest]) -> list[PolicySample]:
    """Draw these, at most so many at once as the policy takes. Raises ValueError, the first one's."""
    samples: list[PolicySample] = []
    for start in range(0, len(requests), BATCH_SIZES[-1]):
        for drawn in policy.sample_batch(requests[start : start + BATCH_SIZES[-1]]):
            if isinstance(drawn, ValueError):
                raise drawn
            samples.append(drawn)
    return samples


def reproduce(policy: ServedPolicy, decision: Decision) -> Reproduction:
    """Draw a decision again by the version that drew it.

    A chunk that seems to continue another one is tried that way first, then plainly: equal numbers may be chance. One
    from a recording of ROS topics has no chain, and whether it explored is not known: both is tried.
    """
    found: list[Reproduction] = []
    explored = (decision.explore,) if len(decision.chain) else (False, True)
    for method, explore in product(decision.methods(policy), explored):
        found.append(_attempt(policy, decision, method, explore))
        if found[-1].same:
            return found[-1]
    best = min(found, key=lambda each: each.largest)
    return replace(best, result="unknown continuation") if decision.lost_continuation else best


def _attempt(
    policy: ServedPolicy, decision: Decision, method: ContinuationMethod | None, explore: bool
) -> Reproduction:
    (sample,) = draw(policy, [decision.request(decision.seed, explore, method)])
    pairs = [(sample.chain, decision.chain)] if len(decision.chain) else []
    pairs.append((sample.actions, decision.chunk))
    if any(drawn.shape != stored.shape for drawn, stored in pairs):
        return Reproduction("different", float("inf"), method, explore)
    largest = float(np.abs(pairs[0][0].astype(np.float64) - pairs[0][1]).max())
    exact = all(np.array_equal(drawn, stored) for drawn, stored in pairs)
    result: Result = "exact" if exact else "rounding" if largest <= ROUNDING else "different"
    return Reproduction(result, largest, method, explore)


def counterfactual(policy: ServedPolicy, decision: Decision, method: ContinuationMethod | None, explore: bool) -> Array:
    """Return the chunk [H, D] that a version would have answered with, with the stored seed."""
    (sample,) = draw(policy, [decision.request(decision.seed, explore, method)])
    return sample.actions


def chunks_of_seeds(
    policy: ServedPolicy, decision: Decision, seeds: Sequence[int], method: ContinuationMethod | None
) -> NDArray[np.float64]:
    """Return chunks [M, H, D] that a version draws deterministically from M seeds: what its noise alone changes."""
    requests = [decision.request(seed, False, method) for seed in seeds]
    return np.stack([sample.actions for sample in draw(policy, requests)]).astype(np.float64)
