"""/v1/ab-trials: blinded comparisons of two versions on robots."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from pirl_server.api.ab_schemas import AbRequest, AbStop, AbTrialList, AbTrialView
from pirl_server.api.dependencies import Services, ServicesDep, actor, check_force_scope
from pirl_server.api.problems import conflict, gate_rejection, no_storage, not_found, responses
from pirl_server.api.schemas import Damaged
from pirl_server.registry.promotion import PromotionRefusedError
from pirl_server.watch.ab_runner import AbPlan, AbRunner

router = APIRouter(prefix="/v1/ab-trials", tags=["routing"])
TrialId = Annotated[str, Path(pattern=r"^ab_[0-9a-f]{16}$", description="id of the trial")]


@router.post("", status_code=201, operation_id="createAbTrial", responses=responses(404, 409, 422, 503))
def create_trial(body: AbRequest, services: ServicesDep, request: Request) -> AbTrialView:
    """Let the robots get both versions in turn, in random order, until their labels decide; no one sees which is which.

    A version that was never in production must be within the canary limit for these robots, pass the gate, or `force`.
    """
    check_force_scope(request, body.force)
    runner = _runner(services)
    robots = tuple(dict.fromkeys(body.robots))
    plan = AbPlan(body.first, body.second, robots, body.max_pairs, body.margin, body.alpha)
    try:
        trial = runner.begin(plan, actor(request), body.reason, body.force)
    except KeyError as error:
        raise not_found("version", str(error.args[0])) from None
    except PromotionRefusedError as refused:
        raise gate_rejection(f"{body.first} or {body.second}", refused) from None
    except ValueError as error:
        raise conflict(str(error)) from None
    except OSError as error:
        raise no_storage("the trial", error) from None
    return AbTrialView.of(trial, *runner.progress(trial))


@router.get("", operation_id="listAbTrials", responses=responses(409))
def list_trials(services: ServicesDep) -> AbTrialList:
    """List all trials, newest first."""
    runner = _runner(services)
    trials, damaged = runner.trials.list()
    return AbTrialList(
        data=[AbTrialView.of(trial, *runner.progress(trial)) for trial in trials],
        damaged=[Damaged(name=name, reason=reason) for name, reason in sorted(damaged.items())],
    )


@router.get("/{trial_id}", operation_id="getAbTrial", responses=responses(404, 409, 422))
def get_trial(trial_id: TrialId, services: ServicesDep) -> AbTrialView:
    """Get one trial; its result when it is over."""
    runner = _runner(services)
    try:
        trial = runner.trials.get(trial_id)
    except KeyError:
        raise not_found("trial", trial_id) from None
    except ValueError as error:
        raise conflict(str(error)) from None
    return AbTrialView.of(trial, *runner.progress(trial))


@router.post("/{trial_id}/stop", operation_id="stopAbTrial", responses=responses(404, 409, 422, 503))
def stop_trial(trial_id: TrialId, body: AbStop, services: ServicesDep, request: Request) -> AbTrialView:
    """End a trial before it decides: its robots get production from their next episodes on."""
    runner = _runner(services)
    try:
        trial = runner.stop(trial_id, actor(request), body.reason)
    except KeyError:
        raise not_found("trial", trial_id) from None
    except ValueError as error:
        raise conflict(str(error)) from None
    except OSError as error:
        raise no_storage("the end of the trial", error) from None
    return AbTrialView.of(trial, *runner.progress(trial))


def _runner(services: Services) -> AbRunner:
    if services.deciding.ab is None:
        raise conflict("this server compares no versions")
    return services.deciding.ab
