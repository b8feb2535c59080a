"""JSON schemas of a job's output and files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from pirl_server.api.described import Described
from pirl_server.jobs.artefacts import MOST, Artefact, Checkpoint


class JobLog(Described):
    """A part of a job's output. Positions are bytes, counted from the first one that the job wrote."""

    offset: int
    """of the first byte of the text"""
    next_offset: int
    """`offset` of the next request"""
    first: int
    """first byte that is still kept: 32 MiB at most"""
    size: int
    """bytes that were written so far"""
    text: str = Field(description="what was written, as UTF-8; another byte is shown as U+FFFD")


class ArtefactView(Described):
    """One file of a job."""

    name: str
    """path below the job's folder"""
    bytes: int
    """its size"""
    modified: str
    """ISO 8601, UTC"""

    @classmethod
    def of(cls, found: Artefact) -> ArtefactView:
        """Show one."""
        return cls.model_validate(vars(found))


class ArtefactList(Described):
    """The files of a job, by name."""

    data: list[ArtefactView]
    """the files"""
    has_more: bool
    """whether there are more, which are not listed"""

    @classmethod
    def of(cls, found: Sequence[Artefact]) -> ArtefactList:
        """Show all."""
        return cls(data=[ArtefactView.of(each) for each in found], has_more=len(found) == MOST)


class CheckpointView(Described):
    """A folder of weights."""

    name: str
    """path below the job's folder"""
    kind: Literal["result", "resume"]
    """what was learnt, to serve; or what the job continues from"""
    step: int | None
    """at which it was written; null: its name does not say"""
    bytes: int
    """of all its files"""
    created: str
    """ISO 8601, UTC: when its newest file was written"""
    files: list[ArtefactView]
    """its files: names for `GET /v1/jobs/{job_id}/artefacts/{name}`"""


class CheckpointList(Described):
    """The checkpoints of a job, by step; the one to serve comes last."""

    data: list[CheckpointView]
    """the checkpoints"""

    @classmethod
    def of(cls, found: Sequence[Checkpoint]) -> CheckpointList:
        """Show all."""
        views = [
            CheckpointView(**(vars(each) | {"files": [ArtefactView.of(file) for file in each.files]})) for each in found
        ]
        return cls(data=views)
