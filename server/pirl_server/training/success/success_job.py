"""What a `success_model` job does: it learns one, and keeps it below the server's root."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pirl_server.config.success import SuccessModel
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES, SUCCESS_MODELS
from pirl_server.registry.success_models import SuccessModels
from pirl_server.training.progress import Progress
from pirl_server.training.success.backbone import CONFIG, Source
from pirl_server.training.success.learn import learn

MADE = "success_model"
"""folder of the job in which the model is made"""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def run(spec: SuccessModel, root: Path, job_dir: Path, exchange: Path | None, progress: Progress) -> dict[str, Any]:
    """Learn and keep a success model, and return the job's result. Raises ValueError as `learn`."""
    out = job_dir / MADE
    result = dict(
        learn(
            spec, backbone_source(spec.backbone, exchange), EpisodeStore(root / EPISODES), out, progress, job_dir.name
        )
    )
    if out.is_dir():
        result["version"] = SuccessModels(root / SUCCESS_MODELS).add(out).version
    return result | {"cancelled": progress.cancelled}


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
