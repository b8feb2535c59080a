"""Exports chosen episodes of a store to a new folder: of one robot's contract, and no dry runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from pirl_contract import ControlSource
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.config.interchange import ExportEpisodes
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.episodes.summary import EpisodeSummary
from pirl_server.interchange.episodes.formats import Progress, exporter

SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class Exported:
    """What an export did."""

    episodes: int
    left_out: dict[str, int]
    """why others were not exported -> how many"""
    lines: tuple[str, ...]


def export_episodes(spec: ExportEpisodes, store: EpisodeStore, progress: Progress) -> Exported:
    """Write the chosen episodes, oldest first, to the new folder; nothing stays when it is cancelled.

    Raises ValueError when none is chosen, when they are of several contracts, and as the writer does.
    """
    write = exporter(spec.format)
    chosen, left_out = _choose(store, spec.select, datetime.now(timezone.utc))
    if not chosen:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "the store is empty"
        raise ValueError(f"no episode to export ({why}): choose others")
    contracts = Counter(each.contract_hash for each in chosen)
    if len(contracts) > 1:
        robots = {each.contract_hash: each.robot_id for each in chosen}
        shown = ", ".join(f"{count} of {name} (robot '{robots[name]}')" for name, count in contracts.items())
        raise ValueError(f"the episodes are of several contracts, {shown}: export each by itself, with --robots")
    lines = write([partial(store.open, each.id) for each in chosen], Path(spec.path), spec, progress)
    return Exported(len(chosen), dict(left_out), tuple(lines))


def _choose(store: EpisodeStore, select: EpisodeSelection, now: datetime) -> tuple[list[EpisodeSummary], Counter[str]]:
    """Those that satisfy every field, oldest first, and why others do not."""
    found, left_out = list[EpisodeSummary](), Counter[str]()
    for each in store.list():
        why = next((why for why, applies in _faults(each, select, now) if applies()), "")
        if not why and select.source != "any" and _driven(store.open(each.id)) != select.source:
            why = "of another source"
        if not why and select.limit is not None and len(found) == select.limit:
            why = "beyond the limit"
        if why:
            left_out[why] += 1
        else:
            found.append(each)
    return found[::-1], left_out


def _faults(each: EpisodeSummary, select: EpisodeSelection, now: datetime) -> Sequence[tuple[str, Callable[[], bool]]]:
    labels = {"labelled": (True, False), "success": (True,), "failure": (False,), "unlabelled": (None,)}
    mode = "greedy" if each.sampler == "ode" else "explore"
    age_s = (now - datetime.fromisoformat(each.created)).total_seconds()
    most = select.max_age_days
    return [
        ("dry runs", lambda: each.dry_run),
        ("of another robot", lambda: bool(select.robots) and each.robot_id not in select.robots),
        ("with another instruction", lambda: bool(select.instructions) and each.instruction not in select.instructions),
        ("of another version",
         lambda: bool(select.versions) and not set(each.policy_versions) <= set(select.versions)),
        ("of another mode", lambda: select.mode not in ("any", mode)),
        ("with another label", lambda: each.success not in labels.get(select.label, (True, False, None))),
        ("with another label source",
         lambda: bool(select.label_sources) and each.label_source not in select.label_sources),
        ("older than max_age_days", lambda: most is not None and age_s > most * SECONDS_PER_DAY),
    ]  # fmt: skip


def _driven(episode: Episode) -> str:
    return "human" if (episode.steps.source == int(ControlSource.HUMAN)).any() else "policy"
