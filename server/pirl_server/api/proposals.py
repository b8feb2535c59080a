"""/v1/proposals, /v1/success-models: what success models propose, and what people make of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field, JsonValue

from pirl_server.api.dependencies import Services, ServicesDep, actor
from pirl_server.api.described import Described
from pirl_server.api.episode_schemas import ProposalView
from pirl_server.api.problems import no_storage, responses
from pirl_server.api.schemas import Damaged
from pirl_server.episodes.proposal_decisions import decide
from pirl_server.registry.success_models import SuccessCard

router = APIRouter(prefix="/v1", tags=["episodes"])
MOST = 1000
_EXAMPLE: dict[str, JsonValue] = {"decision": "accept", "episodes": ["5" * 32]}


class DecisionRequest(Described):
    """Accept proposals as labels, reject them, or take either back."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    decision: Literal["accept", "reject", "undo"]
    """undo: an accepted proposal's label is taken back, and the proposal is open again"""
    episodes: list[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]] = Field(
        min_length=1, max_length=MOST, description="ids of the episodes whose newest proposals are decided"
    )
    seen: dict[str, str] = Field(
        default={},
        max_length=MOST,
        description="by id, `at` of the proposal that was seen: a newer one stays open",
    )


class DecidedView(Described):
    """What was done for one episode."""

    episode: str
    """its id"""
    proposal: ProposalView | None
    """as it is now; null: nothing was changed"""
    error: str
    """why nothing was changed; empty: it was"""


class DecisionsView(Described):
    """What was done for each episode; one that can't be decided keeps none of the others."""

    data: list[DecidedView]
    """in the order of the request"""
    changed: int
    """how many were"""


class SuccessModelView(Described):
    """A success model, how good it is, and what people made of its proposals."""

    version: str
    """content hash"""
    task: str
    """what it is for"""
    instructions: list[str]
    """sentences that it judges"""
    contract_hash: str
    """of the robot that it judges"""
    cameras: list[str]
    """whose final images it reads"""
    state: bool
    """whether it reads the final state"""
    backbone_source: str
    """image model that it is based on"""
    threshold: float | None
    """confidence from which it proposes; null: it proposes nothing"""
    measures: dict[str, Any]
    """on episodes that it did not learn from: auc, calibration_error, coverage, accuracy_at_threshold and more"""
    lineage: dict[str, str]
    """which episodes it learnt from, seed, settings, library versions"""
    created: str
    """ISO 8601, UTC"""
    job: str
    """that made it"""
    open: int
    """its proposals that wait for a person"""
    accepted: int
    """those that became labels"""
    rejected: int
    """those that did not"""

    @classmethod
    def of(cls, card: SuccessCard, counts: dict[str, int]) -> SuccessModelView:
        """Show a card with the counts of its proposals by state."""
        states = {state: counts.get(state, 0) for state in ("open", "accepted", "rejected")}
        said = {name: getattr(card, name) for name in cls.model_fields if name not in states}
        return cls.model_validate(said | states)


class SuccessModelList(Described):
    """All success models, newest first."""

    data: list[SuccessModelView]
    """the models"""
    damaged: list[Damaged] = Field(default=[], description="models whose files can't be read")


@router.post("/proposals", operation_id="decideProposals", responses=responses(422, 503))
def decide_proposals(body: DecisionRequest, services: ServicesDep, request: Request) -> DecisionsView:
    """Accept, reject or take back proposals, each by itself.

    Accepting gives an episode a label of the source `operator`, with the model and its probability as the note.
    """
    data = [_decided(services, request, each, body) for each in dict.fromkeys(body.episodes)]
    return DecisionsView(data=data, changed=sum(not each.error for each in data))


@router.get("/success-models", operation_id="listSuccessModels", responses=responses())
def list_models(services: ServicesDep) -> SuccessModelList:
    """List the success models with their measures, and how many of their proposals were accepted and rejected."""
    cards, damaged = services.success_models.list()
    counts = services.episodes.proposals.counts()
    views = [SuccessModelView.of(card, {str(k): v for k, v in counts.get(card.version, {}).items()}) for card in cards]
    return SuccessModelList(data=views, damaged=[Damaged(name=name, reason=why) for name, why in damaged.items()])


def _decided(services: Services, request: Request, episode_id: str, body: DecisionRequest) -> DecidedView:
    try:
        found = decide(services.episodes, episode_id, body.decision, actor(request), body.seen.get(episode_id, ""))
    except KeyError:
        return DecidedView(episode=episode_id, proposal=None, error="there is no such episode")
    except (ValueError, TimeoutError) as error:
        return DecidedView(episode=episode_id, proposal=None, error=str(error))
    except OSError as error:
        raise no_storage("the decision", error) from None
    services.registry.audit_log.note(
        f"proposal {body.decision}", actor(request), episode=episode_id, model=found.model, success=str(found.success)
    )
    return DecidedView(episode=episode_id, proposal=ProposalView.model_validate(vars(found)), error="")
