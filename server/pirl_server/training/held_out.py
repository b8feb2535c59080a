"""Keeps some episodes out of learning, so that base and result can be compared on what neither of them has learnt.

An episode is chosen by a hash of its id alone, not by the seed of the run: as the log grows from round to round mostly
the same ones stay out, and the base of the next round has not learnt them either.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pirl_server.episodes.model_outcomes import MODEL_SOURCE
from pirl_server.training.episode_log import EpisodeFacts, EpisodeLog

FEWEST = 5
"""of a kind: fewer are all learnt"""


@dataclass(frozen=True)
class Split:
    """A log in two parts, each in the log's order."""

    learnt: EpisodeLog
    held_out: EpisodeLog


def hold_out(log: EpisodeLog, share: float, least: int) -> Split:
    """Keep so large a share of the episodes out, rounded up, of successes and of failures alike.

    An episode that a human drove counts as a success. Unlabelled ones are learnt, and so are all of a kind that has
    fewer than `FEWEST`; at least `least` labelled ones are. What a success model labelled is learnt as well: held-out
    episodes are evidence for the gate, which it must not decide.
    """
    known = [each for each in log.facts if each.labelled]
    labelled = [each for each in known if each.info.label_source != MODEL_SOURCE]
    good = [each for each in labelled if each.info.success or each.human_steps]
    bad = [each for each in labelled if not (each.info.success or each.human_steps)]
    room = max(0, len(known) - least)
    chosen = _first(good, share)[:room]
    chosen += _first(bad, share)[: room - len(chosen)]
    ids = {each.info.id for each in chosen}
    return Split(log.where(lambda each: each.info.id not in ids), log.where(lambda each: each.info.id in ids))


def _first(found: Sequence[EpisodeFacts], share: float) -> list[EpisodeFacts]:
    if len(found) < FEWEST:
        return []
    in_order = sorted(found, key=lambda each: hashlib.sha256(each.info.id.encode()).hexdigest())
    return in_order[: math.ceil(share * len(found))]
