"""Specification of a job, by kind. Unknown keys are rejected; the stored one has every default filled in."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from pirl_server.atomic_files import NAME_PATTERN

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
_NAME = NAME_PATTERN.strip("^$")
TaskId = Annotated[str, Field(pattern=f"^{_NAME}(/{_NAME})?$")]
"""a slash parts the simulator from its task"""


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    task: TaskId = Field(examples=["PushCube-v1", "metaworld/mt10"])
    seed: int = Field(default=0, ge=0, lt=2**31)
    config: dict[str, JsonValue] = Field(
        default_factory=dict, description="overrides of the default hyper-parameters, by field name"
    )


class FinetuneSim(_Spec):
    """Online RL in the simulator, from a version or an alias."""

    kind: Literal["finetune_sim"] = "finetune_sim"
    base: Name = "production"


class FinetuneEpisodes(_Spec):
    """Advantage-weighted flow matching on the robots' logged episodes."""

    kind: Literal["finetune_episodes"] = "finetune_episodes"
    base: Name = "production"


class Sft(_Spec):
    """Supervised training on the scripted expert; without a base it starts from new weights."""

    kind: Literal["sft"] = "sft"
    base: Name | None = None


class Evaluate(_Spec):
    """Success of a version on the fixed list of initial states that task, seed and episodes define."""

    kind: Literal["evaluate"] = "evaluate"
    version: Name = "production"
    episodes: int = Field(default=100, ge=1, le=10_000)


JobSpec = Annotated[FinetuneSim | FinetuneEpisodes | Sft | Evaluate, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[FinetuneSim | FinetuneEpisodes | Sft | Evaluate] = TypeAdapter(JobSpec)


def parse_spec(raw: Any) -> JobSpec:
    """Check a decoded JSON object. Raises ValueError with one line that names every key at fault."""
    try:
        return _ADAPTER.validate_python(raw)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'job'}: {fault['msg']}" for fault in error.errors()]
        raise ValueError("; ".join(faults)) from None
