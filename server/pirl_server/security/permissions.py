"""Scopes per call: one row per RPC of the services and per route of the REST API.

robot     drives one robot: asks for chunks, writes its episodes
operator  stands beside robots: looks, labels, stops, chooses what is served
trainer   makes versions: jobs, episodes, models to read
admin     all of it, and what goes past a gate

What has no row is rejected, even to admin: a new call gets its row or does not work.
"""

from __future__ import annotations

from pirl_contract.wire.grpc_options import SERVICE_PATH

ROBOT, OPERATOR, TRAINER, ADMIN = SCOPES = ("robot", "operator", "trainer", "admin")
_ROBOTS = frozenset({ROBOT, ADMIN})
_OPERATORS = frozenset({OPERATOR, ADMIN})
_TRAINERS = frozenset({TRAINER, ADMIN})
_ROBOTS_AND_OPERATORS = frozenset({ROBOT, OPERATOR, ADMIN})
_PEOPLE = frozenset({OPERATOR, TRAINER, ADMIN})
_ANY_TOKEN = frozenset(SCOPES)
PUBLIC: frozenset[str] = frozenset({"public"})
"""needs no token: health, since process monitors may have none, and pages, as browsers do: what they say is the same on
every server"""

RPCS: dict[str, frozenset[str]] = {
    SERVICE_PATH + "GetInfo": _ANY_TOKEN,
    SERVICE_PATH + "Infer": _ROBOTS,
    SERVICE_PATH + "Session": _ROBOTS,
    SERVICE_PATH + "StartEpisode": _ROBOTS,
    SERVICE_PATH + "EndEpisode": _ROBOTS,
    SERVICE_PATH + "ReportOutcomes": _ROBOTS,
    SERVICE_PATH + "LabelEpisode": _ROBOTS_AND_OPERATORS,
    "/grpc.health.v1.Health/Check": PUBLIC,
    "/grpc.health.v1.Health/Watch": PUBLIC,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _ANY_TOKEN,
}

PUBLIC_RPCS = frozenset(rpc for rpc, scopes in RPCS.items() if scopes == PUBLIC)

ROUTES: dict[tuple[str, str], frozenset[str]] = {
    ("GET", "/healthz"): PUBLIC,
    ("GET", "/readyz"): PUBLIC,
    ("GET", "/v1/info"): _ANY_TOKEN,
    ("GET", "/v1/system"): _PEOPLE,
    ("GET", "/metrics"): _PEOPLE,
    ("GET", "/openapi.json"): _ANY_TOKEN,
    ("GET", "/docs"): PUBLIC,
    ("GET", "/dashboard"): PUBLIC,
    ("GET", "/dashboard/{name}"): PUBLIC,
    ("GET", "/v1/jobs"): _PEOPLE,
    ("POST", "/v1/jobs"): _TRAINERS,
    ("POST", "/v1/job-plans"): _TRAINERS,
    ("GET", "/v1/jobs/{job_id}"): _PEOPLE,
    ("POST", "/v1/jobs/{job_id}/cancel"): _TRAINERS,
    ("POST", "/v1/jobs/{job_id}/pause"): _TRAINERS,
    ("POST", "/v1/jobs/{job_id}/resume"): _TRAINERS,
    ("GET", "/v1/jobs/{job_id}/events"): _PEOPLE,
    ("GET", "/v1/jobs/{job_id}/metrics"): _PEOPLE,
    ("GET", "/v1/jobs/{job_id}/log"): _PEOPLE,
    ("GET", "/v1/jobs/{job_id}/checkpoints"): _PEOPLE,
    ("GET", "/v1/jobs/{job_id}/artefacts"): _PEOPLE,
    ("GET", "/v1/jobs/{job_id}/artefacts/{name}"): _TRAINERS,
    ("GET", "/v1/episodes"): _PEOPLE,
    ("GET", "/v1/episodes/{episode_id}"): _PEOPLE,
    ("GET", "/v1/episodes/{episode_id}/frames/{camera}/{step}.jpg"): _PEOPLE,
    ("GET", "/v1/episodes/{episode_id}/video.mp4"): _PEOPLE,
    ("GET", "/v1/episodes/{episode_id}/steps"): _PEOPLE,
    ("GET", "/v1/episodes/{episode_id}/labels"): _PEOPLE,
    ("POST", "/v1/episodes/{episode_id}/labels"): _OPERATORS,
    ("POST", "/v1/episodes/{episode_id}/labels/undo"): _OPERATORS,
    ("DELETE", "/v1/episodes/{episode_id}"): _OPERATORS,
    ("POST", "/v1/proposals"): _OPERATORS,
    ("GET", "/v1/success-models"): _PEOPLE,
    ("GET", "/v1/datasets"): _PEOPLE,
    ("POST", "/v1/datasets"): _TRAINERS,
    ("GET", "/v1/datasets/{name}"): _PEOPLE,
    ("GET", "/v1/models"): _PEOPLE,
    ("GET", "/v1/models/watch"): _PEOPLE,
    ("GET", "/v1/models/{version}/gate"): _PEOPLE,
    ("GET", "/v1/models/{version}"): _PEOPLE,
    ("GET", "/v1/models/{version}/lineage"): _PEOPLE,
    ("GET", "/v1/evaluations"): _PEOPLE,
    ("GET", "/v1/evaluations/{evaluation_id}"): _PEOPLE,
    ("POST", "/v1/models/promote"): _OPERATORS,
    ("POST", "/v1/models/rollback"): _OPERATORS,
    ("GET", "/v1/audit"): _PEOPLE,
    ("GET", "/v1/routing"): _PEOPLE,
    ("POST", "/v1/ab-trials"): _OPERATORS,
    ("GET", "/v1/ab-trials"): _PEOPLE,
    ("GET", "/v1/ab-trials/{trial_id}"): _PEOPLE,
    ("POST", "/v1/ab-trials/{trial_id}/stop"): _OPERATORS,
    ("PUT", "/v1/routing/canary"): _OPERATORS,
    ("DELETE", "/v1/routing/canary"): _OPERATORS,
    ("PUT", "/v1/routing/shadow"): _OPERATORS,
    ("DELETE", "/v1/routing/shadow"): _OPERATORS,
    ("PUT", "/v1/routing/pins/{robot_id}"): _OPERATORS,
    ("DELETE", "/v1/routing/pins/{robot_id}"): _OPERATORS,
    ("GET", "/v1/robots"): _PEOPLE,
    ("GET", "/v1/robots/{robot_id}/images/{camera}.jpg"): _PEOPLE,
    # any observer of a failure may stop it
    ("POST", "/v1/robots/{robot_id}/emergency-stop"): _PEOPLE,
    ("POST", "/v1/emergency-stop"): _PEOPLE,
}
