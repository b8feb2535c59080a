"""/v1/models/{version}: one version, and the graph of what it came from."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from pirl_server.api.dependencies import Services, ServicesDep
from pirl_server.api.lineage_graph import Lineage, lineage_of
from pirl_server.api.models import view_of
from pirl_server.api.problems import conflict, not_found, responses
from pirl_server.api.schemas import ModelView
from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.registry.versions import ModelVersion

router = APIRouter(prefix="/v1/models/{version}", tags=["models"])
Version = Annotated[str, Path(pattern=NAME_PATTERN, description="version or alias")]


@router.get("", operation_id="getModel", response_model=ModelView, responses=responses(404, 409, 422))
async def get_model(version: Version, services: ServicesDep) -> Response:
    """Get one version, by its name or an alias, with its aliases and evaluations."""
    return await services.reads.answer(lambda: _model(services, version))


@router.get("/lineage", operation_id="getModelLineage", response_model=Lineage, responses=responses(404, 409, 422))
async def get_lineage(
    version: Version,
    services: ServicesDep,
    depth: Annotated[int, Query(ge=0, le=200, description="most generations of ancestors")] = 50,
) -> Response:
    """Get what a version came from: its ancestors, the jobs that made them, their datasets and evaluations."""
    return await services.reads.answer(lambda: lineage_of(services, _find(services, version), depth))


def _model(services: Services, name: str) -> ModelView:
    model = _find(services, name)
    return view_of(services.registry, model, services.registry.aliases())[0]


def _find(services: Services, name: str) -> ModelVersion:
    try:
        return services.registry.resolve(name)
    except KeyError:
        raise not_found("version", name) from None
    except ValueError as error:
        raise conflict(str(error)) from None
