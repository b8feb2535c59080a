"""Settings of `pirl serve`: its flags, their defaults and their help are these fields."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from pirl_contract.wire.addresses import bind_host
from pirl_server.config.fields import CHECKED, OFF, about, number

Format = Literal["text", "json"]
Compile = Literal["auto", "on", "off"]
OnOff = Literal["on", "off"]
MAX_PORT = 2**16 - 1


def _port(description: str) -> object:
    return number(description, "PORT", ge=0, le=MAX_PORT)


@dataclass(frozen=True, config=CHECKED)
class ServeConfig:
    """What `pirl serve` takes. A field's unit is the placeholder of its flag."""

    checkpoint: Annotated[
        Path | None, about("folder with card.json to start from; default: the version in production below the root")
    ] = None
    root: Annotated[Path, about("models, episodes and jobs are kept here", "FOLDER")] = Path("runs/server")
    host: Annotated[
        str, about("address to bind; ::1 or :: for IPv6", "HOST"), AfterValidator(bind_host)
    ] = "127.0.0.1"  # fmt: skip
    grpc_port: Annotated[int, _port("robots connect here")] = 50051
    rest_port: Annotated[int, _port("people and tools connect here")] = 8000
    stop_port: Annotated[
        int | None, _port("takes emergency stops only, in its own thread; default: two above the REST port; 0: none")
    ] = None
    device: Annotated[str, about("where policies run, torch's name: cpu, cuda, cuda:1", "DEVICE")] = "cpu"
    compile: Annotated[
        Compile,
        about(
            "compiled inference of policies that see, where it agrees with the eager one; auto: on a GPU, if that is"
            " possible"
        ),
    ] = "auto"
    default_instruction: Annotated[
        str, about("for requests without an instruction, on either port; default: the policy's only one", "TEXT")
    ] = ""
    explore: Annotated[bool, about("sample stochastically unless a robot requests otherwise")] = False
    tls_cert: Annotated[
        Path | None, about("certificate of this machine, for gRPC and REST; default: no encryption", "PEM")
    ] = None
    tls_key: Annotated[Path | None, about("private key of the certificate", "PEM")] = None
    tls_client_ca: Annotated[
        Path | None, about("admit only clients with a certificate of this authority", "PEM")
    ] = None  # fmt: skip
    robot_rate_hz: Annotated[
        float | None, number("inference requests per second and robot; default: no limit", "HZ", gt=0), OFF
    ] = None
    canary_limit: Annotated[
        float,
        number(
            "of the robots, how many a canary may give a version that has not passed the promotion gate; one alone"
            " always, unless 0", "SHARE", ge=0, le=1,
        ),
    ] = 0.1  # fmt: skip
    gate_margin: Annotated[
        float,
        number(
            "the promotion gate rejects a version whose success rate may be lower by this, on the same initial states",
            "RATE", gt=0, le=0.2,
        ),
    ] = 0.05  # fmt: skip
    gate_robot_margin: Annotated[
        float, number("the same by labelled episodes of robots, for tasks without a simulator", "RATE", gt=0, le=0.2)
    ] = 0.15
    gate_alpha: Annotated[
        float, number("highest probability that a version which is worse by the margin passes", "P", gt=0, le=0.2)
    ] = 0.05
    auto_rollback: Annotated[
        OnOff,
        about("watch a version after its promotion, and take it back when it is worse than the one before"),
    ] = "on"
    episode_memory_mib: Annotated[
        int,
        number(
            "memory of all open episodes; a robot may take a quarter, beyond half of that they wait in files below the"
            " root", "MIB", ge=1,
        ),
    ] = 1024  # fmt: skip
    image_codec: Annotated[
        Sequence[str],
        about(
            "how episodes store a camera's images, and so how the policy sees them: raw, jpeg or jpeg:QUALITY (95); may"
            " be repeated; default: raw", "CAMERA=CODEC",
        ),
    ] = ()  # fmt: skip
    job_device: Annotated[
        Sequence[str],
        about(
            "device for jobs, one at a time on each: cpu:N, or a GPU's index or UUID; may be repeated; default: one job"
            " at a time, wherever it computes", "DEVICE",
        ),
    ] = ()  # fmt: skip
    exchange: Annotated[
        Path | None,
        about(
            "folder below which jobs may import and export episodes; default: none, such jobs are rejected", "FOLDER"
        ),
    ] = None
    metrics_sink: Annotated[
        Sequence[str],
        about(
            "where the numbers of jobs also go: tensorboard:FOLDER, wandb:PROJECT, mlflow:URI or trackio:PROJECT; may"
            " be repeated; default: nowhere else", "SINK",
        ),
    ] = ()  # fmt: skip
    episode_free_mib: Annotated[
        int, number("disk space that stays free: with less no episode begins, robots are served anyway", "MIB", ge=0)
    ] = 256  # fmt: skip
    keep_episodes_days: Annotated[
        float | None,
        number(
            "remove episodes that are older, but for labelled successes and those of datasets; default: never",
            "DAYS", gt=0,
        ),
        OFF,
    ] = None  # fmt: skip
    keep_episodes_gib: Annotated[
        float | None,
        number("remove the oldest episodes beyond this size, but for the same ones; default: never", "GIB", gt=0),
        OFF,
    ] = None
    openpi_port: Annotated[
        int | None, _port("also serve openpi's clients, on their own protocol; default: no such port")
    ] = None
    openpi_key: Annotated[
        Sequence[str],
        about(
            "which key of an openpi observation is which camera, the state or the prompt; may be repeated", "NAME=KEY"
        ),
    ] = ()
    drain_seconds: Annotated[
        float, number("how long connected robots are still served after SIGTERM or SIGINT", "SECONDS", ge=0)
    ] = 5.0
    log_format: Annotated[Format, about("one line of text or one JSON object per event")] = "text"
    allow_insecure: Annotated[
        bool, about("development: bind a public address without certificate or tokens, with a warning")
    ] = False
