"""What a success model says of episodes that have no label: for learning only, where a job's config names the model.

It is an open proposal, never a label: nothing is stored by reading it, and what a person said or decided comes first.
"""

from __future__ import annotations

from pirl_server.config.success import ModelLabels
from pirl_server.episodes.store import EpisodeStore

MODEL_SOURCE = "success_model"
"""label source, within a job, of such an outcome"""


def model_outcome(store: EpisodeStore, episode_id: str, wanted: ModelLabels) -> bool | None:
    """Return the outcome that this model proposed, if it is sure enough; None: there is none.

    None, too, for an episode that was ever labelled afterwards (a label that a person took back is no invitation),
    whose proposal a person decided on, or that a fault ended. Raises KeyError for an unknown id.
    """
    proposal = store.proposals.get(episode_id)
    if proposal is None or proposal.state != "open" or proposal.model != wanted.version:
        return None
    entry = store.entry(episode_id)
    said = entry.labelled or entry.summary.success is not None
    if said or entry.summary.end_reason == "fault" or proposal.confidence < wanted.min_confidence:
        return None
    return proposal.success
