"""A query over logged episodes: what the REST API, the command line and jobs mean by "these episodes"."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.config.fields import CHECKED, about, number
from pirl_server.config.fields import text as words

_LINE = r"^[^\x00-\x1f\x7f]{1,1000}$"
_TIME = r"^[0-9T:.Z+-]{10,40}$"
Mode = Literal["any", "explore", "greedy"]
Source = Literal["any", "policy", "human"]
ProposalFilter = Literal["any", "open", "success", "failure", "accepted", "rejected"]
LabelState = Literal["any", "labelled", "success", "failure", "unlabelled"]


def parse_time(value: str) -> datetime:
    """Read a date or a date with a time, ISO 8601; UTC where it names no zone. Raises ValueError for another form."""
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"'{value}' is no ISO 8601 time: write 2026-01-31 or 2026-01-31T08:00:00+00:00") from None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def _checked_time(value: str | None) -> str | None:
    if value is not None:
        parse_time(value)
    return value


def _time(description: str) -> Any:
    return words(description, _TIME)


@dataclass(frozen=True, config=CHECKED)
class EpisodeSelection:
    """Those episodes that satisfy every field, newest first; an empty list means any."""

    instructions: Annotated[
        tuple[Annotated[str, words("sentence", _LINE)], ...],
        about("sentences that the episodes were run with; empty: any, or all that the job may learn"),
    ] = ()
    versions: Annotated[
        tuple[Annotated[str, words("version", NAME_PATTERN)], ...],
        about("policy versions; every chunk of an episode is of one of them"),
    ] = ()
    robots: Annotated[tuple[Annotated[str, words("robot id", NAME_PATTERN)], ...], about("robot ids")] = ()
    mode: Annotated[Mode, about("explore: some chunks left a density to learn from; greedy: none did")] = "any"
    source: Annotated[
        Source, about("policy: no human drove; human: a human drove at least one step that may be learnt")
    ] = "any"  # fmt: skip
    label: Annotated[
        LabelState,
        about("how the episodes ended; imitation (sft) takes successes, and each method leaves out what it can't use"),
    ] = "any"
    label_sources: Annotated[
        tuple[Annotated[str, words("label source", "^[a-z]+$")], ...],
        about("where the label is from: operator, sim, classifier"),
    ] = ()
    proposal: Annotated[
        ProposalFilter,
        about(
            "what a success model proposed: open, not decided yet; success, failure: open, and proposes that; no label"
            " until a person accepts it"
        ),
    ] = "any"  # fmt: skip
    max_age_days: Annotated[
        float | None, number("published so long ago at most, by the wall clock; null: any age", "days", gt=0)
    ] = None
    limit: Annotated[int | None, number("the newest so many; null: all", "episodes", ge=1)] = None
    since: Annotated[
        str | None, _time("published at this time or later, ISO 8601; null: any"), AfterValidator(_checked_time)
    ] = None  # fmt: skip
    until: Annotated[
        str | None, _time("published before this time, ISO 8601; null: any"), AfterValidator(_checked_time)
    ] = None  # fmt: skip
    contract_hash: Annotated[
        str | None, words("contract of robot and policy; null: any, or the base's", "^[0-9a-f]{16}$")
    ] = None  # fmt: skip
    text: Annotated[
        str | None, words("words in the instruction or the label's note, in either case; null: any", _LINE)
    ] = None  # fmt: skip
