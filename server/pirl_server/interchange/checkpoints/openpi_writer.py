"""Writes openpi's side files from a model card."""

from __future__ import annotations

import json

from pirl_server.atomic_files import check_name
from pirl_server.interchange.checkpoints.model_sizes import unreadable
from pirl_server.interchange.checkpoints.openpi_reader import ASSETS, CONFIG, NORM_STATS
from pirl_server.interchange.checkpoints.statistics import NEEDED, Statistics, norm_stats_object
from pirl_server.policy.model_card import ModelCard
from pirl_server.policy.processing_spec import Normalisation


def side_files(card: ModelCard) -> dict[str, bytes]:
    """config.json and the statistics, under the robot's name. Raises ValueError for another scheme than openpi's."""
    processing = card.processing
    assert processing is not None
    statistics = {"state": _statistics(processing.state), "action": _statistics(processing.action)}
    scheme = "zscore" if card.family == "pi0" else "quantile"
    for each in (processing.state, processing.action):
        if each.scheme != scheme:
            raise ValueError(
                f"openpi normalises {card.family} by {scheme}, this policy by {each.scheme}: export to lerobot"
            )
    config = {
        "action_dim": card.model.action_dim,
        "action_horizon": card.model.horizon,
        "max_token_len": card.model.max_tokens,
        "pi05": card.family == "pi05",
        **unreadable(card.model),
    }
    stats = norm_stats_object(statistics)
    return {
        CONFIG: json.dumps(config, indent=2).encode(),
        f"{ASSETS}/{check_name('robot', card.contract.robot)}/{NORM_STATS}": json.dumps(stats, indent=2).encode(),
    }


def _statistics(normalisation: Normalisation) -> Statistics:
    """openpi's reader wants mean and std beside the quantiles, which it then leaves alone."""
    named = dict(zip(NEEDED.get(normalisation.scheme, ()), (normalisation.first, normalisation.second)))
    zeros = (0.0,) * len(normalisation.first)
    return {"mean": zeros, "std": zeros} | named
