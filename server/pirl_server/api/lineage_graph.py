"""The graph of what a version came from, read from the registry, the jobs and the datasets."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pirl_server.api.dependencies import Services
from pirl_server.api.described import Described
from pirl_server.jobs.job import DamagedJobError, Job
from pirl_server.registry.versions import ModelVersion, Registry

NodeKind = Literal["model", "job", "dataset", "evaluation"]
Relation = Literal["trained_from", "made_by", "learnt_from", "submitted_by", "evaluates"]


class LineageNode(Described):
    """One model version, job, dataset or evaluation."""

    id: str
    """its kind, a colon and its name"""
    kind: NodeKind
    """what it is"""
    name: str
    """version, id or name"""
    created: str | None
    """ISO 8601, UTC; null: not known"""
    missing: bool = False
    """it is named, and can no longer be read"""
    details: dict[str, Any] = Field(default={})
    """of a model its aliases, of a job kind and status, of a dataset its hash, of an evaluation its counts"""


class LineageEdge(Described):
    """How one node depends on another."""

    source: str
    """id of the node that depends"""
    target: str
    """id of the node that it depends on"""
    relation: Relation
    """how"""


class Lineage(Described):
    """A directed graph without cycles but for damaged files."""

    root: str
    """id of the version that was asked for"""
    nodes: list[LineageNode]
    """each once; the root first"""
    edges: list[LineageEdge]
    """between them"""
    truncated: bool
    """whether there are ancestors beyond the depth"""


def lineage_of(services: Services, model: ModelVersion, depth: int) -> Lineage:
    """Follow parents from a version, up to so many generations."""
    graph = _Graph(services)
    version: str | None = model.version
    for _ in range(depth + 1):
        if version is None or f"model:{version}" in graph.nodes:
            break
        version = graph.add_model(version)
    beyond = version is not None and f"model:{version}" not in graph.nodes
    known = [edge for edge in graph.edges if edge.target in graph.nodes]
    return Lineage(root=f"model:{model.version}", nodes=list(graph.nodes.values()), edges=known, truncated=beyond)


class _Graph:
    def __init__(self, services: Services) -> None:
        self.nodes: dict[str, LineageNode] = {}
        self.edges: list[LineageEdge] = []
        self._services = services
        self._aliases = services.registry.aliases()

    def add_model(self, version: str) -> str | None:
        """Add a version with its job and evaluations; return its parent."""
        registry, id_ = self._services.registry, f"model:{version}"
        aliases = sorted(alias for alias, meant in self._aliases.items() if meant == version)
        try:
            model = registry.get(version)
        except (KeyError, ValueError, OSError):
            self._node("model", version, missing=True, details={"aliases": aliases})
            return None
        self._node("model", version, model.created, details={"aliases": aliases, "contract_hash": model.contract.hash})
        self._add_evaluations(registry, version, id_)
        if model.job is not None:
            self._edge(id_, f"job:{model.job}", "made_by")
            self._add_job(model.job)
        if model.parent is not None:
            self._edge(id_, f"model:{model.parent}", "trained_from")
        return model.parent

    def _add_evaluations(self, registry: Registry, version: str, model: str) -> None:
        try:
            found = registry.evaluations.of(version)
        except ValueError:
            return  # named in the list of models
        for each in found:
            name = f"{each.version}-{each.list_hash}"
            counts = {"task": each.task, "episodes": each.episodes, "successes": each.successes}
            self._node("evaluation", name, each.created, details=counts)
            self._edge(f"evaluation:{name}", model, "evaluates")
            if each.job:
                self._edge(f"evaluation:{name}", f"job:{each.job}", "made_by")
                self._add_job(each.job)

    def _add_job(self, job_id: str) -> None:
        if f"job:{job_id}" in self.nodes:
            return
        job = self._job(job_id)
        if job is None:
            self._node("job", job_id, missing=True)
            return
        self._node("job", job_id, job.created, details={"kind": job.spec.kind, "status": job.status.value})
        if job.parent is not None:
            loop = job.parent.split()[0]
            self._edge(f"job:{job_id}", f"job:{loop}", "submitted_by")
            self._add_job(loop)
        if (dataset := getattr(job.spec, "dataset", None)) is not None:
            self._edge(f"job:{job_id}", f"dataset:{dataset}", "learnt_from")
            self._add_dataset(dataset)

    def _add_dataset(self, name: str) -> None:
        try:
            found = self._services.episodes.datasets.get(name)
        except (KeyError, ValueError):
            self._node("dataset", name, missing=True)
            return
        counts = {"sha256": found.sha256, "episodes": len(found.episodes)}
        self._node("dataset", name, found.created, details=counts)

    def _job(self, job_id: str) -> Job | None:
        try:
            return self._services.jobs.get(job_id)
        except (KeyError, DamagedJobError):
            return None

    def _node(
        self,
        kind: NodeKind,
        name: str,
        created: str | None = None,
        missing: bool = False,
        details: dict[str, Any] | None = None,
    ) -> None:
        id_ = f"{kind}:{name}"
        self.nodes[id_] = LineageNode(
            id=id_, kind=kind, name=name, created=created, missing=missing, details=details or {}
        )

    def _edge(self, source: str, target: str, relation: Relation) -> None:
        edge = LineageEdge(source=source, target=target, relation=relation)
        if edge not in self.edges:
            self.edges.append(edge)
