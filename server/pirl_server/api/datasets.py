"""/v1/datasets: lists of episodes that are frozen under a name, for jobs that can be repeated."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from pirl_server.api.dependencies import Services, ServicesDep, actor
from pirl_server.api.episode_schemas import DatasetDetail, DatasetList, DatasetRequest, DatasetView, FrozenView
from pirl_server.api.pages import AfterName, OptionalLimit, page_of
from pirl_server.api.problems import ProblemError, conflict, invalid, no_storage, not_found, responses
from pirl_server.api.schemas import Damaged
from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.episodes.datasets import Dataset, faults

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])
DatasetName = Annotated[str, Path(pattern=NAME_PATTERN, description="name of the dataset")]


@router.get("", operation_id="listDatasets", response_model=DatasetList, responses=responses(404, 422))
async def list_datasets(services: ServicesDep, after: AfterName = None, limit: OptionalLimit = None) -> Response:
    """List all datasets, by name."""
    return await services.reads.answer(lambda: _list(services, after, limit))


@router.post("", status_code=201, operation_id="createDataset", responses=responses(409, 422, 503))
def create_dataset(body: DatasetRequest, services: ServicesDep, request: Request) -> DatasetView:
    """Freeze the episodes of a selection, with the labels that they have now. A dataset is never changed."""
    episodes = services.episodes
    if body.name in episodes.datasets.names():
        raise conflict(f"dataset '{body.name}' is there already, and is never changed: choose another name")
    try:
        chosen = list(islice(episodes.select(body.select), body.select.limit))
        made = episodes.datasets.create(body.name, chosen, body.select, actor(request))
    except ValueError as error:
        raise invalid("select", str(error)) from None
    except TimeoutError as error:
        raise ProblemError(503, "busy", str(error)) from None
    except OSError as error:
        raise no_storage("the dataset", error) from None
    services.registry.audit_log.note("dataset created", actor(request), dataset=made.name, sha256=made.sha256)
    return DatasetView.of(made)


@router.get("/{name}", operation_id="getDataset", response_model=DatasetDetail, responses=responses(404, 409, 422, 503))
async def get_dataset(name: DatasetName, services: ServicesDep) -> Response:
    """Get one with its episodes, and compare these with the store's manifests."""
    return await services.reads.answer(lambda: _detail(services, name))


def _list(services: Services, after: str | None, limit: int | None) -> DatasetList:
    found, damaged = list[DatasetView](), list[Damaged]()
    page = page_of(services.episodes.datasets.names(), "dataset", after, limit)
    for name in page.names:
        try:
            found.append(DatasetView.of(services.episodes.datasets.get(name)))
        except ValueError as error:
            damaged.append(Damaged(name=name, reason=str(error)))
    return DatasetList.model_validate({"data": found, "damaged": damaged} | page.ids)


def _detail(services: Services, name: str) -> DatasetDetail:
    try:
        found = services.episodes.datasets.get(name)
    except KeyError:
        raise not_found("dataset", name) from None
    except ValueError as error:
        raise conflict(str(error)) from None
    frozen = [FrozenView.model_validate(vars(each)) for each in found.episodes]
    said = DatasetView.of(found)
    return DatasetDetail(
        **{key: getattr(said, key) for key in DatasetView.model_fields}, data=frozen, faults=_faults(services, found)
    )


def _faults(services: Services, found: Dataset) -> list[str]:
    try:
        return faults(found, services.episodes.digests([each.id for each in found.episodes]))
    except TimeoutError as error:
        raise ProblemError(503, "busy", str(error)) from None
