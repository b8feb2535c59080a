"""Which episodes a success model learns from, how they are split, and their last observations, a few at a time."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Contract, Observation
from pirl_server.config.success import SuccessModel
from pirl_server.episodes.datasets import Frozen, content_hash
from pirl_server.episodes.index_rows import EpisodeEntry
from pirl_server.episodes.leases import Lease
from pirl_server.episodes.prefetch import prefetched
from pirl_server.episodes.query import DRY_RUN, OTHER_CONTRACT
from pirl_server.episodes.store import EpisodeStore

UNLABELLED, BY_CLASSIFIER, NO_FINAL = "unlabelled", "labelled by a classifier", "without a final observation"
CLASSIFIER = "classifier"
AT_ONCE = 16
"""episodes whose images are encoded together"""
Reason = str
Opened = tuple[Frozen, "Final | Reason"]


@dataclass(frozen=True)
class Final:
    """How one episode looked at its end."""

    observation: Observation
    contract: Contract
    dry_run: bool


@dataclass(frozen=True)
class Frames:
    """Last observations of N episodes with the same cameras."""

    ids: tuple[str, ...]
    images: dict[str, NDArray[np.uint8]]
    """by camera [N, height, width, 3]"""
    state: NDArray[np.float32]
    """[N, S]"""
    instructions: tuple[str, ...]


@dataclass
class Chosen:
    """What a job learns from; `left_out` and `used` are complete when all were read."""

    frozen: tuple[Frozen, ...]
    left_out: Counter[Reason]
    lease: Lease
    used: list[Frozen] = field(default_factory=list)
    contract: Contract | None = None

    @property
    def sha256(self) -> str:
        """Over the lines `ID MANIFEST-SHA256 LABEL` of those that were used."""
        return content_hash(self.used)


def choose(store: EpisodeStore, spec: SuccessModel) -> Chosen:
    """Choose the labelled episodes, newest first. Raises ValueError for a dataset that is unknown or can't be read."""
    lease = store.leases.take()
    if spec.dataset is not None:
        try:
            listed = store.datasets.get(spec.dataset).episodes
        except KeyError:
            names = ", ".join(store.datasets.names()) or "none"
            raise ValueError(f"no dataset '{spec.dataset}': there are {names}") from None
        reasons = ((each, "" if each.success is not None else UNLABELLED) for each in listed)
    else:
        reasons = ((frozen_of(each), _fault(each, spec)) for each in store.select(spec.select))
    left_out = Counter[Reason]()
    frozen = tuple(islice(without_faults(reasons, left_out), spec.select.limit))
    lease.set(each.id for each in frozen)
    return Chosen(frozen, left_out, lease)


def frozen_of(entry: EpisodeEntry) -> Frozen:
    """Return an entry of the index as it is now: its content and its label."""
    said = entry.summary
    return Frozen(said.id, entry.digest, said.success, said.label_source, said.created)


def without_faults(reasons: Iterable[tuple[Frozen, Reason]], left_out: Counter[Reason]) -> Iterator[Frozen]:
    """Yield the episodes with which nothing is wrong, and count the others."""
    for frozen, why in reasons:
        if why:
            left_out[why] += 1
        else:
            yield frozen


def frames(store: EpisodeStore, chosen: Chosen) -> Iterator[Frames]:
    """Read the last observations of all that have one and are of the robot of the first of them, `AT_ONCE` at a time.

    Counts the others as left out.
    """
    found = _usable(chosen, read(store, chosen.frozen))
    while some := list(islice(found, AT_ONCE)):
        yield stacked(some)


def read(store: EpisodeStore, frozen: Iterable[Frozen]) -> Iterator[Opened]:
    """Open each episode, some ahead, and take its last observation, or say why there is none."""
    return prefetched(((1, partial(_final, store, each)) for each in frozen), lambda _: 1)


def stacked(found: Sequence[tuple[Frozen, Final]]) -> Frames:
    """Put the observations of some episodes of one contract together."""
    observations = [final.observation for _, final in found]
    names = [camera.name for camera in found[0][1].contract.cameras]
    return Frames(
        ids=tuple(each.id for each, _ in found),
        images={name: np.stack([each.images[name] for each in observations]) for name in names},
        state=np.stack([each.state for each in observations]).astype(np.float32),
        instructions=tuple(each.instruction for each in observations),
    )


def split(frozen: Sequence[Frozen], test: float, calibration: float) -> tuple[NDArray[np.int64], ...]:
    """Return the positions [M] of episodes that are learnt, calibrated with and tested with.

    Each takes its share of successes and of failures, rounded up for the last two, in an order that a hash of the id
    alone decides: as the log grows, mostly the same ones stay held out.
    """
    parts: tuple[list[int], ...] = ([], [], [])
    for outcome in (True, False):
        same = [number for number, each in enumerate(frozen) if each.success is outcome]
        same.sort(key=lambda number: hashlib.sha256(frozen[number].id.encode()).hexdigest())
        tested, calibrated = math.ceil(test * len(same)), math.ceil(calibration * len(same))
        parts[2].extend(same[:tested])
        parts[1].extend(same[tested : tested + calibrated])
        parts[0].extend(same[tested + calibrated :])
    return tuple(np.array(sorted(part), np.int64) for part in parts)


def _fault(entry: EpisodeEntry, spec: SuccessModel) -> Reason:
    said = entry.summary
    if said.success is None:
        return UNLABELLED
    if said.label_source == CLASSIFIER and CLASSIFIER not in spec.select.label_sources:
        return BY_CLASSIFIER  # it would learn what another classifier believes
    return DRY_RUN if said.dry_run else ""


def _final(store: EpisodeStore, frozen: Frozen) -> Opened:
    try:
        episode = store.open_frozen(frozen, lazily=True)
    except (KeyError, ValueError):
        return frozen, "damaged, changed or removed"
    if episode.final is None:
        return frozen, NO_FINAL
    said = episode.final
    observation = Observation(said.images, said.state, episode.info.instruction, said.robot_id, said.capture_time_ns)
    return frozen, Final(observation, episode.info.contract, episode.info.dry_run)


def _usable(chosen: Chosen, found: Iterable[Opened]) -> Iterator[tuple[Frozen, Final]]:
    for frozen, final in found:
        if isinstance(final, str):
            chosen.left_out[final] += 1
            continue
        chosen.contract = chosen.contract or final.contract
        if final.dry_run or final.contract.hash != chosen.contract.hash:
            chosen.left_out[DRY_RUN if final.dry_run else OTHER_CONTRACT] += 1
            continue
        chosen.used.append(frozen)
        yield frozen, final
