"""JSON schemas of evaluations."""

from __future__ import annotations

from pydantic import Field

from pirl_server.api.described import Described
from pirl_server.api.schemas import Damaged, EvaluationView
from pirl_server.registry.evaluation import Evaluation


class EvaluationDetail(EvaluationView):
    """One version on one fixed list, with each outcome."""

    id: str
    """version and list"""
    version: str
    """that was evaluated"""
    job: str
    """that evaluated it; empty: none"""
    details: dict[str, float]
    """what else was measured, by name"""
    instructions: list[str]
    """sentences that mean the task; empty: not recorded"""
    outcomes: list[bool]
    """success of each initial state, in the order of the list; empty: not recorded"""

    @classmethod
    def named(cls, name: str, found: Evaluation) -> EvaluationDetail:
        """Show one under its id."""
        view = EvaluationView.of(found)
        own = {key: getattr(view, key) for key in EvaluationView.model_fields}
        return cls(
            **own, id=name, version=found.version, job=found.job, details=dict(found.details),
            instructions=list(found.instructions), outcomes=list(found.outcomes),
        )  # fmt: skip


class EvaluationPage(Described):
    """Evaluations by id; ask for the next page with `cursor=next_cursor`."""

    data: list[EvaluationDetail]
    """the evaluations of this page"""
    first_id: str | None
    """of this page; null for an empty one"""
    last_id: str | None
    """of this page; null for an empty one"""
    has_more: bool
    """whether there is a next page"""
    next_cursor: str | None
    """`cursor` of the next page; null: there is none"""
    damaged: list[Damaged] = Field(default=[], description="evaluations up to here whose files can't be read")
