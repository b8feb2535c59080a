"""How a pretrained policy was fed: images, prompt, normalisation, delta actions. Data only, for the card.

None of it can be read off the weights, and each wrong guess runs without an error. `policy.pretrained_processor`
carries it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

PRETRAINED = "pretrained"
"""what such a card says under `features`"""

PromptFormat = Literal["pi0", "pi05", "pi05_without_state", "smolvla"]
"""pi0: BOS, text, newline token. pi05: "Task: ..., State: ...;\\nAction: " with the state as 0..255.
pi05_without_state: pi0's form in a pi0.5 model, which gets no state at all (openpi's discrete_state_input=False).
smolvla: text with a line break behind it, encoded together, no BOS."""

Scheme = Literal["zscore", "quantile", "none"]
"""(x - mean) / std, or [q01, q99] to [-1, 1]; never clipped"""

Family = Literal["openpi", "lerobot"]
"""whose epsilon and whose resize: openpi adds 1e-6 always, lerobot 1e-8 to std and to a quantile range that is 0"""


_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Normalisation:
    """Statistics of the real dimensions, before zero-padding to the model's width."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    scheme: Scheme
    convention: Family
    first: tuple[float, ...]
    """mean, or q01; in the contract's units (of delta actions where the mask says so)"""
    second: tuple[float, ...]
    """std, or q99"""


@dataclass(frozen=True)
class CameraSlot:
    """One of the model's image inputs, in the order it was trained with."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    key: str
    """the model's name, e.g. base_0_rgb"""
    camera: str | None
    """the contract's camera behind it; None: absent, masked out"""


@dataclass(frozen=True)
class TokenizerFile:
    """Which tokenizer wrote the prompts. A byte model can never run with PaliGemma's ids, nor the reverse."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    kind: Literal["bytes", "sentencepiece", "tokenizer_json"]
    vocabulary: int
    sha256: str = ""
    """of the file that lies in the checkpoint folder; empty for bytes"""


@dataclass(frozen=True)
class Processing:
    """Everything between the contract's units and the model's tensors."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    prompt: PromptFormat
    clean_prompt: bool
    """underscores and line breaks become spaces (openpi); lerobot's pi0 leaves them"""
    tokenizer: TokenizerFile
    slots: tuple[CameraSlot, ...]
    resize: Literal["pil", "torch", "torch_left_top"]
    """pil: antialiased, as openpi's clients and transforms; torch: bilinear without antialias, as lerobot;
    torch_left_top: the same with the bars left and top, as lerobot's SmolVLA. The others centre the image"""
    pad: Literal[-1, -3]
    """value of the bars in model space; -3 for checkpoints fine-tuned on lerobot 0.4"""
    state: Normalisation
    action: Normalisation
    delta: tuple[bool, ...] = ()
    """per real action dimension: predicted relative to the state the chunk was computed from; empty: none"""
    prompt_state_dim: int = 0
    """entries of the state in a pi05 prompt, zeros behind the robot's own (lerobot 0.4); 0: only the robot's own"""

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Processing:
        """Inverse of `dataclasses.asdict`. Raises ValueError that names the key at fault."""
        try:
            return _ADAPTER.validate_python(dict(raw))
        except ValidationError as error:
            fault = error.errors()[0]
            raise ValueError(f"processing.{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


_ADAPTER: TypeAdapter[Processing] = TypeAdapter(Processing)
