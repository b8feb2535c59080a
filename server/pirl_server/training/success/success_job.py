"""What a `success_model` job does: it learns one, keeps it below the server's root, and proposes labels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pirl_server.config.success import SuccessModel
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES, SUCCESS_MODELS
from pirl_server.registry.success_models import SuccessCard, SuccessModels
from pirl_server.training.progress import Progress
from pirl_server.training.success.backbone import CONFIG, Source
from pirl_server.training.success.learn import learn
from pirl_server.training.success.propose import propose
from pirl_server.training.success.success_judge import open_judge

MADE = "success_model"
"""folder of the job in which the model is made"""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def run(spec: SuccessModel, root: Path, job_dir: Path, exchange: Path | None, progress: Progress) -> dict[str, Any]:
    """Learn and keep a success model, propose labels, and return the job's result. Raises ValueError as `learn`."""
    store, models = EpisodeStore(root / EPISODES), SuccessModels(root / SUCCESS_MODELS)
    out, result = job_dir / MADE, dict[str, Any]()
    if spec.backbone is not None:
        source = backbone_source(spec.backbone, exchange)
        result |= learn(spec, source, store, out, progress, job_dir.name)
        if not out.is_dir():  # a dry run, or cancelled
            return result | {"cancelled": progress.cancelled}
    card = models.add(out) if spec.model is None else found_card(models, spec.model)
    result["version"] = card.version
    if spec.propose is not None and card.threshold is None and spec.model is None:
        result |= {"proposed": 0, "not_proposed": {"the model is not reliable enough to propose labels": 1}}
    elif spec.propose is not None:
        judge = open_judge(models, card)
        result |= propose(store, judge, card, spec.propose, progress, job_dir.name).result()
    return result | {"cancelled": progress.cancelled}


def found_card(models: SuccessModels, name: str) -> SuccessCard:
    """Return the card of a version, or the newest by the name `latest`. Raises ValueError with those there are."""
    try:
        return models.get(name)
    except KeyError:
        there = ", ".join(card.version for card in models.list()[0]) or "none: learn one with a success_model job"
        raise ValueError(f"no success model '{name}': there are {there}") from None


def reliable_card(models: SuccessModels, version: str) -> SuccessCard:
    """Return the card of a version that proposes labels. Raises ValueError where it does not, and as `found_card`."""
    card = found_card(models, version)
    if card.threshold is None:
        raise ValueError(f"success model '{version}' is not reliable enough to propose labels: train another one")
    return card


def backbone_source(name: str, exchange: Path | None) -> Source:
    """Find the backbone of a job: a folder below the exchange folder, else a model on the hub.

    Raises ValueError for a path that leads out of that folder, and for what is neither.
    """
    if exchange is not None:
        home = exchange.resolve()
        path = (home / name).resolve()
        inside = path.is_relative_to(home) and not Path(name).is_absolute() and ".." not in Path(name).parts
        if inside and (path / CONFIG).is_file():
            return Source(name, str(path))
    if not HUB_NAME.fullmatch(name):
        below = f"'{exchange}'" if exchange is not None else "--exchange FOLDER, which the server was started without"
        raise ValueError(
            f"'backbone' {name!r} is neither a folder with {CONFIG} below {below}, nor a name on the hub like ORG/MODEL"
        )
    return Source(name, name)
