"""Reads openpi's side files: config.json, when the JAX converter wrote one, and assets/<asset id>/norm_stats.json."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, PositiveInt

from pirl_server.interchange.checkpoints.source_folder import inside, parse, read_object
from pirl_server.interchange.checkpoints.source_metadata import OPENPI_CAMERAS, Side
from pirl_server.interchange.checkpoints.statistics import read_norm_stats
from pirl_server.model.pi0.config import Family

CONFIG, ASSETS, NORM_STATS = "config.json", "assets", "norm_stats.json"


class _Config(BaseModel):
    """The converter's five fields, and those that name what neither they nor the weights contain."""

    model_config = ConfigDict(strict=True, extra="ignore")
    action_dim: PositiveInt | None = None
    action_horizon: PositiveInt | None = None
    paligemma_variant: str | None = None
    action_expert_variant: str | None = None
    max_token_len: PositiveInt | None = None
    pi05: bool | None = None
    type: Family | None = None
    head_dim: PositiveInt | None = None
    vision_heads: PositiveInt | None = None


def read_openpi(folder: Path, asset_id: str | None) -> Side:
    """What an openpi folder says. Raises ValueError that names file and key at fault."""
    config, files = _Config(), {}
    if (folder / CONFIG).exists():
        path = inside(folder, folder / CONFIG)
        raw = read_object(path)
        if "input_features" in raw:
            raise ValueError(f"'{path}' is lerobot's: import it with pirl import lerobot")
        config = parse(_Config, raw, f"'{path}'")
        files[CONFIG] = path.read_bytes()
    stats = find_norm_stats(folder, asset_id)
    if stats is not None:
        files[stats.relative_to(folder).as_posix()] = stats.read_bytes()
    return Side(
        stack="openpi",
        cameras=OPENPI_CAMERAS,
        family=_family(config),
        variants=(config.paligemma_variant, config.action_expert_variant),
        head_dim=config.head_dim,
        vision_heads=config.vision_heads,
        horizon=config.action_horizon,
        max_tokens=config.max_token_len,
        model_dims=(None, config.action_dim),
        statistics={} if stats is None else read_norm_stats(stats),
        files=files,
    )


def _family(config: _Config) -> Family | None:
    named: Family | None = None if config.pi05 is None else "pi05" if config.pi05 else "pi0"
    if None not in (named, config.type) and named != config.type:
        raise ValueError(f"{CONFIG} says type {config.type} and pi05 {config.pi05}")
    return named or config.type


def find_norm_stats(folder: Path, asset_id: str | None) -> Path | None:
    """The statistics of that asset, or the only ones there are; None without any.

    Raises ValueError when there are several and none was named, or not the named one.
    """
    assets = folder / ASSETS
    found = {
        path.parent.relative_to(assets).as_posix(): inside(folder, path) for path in sorted(assets.rglob(NORM_STATS))
    }
    if asset_id is not None and asset_id not in found:
        raise ValueError(f"'{assets}' has no statistics of {asset_id!r}; there are: {', '.join(found) or 'none'}")
    if asset_id is None and len(found) > 1:
        raise ValueError(f"'{assets}' has statistics of {', '.join(found)}: choose one with --asset-id")
    return found[asset_id] if asset_id is not None else next(iter(found.values()), None)
