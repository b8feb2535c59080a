"""Which logged episodes a job learns from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic.dataclasses import dataclass

from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.config.fields import CHECKED, about, number, text

_LINE = r"^[^\x00-\x1f\x7f]{1,1000}$"


@dataclass(frozen=True, config=CHECKED)
class EpisodeSelection:
    """Those episodes of the robot that satisfy every field, newest first; an empty list means any."""

    instructions: Annotated[
        tuple[Annotated[str, text("sentence", _LINE)], ...],
        about("sentences that the episodes were run with; empty: all that the job may learn"),
    ] = ()
    versions: Annotated[
        tuple[Annotated[str, text("version", NAME_PATTERN)], ...],
        about("policy versions; every chunk of an episode is of one of them"),
    ] = ()
    robots: Annotated[tuple[Annotated[str, text("robot id", NAME_PATTERN)], ...], about("robot ids")] = ()
    mode: Annotated[
        Literal["any", "explore", "greedy"],
        about("explore: some chunks left a density to learn from; greedy: none did"),
    ] = "any"
    source: Annotated[
        Literal["any", "policy", "human"],
        about("policy: no human drove; human: a human drove at least one step"),
    ] = "any"
    label: Annotated[
        Literal["any", "labelled", "success", "failure", "unlabelled"],
        about("how the episodes ended; imitation (sft) takes successes, and each method leaves out what it can't use"),
    ] = "any"
    label_sources: Annotated[
        tuple[Annotated[str, text("label source", "^[a-z]+$")], ...],
        about("where the label is from: operator, sim, classifier"),
    ] = ()
    max_age_days: Annotated[
        float | None, number("published so long ago at most, by the wall clock; null: any age", "days", gt=0)
    ] = None
    limit: Annotated[int | None, number("the newest so many; null: all", "episodes", ge=1)] = None
