"""One stored policy call with what is needed to draw it again, and the chunk that it continued, as far as it is known.

The store keeps what each call saw, its seed and its result. What a robot asked to be continued (real-time chunking)
is not stored, but most of it can be found again: a continued chunk begins with the very numbers of an earlier one, so
both say where in it the arm was. The method is not found: each that the policy offers is tried. Whether all of that is
right shows when the version that was recorded draws the chunk once more (`replay.reproduce`).

Shape letters: H horizon, D action, A the model's action width, K denoise steps, n steps that played the chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Alteration, ControlSource, Observation, PreviousChunk
from pirl_contract.schema import ContinuationMethod
from pirl_server.episodes.schema import Episode
from pirl_server.policy.served_policy import Array, PolicyRequest, ServedPolicy

MAX_CHUNKS_BACK = 4
"""earlier chunks that are searched: those in between arrived late and were never played"""


@dataclass(frozen=True)
class Overlap:
    """Where a chunk continues an earlier one: its first `delay` actions are those of call `call` from `offset` on."""

    call: int
    offset: int
    delay: int


@dataclass(frozen=True)
class Decision:
    """One stored policy call."""

    call: int
    observation: Observation
    explore: bool
    seed: int
    version: str
    chunk: Array
    """[H, D] as stored"""
    chain: Array
    """[K+1, H, A] as stored; [0, H, A] where the chunk comes from a recording of ROS topics"""
    steps: NDArray[np.int64]
    """[n] the episode's steps that played it"""
    index: NDArray[np.int64]
    """[n] which of its actions each step played"""
    executed: Array
    """[n, D] what these steps really did"""
    alterations: tuple[str, ...]
    """[n] names of the bits of each step, joined by a plus sign; empty where the action was played as drawn"""
    source: tuple[str, ...]
    """[n] policy, human or hold"""
    overlap: Overlap | None
    """the earlier chunk that it continued, as found in the episode"""
    previous: Array | None
    """[H-offset, D] the rest of that chunk, which the robot asked to be continued"""
    marked_continued: bool
    """whether the store says that some of its actions were drawn to continue another chunk"""

    @property
    def lost_continuation(self) -> bool:
        """Whether it continued a chunk that this episode does not hold, so that it can't be drawn again."""
        return self.marked_continued and self.overlap is None

    def methods(self, policy: ServedPolicy) -> tuple[ContinuationMethod | None, ...]:
        """How a policy may draw it: the ways to continue the chunk that was found, the cheaper first; None: plainly."""
        if self.overlap is None:
            return (None,)
        known: tuple[ContinuationMethod, ...] = ("prefix", "guided")
        return (*(each for each in known if each in policy.continuations), None)

    def request(self, seed: int, explore: bool, method: ContinuationMethod | None = None) -> PolicyRequest:
        """The request that was made, with this seed and method; None: nothing is continued."""
        if method is None:
            return PolicyRequest(self.observation, explore, seed)
        assert self.overlap is not None
        assert self.previous is not None
        return PolicyRequest(self.observation, explore, seed, PreviousChunk(self.previous, self.overlap.delay, method))


def decision_of(episode: Episode, call: int) -> Decision:
    """Return one decision of an episode. Raises ValueError for a call that it does not have, or that no policy drew."""
    calls, steps, info = episode.calls, episode.steps, episode.info
    if not 0 <= call < len(calls.step):
        raise ValueError(f"call {call} of episode {info.id}: it has {len(calls.step)}, counted from 0")
    if calls.policy_version[call] < 0:
        raise ValueError(f"call {call} of episode {info.id} is an observation of a demonstration: no policy drew it")
    played = np.flatnonzero(steps.call == call)
    # without a capture time the policy does not compare the state with its statistics once more
    observation = Observation(
        {name: np.asarray(images[call]) for name, images in calls.images.items()},
        np.asarray(calls.state[call]),
        info.instruction,
        info.robot_id,
    )
    overlap = find_overlap([np.asarray(calls.chunk[earlier]) for earlier in range(call + 1)])
    return Decision(
        call=call,
        observation=observation,
        explore=bool(calls.sde_index[call] >= 0),
        seed=int(calls.seed[call]),
        version=info.policy_versions[int(calls.policy_version[call])],
        chunk=np.asarray(calls.chunk[call]),
        chain=np.asarray(calls.chain[call]),
        steps=played,
        index=steps.index[played].astype(np.int64),
        executed=np.asarray(steps.executed[played]),
        alterations=tuple(names_of(int(bits)) for bits in steps.alterations[played]),
        source=tuple(ControlSource(int(source)).name.lower() for source in steps.source[played]),
        overlap=overlap,
        previous=None if overlap is None else np.asarray(calls.chunk[overlap.call])[overlap.offset :],
        marked_continued=bool((steps.alterations[played] & np.uint32(Alteration.CONTINUED)).any()),
    )


def find_overlap(chunks: Sequence[Array]) -> Overlap | None:
    """Find the earlier chunk that the last of these continues; all are [H, D], in the order of their calls.

    The longest run of actions that are equal bit by bit; of equally long ones that of the newest chunk.
    """
    chunk, best = chunks[-1], None
    for call in range(len(chunks) - 2, max(-1, len(chunks) - 2 - MAX_CHUNKS_BACK), -1):
        for offset in range(len(chunks[call])):
            delay = _equal_rows(chunk, chunks[call][offset:])
            if delay > (0 if best is None else best.delay):
                best = Overlap(call, offset, delay)
    return best


def names_of(bits: int) -> str:
    """Return the names of an alteration's bits in lower case, joined by a plus sign; empty for none."""
    return "+".join(str(each.name).lower() for each in Alteration if each and bits & each)


def _equal_rows(first: Array, second: Array) -> int:
    """How many leading rows of both are equal."""
    most = min(len(first), len(second))
    unequal = np.flatnonzero((first[:most] != second[:most]).any(axis=1))
    return int(unequal[0]) if len(unequal) else most
